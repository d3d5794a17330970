"""Pickles as torch.save writes them, read by an interpreter of the few instructions that describe tensors.

Python's own unpickler does what a pickle says: it may allocate gigabytes for the numbers in a hundred bytes, hash
nested tuples without end, or call any function. This one builds dicts with names as keys, lists, tuples, numbers and
texts; a name that it doesn't know is refused, and the number of instructions is limited.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

# Some 60 for each tensor, of which the published file has 566.
_MAX_INSTRUCTIONS = 400_000

_VALUES: Mapping[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_WITH_ARGUMENT = (
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINSTRING",
    "SHORT_BINSTRING",
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class NotAllowed(Exception):
    """The message is the name that a pickle asks for and doesn't get."""


class Function:
    """What a pickle may call: `call` with the arguments that stand there."""

    def __init__(self, call: Callable[..., Any]):
        self.call = call


def read_pickle(file: io.BytesIO, names: Mapping[str, Any], *, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Reads one pickle, from where `file` stands, and leaves it behind its end.

    Args:
      names: what "module.name" stands for in it: any value, or a `Function` to be called.
      persistent: makes something of a reference to what is stored outside the pickle.

    Raises:
      NotAllowed: it names something else.
      ValueError: it is damaged, or does what no list of tensors needs.
    """
    machine = _Machine(names, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > _MAX_INSTRUCTIONS:
                raise ValueError("more instructions than a list of tensors needs")
            machine.step(opcode.name, argument)
        return machine.result()
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"instructions that don't fit each other: {type(error).__name__}") from None


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None):
        self._names, self._persistent = names, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        (value,) = self._stack
        return value

    def step(self, name: str, argument: Any) -> None:
        """Does one instruction, named as in pickletools."""
        stack = self._stack
        if name in _VALUES:
            stack.append(_VALUES[name]())
        elif name in _WITH_ARGUMENT:
            stack.append(argument)
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise ValueError("a tuple of what isn't there")
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            stack.append(self._named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self._named(module, attribute))
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._combine(name)

    def _combine(self, name: str) -> None:
        """Instructions that take several values from the stack."""
        stack = self._stack
        if name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._to_mark() if name == "APPENDS" else [stack.pop()]
            _of_type(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._to_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            target = _of_type(stack[-1], dict)
            for key, value in zip(items[::2], items[1::2], strict=True):
                # Other keys would be hashed, which of nested tuples takes for ever.
                target[_of_type(key, str)] = value
        elif name == "BINPERSID":
            if self._persistent is None:
                raise ValueError("a reference to data where there is none")
            stack.append(self._persistent(stack.pop()))
        elif name == "REDUCE":
            arguments = _of_type(stack.pop(), tuple)
            stack.append(_of_type(stack.pop(), Function).call(*arguments))
        elif name == "BUILD":  # attributes of a dict, such as the versions of modules: nobody needs them
            stack.pop()
            _of_type(stack[-1], dict)
        else:
            raise ValueError(f"the instruction {name}")

    def _to_mark(self) -> list[Any]:
        place = next(place for place in range(len(self._stack) - 1, -2, -1) if place < 0 or self._stack[place] is _MARK)
        if place < 0:
            raise ValueError("no beginning of a list")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _named(self, module: Any, name: Any) -> Any:
        wanted = f"{_of_type(module, str)}.{_of_type(name, str)}"
        if wanted not in self._names:
            raise NotAllowed(wanted[:100])
        return self._names[wanted]


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} in place of a {kind.__name__}")
    return value
