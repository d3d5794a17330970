"""The interpreter of pickles: it reads what Python's own writes of tensors' lists, and is hurt by nothing else."""

import io
import pickle
import struct
import time
from collections import OrderedDict

import pytest

from imagen_jax.evaluation.inception.pickles import Function, NotAllowed, read_pickle

NAMES = {"collections.OrderedDict": Function(lambda: {})}


def read(data):
    return read_pickle(io.BytesIO(data), NAMES)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_a_list_of_tensors_is_made_of_comes_back(protocol):
    value = {
        "a": [1, 255, 70_000, -5, 2**40, True, False, None],
        "b": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), []),
        "ä": OrderedDict(x={"y": "z" * 300}),
    }
    assert read(pickle.dumps(value, protocol=protocol)) == value


def test_several_pickles_are_read_one_after_the_other():
    file = io.BytesIO(pickle.dumps([1], protocol=2) + pickle.dumps("two", protocol=2) + b"rest")
    assert (read_pickle(file, {}), read_pickle(file, {}), file.read()) == ([1], "two", b"rest")


def test_a_name_that_isn_t_known_is_refused_by_name():
    with pytest.raises(NotAllowed, match=r"builtins\.print|__builtin__\.print"):
        read(pickle.dumps(print, protocol=2))
    with pytest.raises(NotAllowed, match=r"builtins\.eval"):
        read(pickle.dumps(eval, protocol=4))


def nested(one, depth):
    """`one` around itself, as pickles can say it without any recursion."""
    return b"\x80\x02)" + one * depth + b"."


BOMBS = {
    "a text of 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
    "a text of 2**63 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**63 - 1) + b".",
    "bytes of 2**40": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "bytearray of 2**40": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a number of many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "a tuple of nothing": b"\x80\x02\x87.",
    "a list without a beginning": b"\x80\x02]e.",
    "a call of a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "a call with too many arguments": b"\x80\x02ccollections\nOrderedDict\nN\x85R.",
    "a set": pickle.dumps({1, 2}, protocol=4),
    "a float": pickle.dumps([1.5], protocol=2),
    "a tuple as a key": pickle.dumps({(1, 2): 3}, protocol=2),
    "nothing": b"",
    "no end": b"\x80\x02]",
    "two values": b"\x80\x02NN.",
    "another protocol's instruction": b"\x80\x02\xfe.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_no_list_of_tensors_says_is_refused_at_once(name):
    started = time.monotonic()
    with pytest.raises((ValueError, NotAllowed)):
        read(BOMBS[name])
    assert time.monotonic() - started < 2


def test_numbers_that_python_s_unpickler_takes_memory_for_cost_nothing():
    assert read(b"\x80\x02Nr\xff\xff\xff\xff.") is None  # place 2**32 of the memo
    assert read(b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.") is None  # a frame


def test_deep_nesting_and_shared_parts_cost_their_length_only():
    started = time.monotonic()
    value = read(nested(b"\x85", 100_000))  # ((((...))))
    assert isinstance(value, tuple)
    del value
    doubled = read(nested(b"q\x00h\x00\x86", 50_000))
    assert isinstance(doubled, tuple)  # 2**50,000 leaves, if somebody counted them
    # As a key it would be hashed, leaf by leaf.
    with pytest.raises(ValueError, match="tuple in place of a str"):
        read(b"\x80\x02})" + b"q\x00h\x00\x86" * 100 + b"Ns.")
    assert time.monotonic() - started < 10


def test_more_instructions_than_a_file_of_weights_has_are_refused():
    with pytest.raises(ValueError, match="more instructions"):
        read(b"\x80\x02" + b"N" * 400_002 + b".")
