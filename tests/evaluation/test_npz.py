import io
import struct
import zipfile

import numpy as np
import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation import npz
from imagen_jax.evaluation.npz import open_npz

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(3, 2)),
    "scalar": np.asarray(7),
    "text": np.asarray("été"),
    "big": np.arange(3, dtype=">f8"),
    "empty": np.zeros((0, 4)),
    "flags": np.asarray([True, False]),
}


def write(path, header, data=b"", *, compressed=False, name="a.npy"):
    """An array with a header of the test's own."""
    text = header.encode("latin-1")
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        archive.writestr(name, content)
    return path


def read(path, name):
    with open_npz(path, expected="arrays") as stored:
        return stored[name].read()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_every_type_and_order_come_back(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    with open_npz(tmp_path / "a.npz", expected="arrays") as stored:
        assert list(stored) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert (stored[name].shape, stored[name].dtype) == (array.shape, array.dtype)
            np.testing.assert_array_equal(stored[name].read(), array)


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", wanted=np.ones(3), large=np.zeros(100_000))
    read, real = [], npz._read
    monkeypatch.setattr(npz, "_read", lambda archive, name, *more: read.append(name) or real(archive, name, *more))
    with open_npz(tmp_path / "a.npz", expected="arrays") as stored:
        assert stored["large"].shape == (100_000,)
        assert stored["wanted"].read().sum() == 3
    assert read == ["wanted.npy"]


def test_objects_are_seen_and_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", objects=np.asarray([{}, None], object), record=np.zeros(2, [("x", "f4")]))
    for name in ("objects", "record"):
        with pytest.raises(InputError, match="array of objects or of a structure"):
            read(tmp_path / "a.npz", name)
    with open_npz(tmp_path / "a.npz", expected="arrays") as stored:
        assert {each.dtype for each in stored.values()} == {np.dtype(object)}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (400000000,), }", b"", "by its header 3200000000"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 9999999999), }", b"", "by its header"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", b"\0" * 9, "has 9 bytes, and by its header 8"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1, " * 39 + "1), }", b"\0" * 8, "by its header"),
        ("{'descr': '<q9', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8, "no readable"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_that_declares_what_isn_t_there_costs_nothing(tmp_path, header, data, message, compressed):
    path = write(tmp_path / "a.npz", header, data, compressed=compressed)
    with pytest.raises(InputError, match=message):
        read(path, "a")


@pytest.mark.parametrize("header", ["[" * 9000, "{'descr': " + "(" * 900, "-" * 9000 + "1", "", "\xff", "a" * 60_000])
def test_a_header_is_not_run_as_python(tmp_path, header):
    with pytest.raises(InputError, match=r"array of objects|a header of"):
        read(write(tmp_path / "a.npz", header), "a")


def test_damaged_archives_are_one_clear_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=1000))
    valid = path.read_bytes()
    with pytest.raises(InputError, match="missing"):
        read(tmp_path / "b.npz", "a")
    for place in range(60, len(valid) - 300, 500):
        path.write_bytes(valid[:place] + bytes([valid[place] ^ 255]) + valid[place + 1 :])
        with pytest.raises(InputError, match=r"no readable \.npz"):
            read(path, "a")


def test_two_arrays_of_one_name_are_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ones(2))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", buffer.getvalue())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(InputError, match="two arrays of one name"):
        read(tmp_path / "a.npz", "a")
