"""A pickled batch of CIFAR, read without unpickling: nothing is imported and nothing is called.

A pickle is a program for a stack machine. A `pickle.Unpickler` with a narrowed ``find_class``
would still run numpy's constructors on whatever arguments the file gives, and size its memo by
a number in it. So the machine is here: the few instructions that Python 2 wrote for a dictionary
of numbers, strings, lists and arrays of bytes, on plain Python objects. The names of numpy's
functions are recognised as text; an array is made here from its shape, order and bytes. Any
other instruction, name or argument is refused.

The instructions are documented in the standard library's ``pickletools``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netdepth.errors import BadInput

__all__ = ["STEPS", "read_pickled"]

STEPS = 1_000_000
"""Instructions that are carried out at most; the longest official batch needs a quarter of it."""


@dataclass(frozen=True)
class _Name:
    """Something of numpy's that the pickle asks for, as text."""

    module: str
    name: str


RECONSTRUCT = _Name("numpy.core.multiarray", "_reconstruct")
NDARRAY = _Name("numpy", "ndarray")
DTYPE = _Name("numpy", "dtype")
ALLOWED = (RECONSTRUCT, NDARRAY, DTYPE)


class _UnsignedByte:
    """Stands for the element type ``u1``, the only one."""


class _Array:
    """An array that is announced, and then filled."""

    values: np.ndarray | None = None


@dataclass
class _Machine:
    """The state of a program: bytes, position, stack, stacks put aside by marks, and memo."""

    data: bytes
    position: int = 0
    stack: list[Any] = field(default_factory=list)
    aside: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes of the program."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise BadInput(f"it is truncated: {count} bytes are announced at {self.position} of {len(self.data)}")
        chunk, self.position = self.data[self.position : end], end
        return chunk

    def number(self, count: int, signed: bool = False) -> int:
        """The next ``count`` bytes as an integer."""
        return int.from_bytes(self.take(count), "little", signed=signed)

    def line(self) -> str:
        """Up to the end of the line, in Latin-1, which has a character for every byte."""
        end = self.data.find(b"\n", self.position, self.position + 100)
        if end < 0:
            raise BadInput(f"a line without end at {self.position}")
        text = self.take(end + 1 - self.position)[:-1]
        return text.decode("latin-1")

    def skip(self, count: int) -> None:
        """Leave ``count`` bytes out."""
        self.take(count)

    def mark(self) -> None:
        """Begin a stack of its own, to be taken as a whole."""
        self.aside.append(self.stack)
        self.stack = []

    def remember(self, number: int) -> None:
        """Store what is on top of the stack under ``number``."""
        self.memo[number] = self.stack[-1]

    def since_mark(self) -> list[Any]:
        """What was put on the stack since the last mark."""
        items, self.stack = self.stack, self.aside.pop()
        return items

    def on_top(self, kind: type) -> Any:
        """The object on top of the stack, which has to be a ``kind``."""
        if type(self.stack[-1]) is not kind:
            raise BadInput(f"it adds to a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}")
        return self.stack[-1]

    def append(self, items: list[Any]) -> None:
        """Lengthen the list on top of the stack."""
        self.on_top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Enter keys and values, alternating, in the dictionary on top of the stack."""
        target = self.on_top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not bytes:  # a tuple of tuples can take forever to hash
                raise BadInput(f"its dictionary has a {type(key).__name__} for a key")
            target[key.decode("latin-1")] = value

    def name(self) -> _Name:
        """One of `ALLOWED`."""
        name = _Name(self.line(), self.line())
        if name not in ALLOWED:
            raise BadInput(f"it asks for {_told(name)}; only an array of bytes is read")
        return name

    def reduce(self) -> Any:
        """What calling one of `ALLOWED` would make, if the arguments are those of an array of bytes."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if function == RECONSTRUCT and arguments == (NDARRAY, (0,), b"b"):
            return _Array()
        if function == DTYPE and arguments == (b"u1", 0, 1):
            return _UnsignedByte()
        raise BadInput(f"it calls {_told(function)} with other arguments than those of an array of bytes")

    def build(self) -> None:
        """Fill what is on top of the stack with the state that lies above it."""
        state = self.stack.pop()
        if type(self.stack[-1]) is _UnsignedByte:
            return  # the byte order, of which a byte has none
        array = self.on_top(_Array)
        if type(state) is not tuple or len(state) != 5:
            raise BadInput("it fills an array with something else than version, shape, type, order and bytes")
        _, shape, dtype, by_column, raw = state
        if type(dtype) is not _UnsignedByte or type(raw) is not bytes or type(by_column) not in (bool, int):
            raise BadInput("it fills an array with something else than bytes")
        rows = type(shape) is tuple and [type(n) for n in shape[:3]] == [int, int] and min(shape) > 0
        if not rows or shape[0] * shape[1] != len(raw):
            raise BadInput(f"it fills an array with {len(raw)} bytes, which are not rows of the length announced")
        array.values = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if by_column else "C")


def _told(value: object) -> str:
    return repr(f"{value.module}.{value.name}") if isinstance(value, _Name) else f"a {type(value).__name__}"


VALUES: dict[bytes, Callable[[_Machine], Any]] = {
    pickle.NONE: lambda m: None,
    pickle.NEWTRUE: lambda m: True,
    pickle.NEWFALSE: lambda m: False,
    pickle.EMPTY_TUPLE: lambda m: (),
    pickle.EMPTY_LIST: lambda m: [],
    pickle.EMPTY_DICT: lambda m: {},
    pickle.BININT: lambda m: m.number(4, signed=True),
    pickle.BININT1: lambda m: m.number(1),
    pickle.BININT2: lambda m: m.number(2),
    pickle.INT: lambda m: int(m.line()),
    pickle.LONG1: lambda m: m.number(m.number(1), signed=True),
    pickle.SHORT_BINSTRING: lambda m: m.take(m.number(1)),
    pickle.BINSTRING: lambda m: m.take(m.number(4, signed=True)),
    pickle.BINUNICODE: lambda m: m.take(m.number(4)),
    pickle.BINGET: lambda m: m.memo[m.number(1)],
    pickle.LONG_BINGET: lambda m: m.memo[m.number(4)],
    pickle.TUPLE: lambda m: tuple(m.since_mark()),
    pickle.TUPLE1: lambda m: (m.stack.pop(),),
    pickle.TUPLE2: lambda m: (m.stack.pop(), m.stack.pop())[::-1],
    pickle.TUPLE3: lambda m: (m.stack.pop(), m.stack.pop(), m.stack.pop())[::-1],
    pickle.GLOBAL: _Machine.name,
    pickle.REDUCE: _Machine.reduce,
}
"""Instructions that put one thing on the stack."""

ACTIONS: dict[bytes, Callable[[_Machine], None]] = {
    pickle.PROTO: lambda m: m.skip(1),
    pickle.MARK: _Machine.mark,
    pickle.BINPUT: lambda m: m.remember(m.number(1)),
    pickle.LONG_BINPUT: lambda m: m.remember(m.number(4)),
    pickle.APPEND: lambda m: m.append([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.append(m.since_mark()),
    pickle.SETITEM: lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    pickle.SETITEMS: lambda m: m.set_items(m.since_mark()),
    pickle.BUILD: _Machine.build,
}
"""Instructions that put nothing on the stack."""


def read_pickled(data: bytes) -> dict[str, Any]:
    """The dictionary in the pickle ``data``: its strings are bytes, its arrays uint8 ``[N, K]``.

    Raises:
        BadInput: anything but such a dictionary, with the reason.
    """
    machine = _Machine(data)
    try:
        for _ in range(STEPS):
            code = machine.take(1)
            if code == pickle.STOP:
                return _finished(machine.stack.pop())
            if code in VALUES:
                value = VALUES[code](machine)  # which may change what machine.stack is
                machine.stack.append(value)
            elif code in ACTIONS:
                ACTIONS[code](machine)
            else:
                raise BadInput(f"its instruction {code!r} at {machine.position - 1} has no place in a batch of images")
    except IndexError:
        raise BadInput(f"it takes from an empty stack at {machine.position - 1}") from None
    except KeyError as missing:
        raise BadInput(f"it fetches {missing} at {machine.position - 1}, which it never stored") from None
    except ValueError:
        raise BadInput(f"a number or a list of pairs is malformed at {machine.position - 1}") from None
    raise BadInput(f"it has more than the {STEPS} instructions expected")


def _finished(result: Any) -> dict[str, Any]:
    if type(result) is not dict:
        raise BadInput(f"it holds a {type(result).__name__}, not a dictionary")
    if any(type(value) is _Array and value.values is None for value in result.values()):
        raise BadInput("it announces an array and does not fill it")
    return {key: value.values if type(value) is _Array else value for key, value in result.items()}
