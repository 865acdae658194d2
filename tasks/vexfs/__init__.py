"""VexFS images: a cloud image with a kernel file system compiled and installed in it."""
