"""Room: Virtual-DSM images, installed, set up and frozen in a container."""
