"""What to sample: lists of prompts, and the protocols of published numbers."""
