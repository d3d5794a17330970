"""Measuring a set of images, or a cascade's samples over sampling settings: what the command `evaluate` does."""
