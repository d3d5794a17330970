"""pytorch-fid, torch-fidelity and clean-fid with weights of our own, and torchvision, which the first two import."""

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


def import_references() -> dict[str, ModuleType]:
    """The modules by name; skips the test file where one is missing."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision", allow_module_level=True)
    make_torchvision_importable()
    names = ("pytorch_fid.inception", "pytorch_fid.fid_score", "cleanfid.resize", "cleanfid.fid")
    names += tuple(f"torch_fidelity.{name}" for name in ("feature_extractor_inceptionv3", "metric_fid", "metric_kid"))
    names += ("torch_fidelity.metric_isc", "torch_fidelity.metric_prc")
    return {"torch": torch} | {name: pytest.importorskip(name) for name in names}


@functools.cache
def make_torchvision_importable() -> None:
    """Where there is torchvision, and torch: PyPI's builds of the two don't fit each other without CUDA."""
    torch = importlib.import_module("torch")
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    try:
        torch.ops.load_library(str(Path(found.origin).parent / "_C.so"))
    except OSError:
        # Its C++ operators are built for CUDA, and don't load beside a torch without. Importing torchvision fails
        # unless these two exist; nothing calls them.
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}() -> ()")
        make_torchvision_importable.keep = operators  # type: ignore[attr-defined]


def torch_fidelity(modules: dict[str, ModuleType], weights: Path, taps: list[str]) -> Any:
    """uint8 [N,H,W,3] -> the features of each of `taps`, of "tf_legacy"."""
    torch = modules["torch"]
    extractor = modules["torch_fidelity.feature_extractor_inceptionv3"].FeatureExtractorInceptionV3
    network = extractor("inception", taps, feature_extractor_weights_path=str(weights))

    def run(images):
        with torch.no_grad():
            return [x.numpy() for x in network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))]

    return run


def pytorch_fid(modules: dict[str, ModuleType], weights: Path, taps: list[str], *, prepared: bool = False) -> Any:
    """uint8 [N,H,W,3] -> the features of each of `taps`, of "pytorch"; `prepared`: of what the network itself sees."""
    torch = modules["torch"]
    module: Any = modules["pytorch_fid.inception"]
    module.load_state_dict_from_url = lambda *args, **kwargs: torch.load(weights)
    blocks = [module.InceptionV3.BLOCK_INDEX_BY_DIM[int(tap)] for tap in taps]
    network = module.InceptionV3(blocks, resize_input=not prepared, normalize_input=not prepared).eval()

    def run(images):
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float()
        with torch.no_grad():
            return [features.mean((2, 3)).numpy() for features in network(x if prepared else x / 255.0)]

    return run


def clean_fid(modules: dict[str, ModuleType], weights: Path, taps: list[str]) -> Any:
    """uint8 [N,H,W,3] -> the features of each of `taps`, of "clean": its resizing, in front of pytorch-fid's network.

    Its own network is the same, as TorchScript with weights inside.
    """
    resize = modules["cleanfid.resize"].build_resizer("clean")
    network = pytorch_fid(modules, weights, taps, prepared=True)
    return lambda images: network((np.stack([resize(image) for image in images]) - 128) / 128)
