"""Getting files from elsewhere, and turning results into artifacts: checked, packed, described."""
