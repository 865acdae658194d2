"""The cache: what vmbake keeps on this machine, how sound it is, and how it gets smaller."""
