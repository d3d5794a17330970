"""A training step planned before there is a device: counted from shapes, and compiled for a TPU slice."""
