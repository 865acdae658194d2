"""What runs outside the tasks: bootstrap, the wizard's driver, the documents' tables."""
