"""Files as torch.save writes them, without torch; and random weights of Inception under which activations stay sane."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagen_jax.evaluation.inception.weights import tensor_shapes

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def random_tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes().items():
        if len(shape) > 1:
            gain = 2.0 if name.endswith("conv.weight") else 1.0
            tensor = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(gain / np.prod(shape[1:])))
        elif name.endswith(("bn.weight", "running_var")):
            tensor = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            tensor = rng.normal(0.0, 0.1, shape).astype(np.float32)
        tensors[name] = tensor
    return tensors


class _StorageOf:
    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array


class _Tensor:
    def __init__(self, storage: _StorageOf, *, stride: tuple[int, ...] | None = None, offset: int = 0):
        self.storage, self.offset = storage, offset
        array = storage.array
        self.stride = stride or tuple(step // array.itemsize for step in array.strides)

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2  # type: ignore[attr-defined]
        return rebuild, (self.storage, self.offset, self.storage.array.shape, self.stride, False, OrderedDict())


class TorchWriter:
    """Writes both formats. While one is there, `torch` is a stand-in that pickles can name and nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
        self._kinds = {np.float32: "FloatStorage", np.float64: "DoubleStorage", np.int64: "LongStorage"}
        for name in self._kinds.values():
            setattr(torch, name, type(name, (), {"__module__": "torch"}))

        def _rebuild_tensor_v2(*args):
            raise NotImplementedError

        _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
        utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
        torch._utils = utils  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setitem(sys.modules, "torch._utils", utils)
        self._torch = torch

    def save(self, path: Path, tensors: dict[str, Any], *, legacy: bool = False, **geometry: Any) -> Path:
        """`tensors`: arrays, or anything else to be pickled as it is. `geometry`: stride or offset of every tensor."""
        storages = {name: _StorageOf(str(i), v) for i, (name, v) in enumerate(tensors.items()) if hasattr(v, "dtype")}
        saved = OrderedDict(
            (name, _Tensor(storages[name], **geometry) if name in storages else value)
            for name, value in tensors.items()
        )
        # As of a module's state_dict.
        saved._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
        if legacy:
            sizes = {"short": 2, "int": 4, "long": 4}
            header = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": sizes}
            data = [pickle.dumps(part, protocol=2) for part in (MAGIC, PROTOCOL, header)]
            data.append(self._pickle(saved, view=(None,)))
            data.append(pickle.dumps([s.key for s in storages.values()], protocol=2))
            data += [np.int64(s.array.size).tobytes() + s.array.ravel("K").tobytes() for s in storages.values()]
            path.write_bytes(b"".join(data))
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("weights/data.pkl", self._pickle(saved, view=()))
                archive.writestr("weights/byteorder", "little")
                for storage in storages.values():
                    archive.writestr(f"weights/data/{storage.key}", storage.array.ravel("K").tobytes())
                archive.writestr("weights/version", "3\n")
        return path

    def _pickle(self, value: Any, view: tuple) -> bytes:
        torch, kinds = self._torch, self._kinds

        class Pickler(pickle.Pickler):
            def persistent_id(self, obj: Any) -> Any:
                if isinstance(obj, _StorageOf):
                    kind = getattr(torch, kinds[obj.array.dtype.type])
                    return ("storage", kind, obj.key, "cpu", obj.array.size, *view)
                return None

        buffer = io.BytesIO()
        Pickler(buffer, protocol=2).dump(value)
        return buffer.getvalue()
