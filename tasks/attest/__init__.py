"""What vouches for finished images: bills of materials, provenance, signatures, and their check."""
