"""FID's network, and the files that hold its weights."""
