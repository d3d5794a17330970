"""Rows that several hosts computed, on each of them, bit by bit: every result is then that of a host alone."""

from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from imagen_jax.errors import InputError

# What a host receives at a time.
_GATHER_BYTES = 2**28


def own_rows(count: int) -> range:
    """Which of `count` rows this process computes: a block of them, as large as another's or one larger."""
    process, processes = jax.process_index(), jax.process_count()
    return range(process * count // processes, (process + 1) * count // processes)


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """[n,D] of each process -> [N,D] of all, in the order of the processes. All must call it.

    Args:
      rows: of any dtype, a multiple of 4 bytes each; D and dtype are every process's. n may differ, and be 0.

    `process_allgather` alone makes float32 of float64 unless jax_enable_x64 is set.
    """
    if jax.process_count() == 1:
        return rows
    words = to_words(rows)
    counts = np.asarray(multihost_utils.process_allgather(np.int32(len(rows))))
    step = min(max(1, _GATHER_BYTES // (len(counts) * words.shape[1] * words.itemsize)), int(counts.max()))
    blocks = []
    for start in range(0, int(counts.max()), max(1, step)):
        block = np.zeros((step, words.shape[1]), np.uint32)
        mine = words[start : start + step]
        block[: len(mine)] = mine
        blocks.append(np.asarray(multihost_utils.process_allgather(block)))
    if not blocks:
        return rows
    padded = np.concatenate(blocks, axis=1)
    gathered = np.concatenate([part[:count] for part, count in zip(padded, counts, strict=True)])
    return from_words(gathered, rows.dtype)


def for_each(count: int, compute: Callable[[range], Iterable[Sequence[float]]]) -> np.ndarray:
    """[count,K] float64, a row for each image, each computed by one process. All must call it.

    Args:
      compute: K numbers for each of these rows, in order.

    Raises:
      InputError: there are fewer images than processes.
    """
    check_enough(count)
    return gather_rows(np.asarray(list(compute(own_rows(count))), np.float64))


def check_enough(count: int) -> None:
    """Raises InputError where a process would have no image."""
    if count < jax.process_count():
        raise InputError(
            f"{count} images for {jax.process_count()} hosts; expected one each at least: start fewer hosts"
        )


def to_words(array: np.ndarray) -> np.ndarray:
    """[n,D] as uint32, bit by bit; 4 divides the bytes of a row."""
    return np.ascontiguousarray(array).view(np.uint32)


def from_words(words: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The reverse of `to_words`."""
    return np.ascontiguousarray(words).view(dtype)
