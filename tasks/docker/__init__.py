"""The Docker engine, its containers, images and registries; the only importer of the Docker SDK."""
