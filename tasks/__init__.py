"""vmbake's rooms and layers; the root collection that assembles them is ../tasks.py."""
