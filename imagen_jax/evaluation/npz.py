"""Arrays of an .npz that somebody else may have written: their types and shapes first, then only those that are needed.

`numpy.load` decompresses and allocates whatever a file declares. Here an array is read when it is asked for, and a
caller sees before that how large it would be.
"""

import contextlib
import math
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from imagen_jax import storage
from imagen_jax.errors import InputError
from imagen_jax.evaluation.stored_arrays import StoredArray

_MAGIC = b"\x93NUMPY"
# numpy's own limit for headers, beyond which it refuses them too.
_MAX_HEADER_BYTES = 10_000
# What numpy writes for arrays of one type. Not evaluated as Python, which may be nested without end.
_HEADER = re.compile(
    r"\{'descr': '([<>|=]?[a-zA-Z?]\d*)', 'fortran_order': (True|False), 'shape': \((\d*(?:, ?\d+)*),?\), ?\}\s*"
)
_MAX_DIMENSIONS = 32


@contextlib.contextmanager
def open_npz(path: Path, *, expected: str) -> Iterator[Mapping[str, StoredArray]]:
    """Opens an .npz, for as long as the context is entered: its arrays by name, none of them read yet.

    An array of objects, which are pickles, or of a structure has the dtype object, and can't be read.

    Args:
      expected: says in the messages what should have been in the file.

    Raises:
      InputError: the file is missing, no .npz, or damaged; also out of the arrays' `read`.
    """
    if not path.is_file():
        raise InputError(f'"{path}" is missing; expected {expected}')
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise ValueError("two arrays of one name")
            yield {name.removesuffix(".npy"): _describe(archive, name) for name in names if name.endswith(".npy")}
    except InputError:
        raise
    # zipfile, zlib and numpy raise exceptions of many classes on broken data.
    except Exception as error:
        if storage.describe_failure(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f'"{path}" is no readable .npz ({reason}), so damaged; expected {expected}') from error


def _describe(archive: zipfile.ZipFile, name: str) -> StoredArray:
    with archive.open(name) as file:
        start = file.read(len(_MAGIC) + 2)
        if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + 2:
            raise ValueError(f"{name} is no array")
        layout = "<H" if start[-2] == 1 else "<I"
        (length,) = struct.unpack(layout, file.read(struct.calcsize(layout)))
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"{name} has a header of {length} bytes")
        header = file.read(length).decode("latin-1")
        offset = file.tell()
    found = _HEADER.fullmatch(header)
    dtype = np.dtype(found[1]) if found else np.dtype(object)
    if found is None or dtype.hasobject:
        return StoredArray((), np.dtype(object), partial(_refuse, name))
    shape = tuple(int(length) for length in found[3].split(",") if length.strip())
    info = archive.getinfo(name)
    num_bytes = math.prod(shape) * dtype.itemsize
    if len(shape) > _MAX_DIMENSIONS or info.file_size != offset + num_bytes:
        raise ValueError(f"{name} has {info.file_size - offset} bytes, and by its header {num_bytes}")
    read = partial(_read, archive, name, offset, num_bytes, dtype, shape, found[2] == "True")
    return StoredArray(shape, dtype, read)


def _read(
    archive: zipfile.ZipFile,
    name: str,
    offset: int,
    num_bytes: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    fortran: bool,
) -> np.ndarray:
    with archive.open(name) as file:
        file.read(offset)
        data = bytearray()
        while block := file.read(2**22):  # to the end, where the checksum is compared
            data += block
            if len(data) > num_bytes:
                break
    if len(data) != num_bytes:
        raise ValueError(f"{name} has {len(data)} bytes, and by its header {num_bytes}")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _refuse(name: str) -> np.ndarray:
    raise ValueError(f"{name} is an array of objects or of a structure")
