"""Readers of files that others wrote, and ways to damage such a file; `test_damaged_files.py` tries each on each."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Reader(NamedTuple):
    """A function that reads files.

    Attributes:
      prepare: writes what is valid into an empty folder.
      file: the one that is damaged, relative to the folder.
      read: reads from the folder. It may raise InputError, and nothing else.
    """

    prepare: Callable[[Path], None]
    file: str
    read: Callable[[Path], Any]


# What has meaning in many formats: brackets, lengths, the ends of number ranges.
_TOKENS = (
    *(b"[" * 5000, b'{"a":' * 3000, b"]", b"}", b'"', b",", b"\n", b"\r", b"\0", b"\xff" * 8, b"\x7f\xff\xff\xff"),
    *(b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e999", b"9" * 400, b"4.5", b'"\\ud800"', b"../../x"),
    *(b"\xef\xbb\xbf", b"\x85", b"\xe2\x80\xa8", b"2147483648", b"99999999999999999999", b"[]", b"{}", b'""'),
)


def damage(data: bytes, chance: random.Random) -> bytes:
    """`data` with one to three damages of a kind that `chance` chooses: cut, flipped, repeated, replaced, inserted."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = _damage_once(data, chance)
    return data


def _damage_once(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data) + 1)
    stop = min(len(data), start + chance.choice((1, 1, 2, 4, 8, 64, 1024)))
    match chance.randrange(8):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + data[stop:]
        case 2 if start < len(data):
            return data[:start] + bytes([data[start] ^ 1 << chance.randrange(8)]) + data[start + 1 :]
        case 3:
            return data[:start] + chance.randbytes(stop - start) + data[stop:]
        case 4:
            return data[:stop] + data[start:stop] * chance.choice((1, 2, 100)) + data[stop:]
        case 5:
            return data[:start] + chance.choice(_TOKENS) + data[start:]
        case 6:
            return data[:start] + chance.choice(_TOKENS) + data[stop:]
        case _:
            return data[:start] + bytes(stop - start) + data[stop:]
