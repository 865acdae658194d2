"""What vmbake costs, beside what the usual tools cost on the same machine in the same minutes."""
