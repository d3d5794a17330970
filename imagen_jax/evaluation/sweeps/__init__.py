"""Samples over settings: the points, their folders, the table and the curve."""
