"""What a compiled program sends between devices: collectives by kind, their number and bytes."""

import re
from typing import NamedTuple

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# One instruction a line: `%name = SHAPE KIND(operands)`, where SHAPE may be a tuple, and KIND may be split in two.
_INSTRUCTION = re.compile(rf"= (?P<shape>.+?) (?P<kind>{'|'.join(_KINDS)})(?P<start>-start)?\(")
_COMMENT = re.compile(r"/\*.*?\*/")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")


class Collectives(NamedTuple):
    """How many of a kind a device takes part in, and the bytes of their results there."""

    number: int
    num_bytes: int


def count_collectives(program: str) -> dict[str, Collectives]:
    """The collectives of a program by kind; those that don't occur are left out.

    Args:
      program: `compiled.as_text()`, optimised HLO.
    """
    found: dict[str, Collectives] = {}
    for line in program.splitlines():
        instruction = _INSTRUCTION.search(_COMMENT.sub("", line))
        if not instruction:
            continue
        arrays = _ARRAY.findall(instruction["shape"])
        if instruction["start"] and instruction["kind"] in ("all-gather", "collective-permute"):
            arrays = [array for array in arrays if array != ("u32", "")]  # a TPU's own counters
            arrays = arrays[len(arrays) // 2 :]  # operands come first
        so_far = found.get(instruction["kind"], Collectives(0, 0))
        num_bytes = sum(_num_bytes(kind, sizes) for kind, sizes in arrays)
        found[instruction["kind"]] = Collectives(so_far.number + 1, so_far.num_bytes + num_bytes)
    return found


def _num_bytes(kind: str, sizes: str) -> int:
    bits = re.search(r"\d+", kind)
    count = 1
    for size in filter(None, sizes.split(",")):
        count *= int(size)
    return count * (int(bits[0]) if bits else 8) // 8
