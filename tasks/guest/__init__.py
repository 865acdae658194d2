"""What runs inside the machine: base images, cloud-init data, the ways in."""
