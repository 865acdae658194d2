"""Things that stand in for what a test must not use: servers, tools, guests."""
