"""CLIP: embeddings of images and captions, from a folder that transformers reads too."""
