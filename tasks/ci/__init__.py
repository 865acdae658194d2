"""CI: the pipeline over all variants, and the reports that people and machines read."""
