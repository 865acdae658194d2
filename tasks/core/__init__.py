"""What both products stand on: the stage graph, its store, processes, errors, displays."""
