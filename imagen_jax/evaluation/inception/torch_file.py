"""Tensors of a PyTorch file (.pth, .pt), read without PyTorch and without running anything that the file says.

Both of torch.save's formats: the zip archive (since PyTorch 1.6), and the older sequence of pickles. A pickle may name
any function to call; here it gets those few that describe a tensor, and every other name is refused.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imagen_jax.errors import InputError

# From torch/serialization.py: what the older format starts with, and the only version of it.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

# Numbers in both formats are little-endian, on every machine that writes such files.
_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    # A tuple and not an array, so that nothing a pickle may still do (set a state, append) reaches memory.
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state_dict, by name.

    Raises:
      InputError: not such a file, damaged, naming anything but tensors, or holding anything but tensors by name.
    """
    try:
        with open(path, "rb") as file:
            saved, storages = (_read_zip if zipfile.is_zipfile(file) else _read_pickles)(file)
        return {name: _array(tensor, storages) for name, tensor in _named(saved).items()}
    except _NotAllowed as error:
        raise InputError(
            f'"{path}" asks for {error} to be called, which is no part of a tensor; expected a state_dict saved by '
            "torch.save, so fetch the file again from where it was published"
        ) from None
    # The unpickler raises exceptions of every class on broken data.
    except Exception as error:
        raise InputError(
            f'"{path}" is no readable PyTorch file ({error}); expected a state_dict saved by torch.save: if its name '
            "is right, it is truncated or damaged, so fetch it again"
        ) from error


class _NotAllowed(Exception):
    """The message is the refused name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) not in allowed:
            raise _NotAllowed(f"{module}.{name}")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view not in ([], [None]):
            raise ValueError(f"an unknown reference {kind!r}")
        return _Storage(str(key), dtype, int(size))


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, stride: tuple, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, stride)


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


def _read_zip(file: io.BufferedReader) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        (root,) = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        # torch never compresses; what is compressed could be of any size once read.
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError("compressed members")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise ValueError("big-endian numbers")
        saved = _Unpickler(io.BytesIO(archive.read(root + "data.pkl"))).load()
        prefix = root + "data/"
        names = [name for name in archive.namelist() if name.startswith(prefix)]
        return saved, {name.removeprefix(prefix): archive.read(name) for name in names}


def _read_pickles(file: io.BufferedReader) -> tuple[Any, dict[str, bytes]]:
    file.seek(0)
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
        raise ValueError("neither of torch.save's formats")
    if not _Unpickler(file).load().get("little_endian", True):
        raise ValueError("big-endian numbers")
    found: dict[str, _Storage] = {}

    class Collecting(_Unpickler):
        def persistent_load(self, pid: Any) -> _Storage:
            storage = super().persistent_load(pid)
            return found.setdefault(storage.key, storage)

    saved = Collecting(file).load()
    storages = {}
    for key in map(str, _Unpickler(file).load()):
        (size,) = struct.unpack("<q", file.read(8))
        if size != found[key].size:
            raise ValueError(f"storage {key} has {size} numbers instead of {found[key].size}")
        storages[key] = file.read(size * found[key].dtype.itemsize)
    return saved, storages


def _named(saved: Any) -> dict[str, _Tensor]:
    if not isinstance(saved, dict) or not saved:
        raise ValueError(f"it holds a {type(saved).__name__}")
    for name, tensor in saved.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"{name!r} is no tensor")
    return saved


def _array(tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    storage, size = tensor.storage, math.prod(tensor.shape)
    data = storages[storage.key]
    if len(data) != storage.size * storage.dtype.itemsize:
        raise ValueError(f"storage {storage.key} is cut short")
    expected = [math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
    for length, stride, contiguous in zip(tensor.shape, tensor.stride, expected, strict=True):
        if length != 1 and stride != contiguous:
            raise ValueError("a tensor that isn't contiguous")
    if min((tensor.offset, *tensor.shape)) < 0 or tensor.offset + size > storage.size:
        raise ValueError("a tensor outside its storage")
    start = tensor.offset * storage.dtype.itemsize
    return np.frombuffer(data, storage.dtype, count=size, offset=start).reshape(tensor.shape)
