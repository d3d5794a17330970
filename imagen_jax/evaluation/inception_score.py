"""Inception Score: how sure a classifier is of each image, and how many classes it sees."""

import numpy as np

from imagen_jax.errors import InputError
from imagen_jax.evaluation.bounds import check_count


def inception_score(logits: np.ndarray, *, seed: int | None, num_splits: int = 10) -> tuple[float, float]:
    """exp(E_x KL(p(y|x) || p(y))) of each part of the images: mean and deviation over the parts.

    Args:
      logits: [N,1008], Inception's without their bias ("logits_unbiased"), as everybody computes it.
      seed: of the order in which images are divided; None leaves them in theirs, which is wrong where they are sorted.
      num_splits: parts of N / num_splits images; the score depends on it.

    Raises:
      InputError: fewer images than parts, no part, or a negative seed.

    Source: Salimans et al., arXiv 1606.03498, section 4.
    """
    if seed is not None:
        check_count("seed", seed, least=0)
    check_count("num_splits", num_splits, least=1)
    count = len(logits)
    if count < num_splits:
        raise InputError(f"an Inception Score of {count} images; expected {num_splits} parts of one image at least")
    order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    logits = logits[order].astype(np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    scores = []
    for part in range(num_splits):
        log_part = log_p[part * count // num_splits : (part + 1) * count // num_splits]
        p = np.exp(log_part)
        # A class that no image may be of adds nothing.
        log_mean = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))
        scores.append(np.exp(np.mean(np.sum(p * (log_part - log_mean[None, :]), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))
