"""Tensors of a PyTorch file (.pth, .pt), read without PyTorch and without running anything that the file says.

Both of torch.save's formats: the zip archive (since PyTorch 1.6), and the older sequence of pickles. See `pickles` for
what a pickle may say. Names, types and shapes are known before any numbers are read.
"""

import contextlib
import io
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imagen_jax import storage as disk
from imagen_jax.errors import InputError
from imagen_jax.evaluation.inception.pickles import Function, NotAllowed, read_pickle
from imagen_jax.evaluation.stored_arrays import StoredArray

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
# The published file's pickles are less than 100 kB.
_MAX_PICKLE_BYTES = 8 * 2**20
_MAX_DIMENSIONS = 16
_MAX_LENGTH = 2**48
# Tensors may share a storage, but not so that each of thousands has all of a large file read again.
_MOST_READ = 4


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int

    @property
    def num_bytes(self) -> int:
        return self.size * self.dtype.itemsize


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


# A storage's key -> a function that yields its bytes, in blocks.
_Blocks = Callable[[str], Iterator[bytes]]


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a state_dict, by name. Raises as `open_torch_file` does."""
    with open_torch_file(path) as tensors:
        return {name: tensor.read() for name, tensor in tensors.items()}


@contextlib.contextmanager
def open_torch_file(path: Path) -> Iterator[Mapping[str, StoredArray]]:
    """Opens a file of a state_dict, for as long as the context is entered: its tensors by name, none of them read yet.

    Raises:
      InputError: not such a file, damaged, naming anything but tensors, or holding anything but tensors by name; also
        out of the tensors' `read`.
    """
    try:
        with open(path, "rb") as file, contextlib.ExitStack() as stack:
            if zipfile.is_zipfile(file):
                saved, storages, blocks = _open_zip(stack.enter_context(zipfile.ZipFile(file)))
            else:
                saved, storages, blocks = _open_pickles(file)
            tensors = _checked(_named(saved), storages, file_bytes=os.fstat(file.fileno()).st_size)
            yield {
                name: StoredArray(tensor.shape, tensor.storage.dtype, partial(_read, tensor, blocks))
                for name, tensor in tensors.items()
            }
    except InputError:
        raise
    except NotAllowed as error:
        raise InputError(
            f'"{path}" asks for {error} to be called, which is no part of a tensor; expected a state_dict saved by '
            "torch.save, so fetch the file again from where it was published"
        ) from None
    # zipfile raises exceptions of many classes on broken data.
    except Exception as error:
        if disk.describe_failure(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f'"{path}" is no readable PyTorch file ({reason}); expected a state_dict saved by torch.save: if its name '
            "is right, it is truncated or damaged, so fetch it again"
        ) from error


def _persistent(pid: Any) -> _Storage:
    if not isinstance(pid, tuple) or len(pid) not in (5, 6):
        raise ValueError("an unknown reference")
    kind, dtype, key, _, size, *view = pid
    if kind != "storage" or not isinstance(dtype, np.dtype) or view not in ([], [None]) or not isinstance(key, str):
        raise ValueError("an unknown reference")
    if not _is_length(size):
        raise ValueError("a storage without a size")
    return _Storage(key, dtype, size)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor without a storage or a shape")
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("a tensor of unknown shape")
    if not all(_is_length(number) for number in (offset, *shape)):
        raise ValueError("a tensor outside its storage")
    if not all(_is_length(number) for number in stride):
        raise ValueError("a tensor that isn't contiguous")
    return _Tensor(storage, offset, shape, stride)


def _rebuild_parameter(tensor: Any, *_: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise ValueError("a parameter that is no tensor")
    return tensor


_NAMES: Mapping[str, Any] = {
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    "collections.OrderedDict": Function(lambda: {}),
    "torch._utils._rebuild_tensor_v2": Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": Function(_rebuild_parameter),
}


def _is_length(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _MAX_LENGTH


def _open_zip(archive: zipfile.ZipFile) -> tuple[Any, dict[str, int], _Blocks]:
    names = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1 or len(set(names)) < len(names):
        raise ValueError("not one data.pkl and one member of each name")
    # torch never compresses; what is compressed could be of any size once read.
    if any(
        item.compress_type != zipfile.ZIP_STORED or item.compress_size != item.file_size for item in archive.infolist()
    ):
        raise ValueError("compressed members")
    root = roots[0]
    if root + "byteorder" in names and _small(archive, root + "byteorder") != b"little":
        raise ValueError("big-endian numbers")
    saved = read_pickle(io.BytesIO(_small(archive, root + "data.pkl")), _NAMES, persistent=_persistent)
    prefix = root + "data/"

    def blocks(key: str) -> Iterator[bytes]:
        with archive.open(prefix + key) as member:
            yield from _in_blocks(member, archive.getinfo(prefix + key).file_size)

    return (
        saved,
        {name.removeprefix(prefix): archive.getinfo(name).file_size for name in names if name.startswith(prefix)},
        blocks,
    )


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MAX_PICKLE_BYTES:
        raise ValueError(f"{name} is larger than a list of tensors")
    return archive.read(name)


def _open_pickles(file: io.BufferedReader) -> tuple[Any, dict[str, int], _Blocks]:
    file.seek(0)
    pickles = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
    if read_pickle(pickles, {}) != _MAGIC or read_pickle(pickles, {}) != _PROTOCOL:
        raise ValueError("neither of torch.save's formats")
    header = read_pickle(pickles, {})
    if not isinstance(header, dict) or not header.get("little_endian", True):
        raise ValueError("big-endian numbers")
    found: dict[str, _Storage] = {}

    def persistent(pid: Any) -> _Storage:
        storage = _persistent(pid)
        return found.setdefault(storage.key, storage)

    saved = read_pickle(pickles, _NAMES, persistent=persistent)
    keys = read_pickle(pickles, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in found for key in keys):
        raise ValueError("storages without a list of them")
    places: dict[str, int] = {}
    file.seek(pickles.tell())
    for key in keys:
        (size,) = struct.unpack("<q", file.read(8))
        if size != found[key].size:
            raise ValueError(f"storage {key[:50]} has {size} numbers instead of {found[key].size}")
        places[key] = file.tell()
        file.seek(found[key].num_bytes, os.SEEK_CUR)
    if file.tell() > os.fstat(file.fileno()).st_size:
        raise ValueError("it is cut short")

    def blocks(key: str) -> Iterator[bytes]:
        file.seek(places[key])
        yield from _in_blocks(file, found[key].num_bytes)

    return saved, {key: found[key].num_bytes for key in places}, blocks


def _in_blocks(file: Any, num_bytes: int) -> Iterator[bytes]:
    while num_bytes > 0 and (block := file.read(min(num_bytes, 2**22))):
        num_bytes -= len(block)
        yield block
    file.read(0 if num_bytes else 1)  # past the end, where zipfile compares the checksum


def _named(saved: Any) -> dict[str, _Tensor]:
    if not isinstance(saved, dict) or not saved:
        raise ValueError(f"it holds a {type(saved).__name__}")
    for name, tensor in saved.items():
        if not isinstance(tensor, _Tensor):
            raise ValueError(f"{name[:100]!r} is no tensor")
    return saved


def _checked(tensors: dict[str, _Tensor], storages: Mapping[str, int], *, file_bytes: int) -> dict[str, _Tensor]:
    if sum(tensor.storage.num_bytes for tensor in tensors.values()) > _MOST_READ * file_bytes:
        raise ValueError("a file too small for its tensors")
    for tensor in tensors.values():
        storage = tensor.storage
        if storages.get(storage.key) != storage.num_bytes:
            raise ValueError(f"storage {storage.key[:50]} is cut short")
        expected = 1
        for axis in reversed(_axes_in_memory(tensor)):
            if tensor.shape[axis] != 1 and tensor.stride[axis] != expected:
                raise ValueError("a tensor that isn't contiguous")
            expected *= tensor.shape[axis]
        if tensor.offset + math.prod(tensor.shape) > storage.size:
            raise ValueError("a tensor outside its storage")
    return tensors


def _axes_in_memory(tensor: _Tensor) -> list[int]:
    """The axes from the slowest to the fastest: of a transposed tensor in another order than its shape."""
    # Axes of one number have any stride; where they stand doesn't matter.
    return sorted(range(len(tensor.shape)), key=lambda axis: (-tensor.stride[axis], axis))


def _read(tensor: _Tensor, blocks: _Blocks) -> np.ndarray:
    """Goes through the whole storage, so that its checksum is compared, and keeps what is the tensor's."""
    itemsize, count = tensor.storage.dtype.itemsize, math.prod(tensor.shape)
    start, kept, place = tensor.offset * itemsize, bytearray(), 0
    for block in blocks(tensor.storage.key):
        kept += block[max(0, start - place) : max(0, start + count * itemsize - place)]
        place += len(block)
    if len(kept) != count * itemsize:
        raise ValueError(f"storage {tensor.storage.key[:50]} is cut short")
    axes = _axes_in_memory(tensor)
    in_memory = np.frombuffer(kept, tensor.storage.dtype).reshape([tensor.shape[axis] for axis in axes])
    return in_memory.transpose(np.argsort(axes)) if axes else in_memory
