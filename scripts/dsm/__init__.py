"""How provision_dsm.py handles a browser and a DSM; what DSM shows is in that program."""
