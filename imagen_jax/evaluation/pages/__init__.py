"""Pages that show samples, and compare two runs blindly."""
