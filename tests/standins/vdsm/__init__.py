"""A stand-in for the image vdsm/virtual-dsm and its guest, made of real parts: see image.py."""
