"""CLIP: its two towers, from a folder as transformers lays it out. `evaluation.clip` measures with it."""
