"""Evaluation of EMA parameters during training, and of finished cascades."""
