"""Readers of evaluation's files: statistics, weights, CLIP's folders, votes, keys, runs, sweeps, COCO, prompt tables."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from imagen_jax.errors import InputError
from imagen_jax.evaluation.clip.config import read_towers
from imagen_jax.evaluation.clip.folder import parameter_shapes
from imagen_jax.evaluation.clip.preprocess import read_preprocessing
from imagen_jax.evaluation.clip.tokenizer import ClipTokenizer
from imagen_jax.evaluation.features import FeatureId
from imagen_jax.evaluation.inception.torch_file import read_torch_file
from imagen_jax.evaluation.inception.weights import _open, load_inception
from imagen_jax.evaluation.statistics_file import load_statistics, save_statistics, statistics_of
from tests.evaluation.clip_folders import write_clip
from tests.evaluation.torch_files import TorchWriter
from tests.readers.reader import Reader

_FEATURES = FeatureId("inception", "2048", "tf_legacy", "6726825d" + "0" * 56)
_TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(4, 3, 1, 2),
    "bn.running_var": np.ones(5),
    "bn.num_batches_tracked": np.array(7, np.int64),
}


def _statistics(folder: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    save_statistics(folder / "real.npz", statistics_of(rows, _FEATURES, data_fingerprint="ab12"))


def _foreign_statistics(folder: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(12, 5))
    np.savez_compressed(folder / "real.npz", mu=rows.mean(0), sigma=np.cov(rows, rowvar=False))


def _torch(folder: Path, *, legacy: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        TorchWriter(patch).save(folder / "weights.pth", _TENSORS, legacy=legacy)


def _tensors(folder: Path, *, kind: str) -> None:
    path = folder / f"weights.{kind}"
    if kind == "npz":
        np.savez(path, allow_pickle=False, **_TENSORS)
    else:
        save_file(_TENSORS, path)


def _read_tensors(folder: Path, *, kind: str) -> None:
    path = folder / f"weights.{kind}"
    with _open(path) as stored:
        _ = {name: tensor.read() for name, tensor in stored.items()}


def _not_this_network(folder: Path) -> None:
    """All that happens before shapes are compared; a few tensors are never FID's network."""
    try:
        load_inception(folder / "weights.pth")
    except InputError as error:
        assert str(error)


@functools.cache
def _clip_files() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _clip(folder: Path) -> None:
    for name, data in _clip_files().items():
        if not name.endswith(".safetensors"):
            (folder / name).write_bytes(data)


def _clip_tokenizer(folder: Path) -> None:
    _clip(folder)
    ClipTokenizer(folder, 16)._tokenizer.save(str(folder / "tokenizer.json"))


def _preprocessor(folder: Path) -> None:
    config: dict[str, Any] = {
        "do_resize": True,
        "size": {"shortest_edge": 24},
        "crop_size": {"height": 24, "width": 24},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.2, 0.3],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def _writer(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(text.encode()) and None


READERS: dict[str, Reader] = {
    "statistics": Reader(_statistics, "real.npz", lambda folder: load_statistics(folder / "real.npz")),
    "statistics of another program": Reader(
        _foreign_statistics, "real.npz", lambda folder: load_statistics(folder / "real.npz", foreign=_FEATURES)
    ),
    "torch zip": Reader(
        functools.partial(_torch, legacy=False), "weights.pth", lambda folder: read_torch_file(folder / "weights.pth")
    ),
    "torch legacy": Reader(
        functools.partial(_torch, legacy=True), "weights.pth", lambda folder: read_torch_file(folder / "weights.pth")
    ),
    "weights of another network": Reader(functools.partial(_torch, legacy=False), "weights.pth", _not_this_network),
    **{
        f"weights in {kind}": Reader(
            functools.partial(_tensors, kind=kind), f"weights.{kind}", functools.partial(_read_tensors, kind=kind)
        )
        for kind in ("npz", "safetensors")
    },
    "CLIP config": Reader(_clip, "config.json", lambda folder: parameter_shapes(*read_towers(folder))),
    "CLIP vocabulary": Reader(_clip, "vocab.json", lambda folder: ClipTokenizer(folder, 16)(["a photo"])),
    "CLIP merges": Reader(_clip, "merges.txt", lambda folder: ClipTokenizer(folder, 16)(["a photo"])),
    "CLIP tokenizer": Reader(
        _clip_tokenizer, "tokenizer.json", lambda folder: ClipTokenizer(folder, 16)(["a photo of 12 red apples"])
    ),
    "CLIP preprocessing": Reader(
        _preprocessor, "preprocessor_config.json", lambda folder: read_preprocessing(folder, 24)
    ),
}
