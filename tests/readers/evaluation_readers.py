"""Readers of evaluation's files: statistics, weights, CLIP's folders, votes, keys, runs, sweeps, COCO, tables."""

import dataclasses
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from imagen_jax.clip.config import read_towers
from imagen_jax.clip.folder import parameter_shapes
from imagen_jax.clip.preprocess import read_preprocessing
from imagen_jax.clip.tokenizer import ClipTokenizer
from imagen_jax.evaluation.base import Measure
from imagen_jax.evaluation.features import FeatureId
from imagen_jax.evaluation.inception.torch_file import read_torch_file
from imagen_jax.evaluation.inception.weights import _open
from imagen_jax.evaluation.output_folders import open_run
from imagen_jax.evaluation.pages.comparison import read_key
from imagen_jax.evaluation.pages.vote_files import read_votes
from imagen_jax.evaluation.prompts.coco import read_coco
from imagen_jax.evaluation.prompts.prompt_lists import read_drawbench, read_parti
from imagen_jax.evaluation.statistics_file import load_statistics, save_statistics, statistics_of
from imagen_jax.evaluation.sweeps.sweep import _kept_measures, describe_status
from tests.evaluation.clip_folders import write_clip
from tests.evaluation.runs import prompt_list, write_images
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


@functools.cache
def _clip_files() -> dict[str, bytes]:
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


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


_KEY = {
    "comparison": "ab12",
    "labels": ["a", "b"],
    "prompts": [{"id": str(n), "category": "c", "left": n % 2} for n in range(3)],
}
_VOTES = {
    "comparison": "ab12",
    "rater": "0123456789abcdef",
    "time": 1764000000000,
    "votes": {"0": {"fidelity": "left", "alignment": "tie"}, "2": {"fidelity": "right"}},
}


def _comparison(folder: Path) -> None:
    _write_json(folder / "key.json", _KEY)
    _write_json(folder / "votes.json", _VOTES)


def _run(folder: Path) -> None:
    write_images(folder, prompts=prompt_list(("a", "b"), ("", "")), per_prompt=1)


def _samples(folder: Path) -> None:
    images = [{"index": k, "prompt": f"a {k}", "files": [f"00{k}_4.png", f"00{k}_8.png"]} for k in range(2)]
    _write_json(folder / "samples.json", {"seed": 0, "images": images})
    for entry in images:
        for name in entry["files"]:
            (folder / name).write_bytes(b"not opened")


def _sweep(folder: Path) -> None:
    content = {"identity": {"seed": 0}, "points": ["guidance=1"], "sizes": [8], "count": 2}
    _write_json(folder / "sweep.json", content)


def _result(folder: Path) -> None:
    fields = dataclasses.asdict(Measure(1.5, "distance", low=1.0, high=2.0, caveats=("few images",)))
    _write_json(folder / "result.json", {"made_of": {"images": ["ab"]}, "measures": [["fd_x", fields]]})


def _read_result(folder: Path) -> None:
    _kept_measures(folder / "result.json", {"images": ["ab"]})


def _coco(folder: Path) -> None:
    images = [{"id": 7 * k, "file_name": f"{k}.jpg"} for k in range(4)]
    captions = [{"id": k, "image_id": 7 * (k % 4), "caption": f"caption {k}"} for k in range(8)]
    _write_json(folder / "coco.json", {"images": images, "annotations": captions})


def _drawbench(folder: Path) -> None:
    text = 'Prompts,Category\nA red car.,Colors\n"A sign, that says ""Hi"".",Text\n"two\nlines",Text\n'
    (folder / "drawbench.csv").write_text(text, "utf-8")


def _parti(folder: Path) -> None:
    text = 'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tno "note\n"Hi" on a wall\tArts\tComplex\t\n'
    (folder / "parti.tsv").write_text(text, "utf-8")


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
    "comparison's key": Reader(_comparison, "key.json", read_key),
    "votes": Reader(_comparison, "votes.json", lambda folder: read_votes(folder / "votes.json", read_key(folder))),
    "run": Reader(_run, "run.json", open_run),
    "record of samples": Reader(_samples, "samples.json", open_run),
    "sweep": Reader(_sweep, "sweep.json", describe_status),
    "result of a point": Reader(_result, "result.json", _read_result),
    "COCO's captions": Reader(
        _coco, "coco.json", lambda folder: read_coco(folder / "coco.json", reading="images", count=3, seed=0)
    ),
    "drawbench": Reader(_drawbench, "drawbench.csv", lambda folder: read_drawbench(folder / "drawbench.csv")),
    "parti": Reader(_parti, "parti.tsv", lambda folder: read_parti(folder / "parti.tsv")),
}
