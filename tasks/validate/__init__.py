"""Validation: boots an image as its owner would, and checks that it is what it should be."""
