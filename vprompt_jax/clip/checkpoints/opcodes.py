"""Reads a pickle without Python's pickle: plain values and containers, by a list of opcodes.

Python's own unpickler imports and calls what a file names, sets any attribute of what it built, and
allocates what a length in the file says. The reader here knows only the opcodes that `torch.save`
(protocols 2 to 5) and `torch.jit.save` write. Nothing in a file can make it import, call, or set an
attribute; what a name, a call or a state means is for a subclass to say. Its memory and time are
bounded by the size of the file and by `MOST_OPCODES`.
"""

import io
import struct
from collections.abc import Callable
from typing import Any

MOST_OPCODES = 2_000_000  # a training checkpoint of 10,000 weights with Adam has 1.2 million
_LONGEST_INTEGER = 255  # bytes
_LONGEST_NAME = 500  # characters of a module and of a class


class Reader:
    """Reads one pickle of a file.

    Subclasses say what names, calls, states and persistent ids stand for; each of these methods
    raises a ValueError, or an error of its own, for what it does not know.

    Attributes:
      pickle_file: where to read; left behind the pickle's end.
    """

    def __init__(self, pickle_file: io.BufferedIOBase, size: int):
        """`size`: bytes from the file's position to its end, which no length in it may exceed."""
        self.pickle_file = pickle_file
        self._left = size
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below the marks
        self._memo: dict[int, Any] = {}

    def named(self, module: str, name: str) -> Any:
        """What a class or function of this name stands for; never the thing itself."""
        raise ValueError(f"the pickle names {module}.{name}")

    def called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """The result of a function or class that `named` returned."""
        raise ValueError("the pickle calls something")

    def set_state(self, value: Any, state: Any) -> None:
        """Takes the state of a value that `called` returned."""
        raise ValueError("the pickle sets a state")

    def persistent(self, identifier: Any) -> Any:
        """What lies outside of the pickle under this identifier."""
        raise ValueError("the pickle refers to something outside")

    def read(self, most: int = MOST_OPCODES) -> Any:
        """The value: None, bool, int, float, str, bytes, tuple, list (of a set, too) or dict, or
        what the methods above return. The pickle may have `most` opcodes.

        Raises:
          ValueError: if the pickle is damaged or too large, or has other opcodes.
        """
        for _ in range(most):
            opcode = self._take(1)
            if opcode == b".":
                if self._outer or len(self._stack) != 1:
                    raise ValueError("the pickle ends with values left over")
                return self._stack.pop()
            step = _STEPS.get(opcode)
            if step is None:
                raise ValueError(
                    f"the pickle has the opcode {opcode!r}, which torch does not write"
                )
            step(self)
        raise ValueError(f"the pickle has more than {most:,} opcodes")

    def _take(self, count: int) -> bytes:
        """The next bytes; nothing is allocated for those that the file does not have."""
        if count < 0 or count > self._left:
            raise ValueError(f"the pickle asks for {count:,} bytes where {self._left:,} are left")
        taken = self.pickle_file.read(count)
        if len(taken) != count:
            raise ValueError("the file ends within a pickle")
        self._left -= count
        return taken

    def _number(self, kind: str) -> Any:
        return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

    def _pop(self) -> Any:
        if not self._stack:
            raise ValueError("the pickle takes a value where there is none")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise ValueError(f"the pickle needs a value of type {kind.__name__} where it has none")
        return self._stack[-1]

    def _mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        if not self._outer:
            raise ValueError("the pickle ends a container that it did not begin")
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _protocol(self) -> None:
        if (protocol := self._number("<B")) > 5:
            raise ValueError(f"the pickle is of protocol {protocol}")

    def _frame(self) -> None:
        if self._number("<Q") > self._left:
            raise ValueError("a frame of the pickle is longer than the file")

    def _integer(self, length: str) -> None:
        if (count := self._number(length)) > _LONGEST_INTEGER:
            raise ValueError(f"the pickle holds an integer of {count:,} bytes")
        self._stack.append(int.from_bytes(self._take(count), "little", signed=True))

    def _tuple_of(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(values)))

    def _extend(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _set_items(self, values: list[Any]) -> None:
        into = self._top(dict)
        if len(values) % 2:
            raise ValueError("the pickle has a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            into[checked_key(key)] = value

    def _last(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _remember(self, index: int) -> None:
        if index > MOST_OPCODES:
            raise ValueError(f"the pickle stores a value under the number {index:,}")
        self._memo[index] = self._top(object)

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError("the pickle recalls what it did not store")
        self._stack.append(self._memo[index])

    def _line(self) -> str:
        line = self.pickle_file.readline(_LONGEST_NAME + 1)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise ValueError("the pickle has a name without an end")
        return line[:-1].decode()

    def _global(self) -> None:
        module, name = self._line(), self._line()
        self._stack.append(self.named(module, name))

    def _stack_global(self) -> None:
        module, name = self._last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("the pickle names something by what is no text")
        if max(len(module), len(name)) > _LONGEST_NAME:
            raise ValueError(f"the pickle names something in more than {_LONGEST_NAME} characters")
        self._stack.append(self.named(module, name))

    def _call(self) -> None:
        function, arguments = self._last(2)
        if not isinstance(arguments, tuple):
            raise ValueError("the pickle calls something without arguments")
        self._stack.append(self.called(function, arguments))

    def _build(self) -> None:
        state = self._pop()
        self.set_state(self._top(object), state)


def checked_key(key: Any) -> Any:
    """A dictionary's key: text or a plain number, whose hash costs nothing and seldom collides.

    Raises:
      ValueError: if it is anything else; the hash of nested tuples takes 2^depth steps.
    """
    # `type` rather than isinstance: a subclass could bring a hash of its own.
    if type(key) in (str, bytes, float, bool, type(None)):
        return key
    if type(key) is int and abs(key) < 2**63:
        return key
    raise ValueError("the pickle has a dictionary with a key that is neither text nor a number")


def _push(value: Callable[[Reader], Any]) -> Callable[[Reader], None]:
    def step(reader: Reader) -> None:
        found = value(reader)  # first: it may replace the stack
        reader._stack.append(found)

    return step


def _text(length: str, encoding: str = "utf-8") -> Callable[[Reader], None]:
    return _push(lambda r: r._take(r._number(length)).decode(encoding))


def _bytes(length: str) -> Callable[[Reader], None]:
    return _push(lambda r: r._take(r._number(length)))


# Names as in the standard library's pickletools. Sets become lists and frozen sets tuples: weights
# are never in them, and nothing has to be hashed.
_STEPS: dict[bytes, Callable[[Reader], None]] = {
    b"\x80": Reader._protocol,  # PROTO
    b"\x95": Reader._frame,  # FRAME
    b"N": _push(lambda r: None),  # NONE
    b"\x88": _push(lambda r: True),  # NEWTRUE
    b"\x89": _push(lambda r: False),  # NEWFALSE
    b"J": _push(lambda r: r._number("<i")),  # BININT
    b"K": _push(lambda r: r._number("<B")),  # BININT1
    b"M": _push(lambda r: r._number("<H")),  # BININT2
    b"\x8a": lambda r: r._integer("<B"),  # LONG1
    b"\x8b": lambda r: r._integer("<i"),  # LONG4
    b"G": _push(lambda r: r._number(">d")),  # BINFLOAT
    b"\x8c": _text("<B"),  # SHORT_BINUNICODE
    b"X": _text("<I"),  # BINUNICODE
    b"\x8d": _text("<Q"),  # BINUNICODE8
    b"U": _text("<B", "ascii"),  # SHORT_BINSTRING, of Python 2
    b"T": _text("<i", "ascii"),  # BINSTRING
    b"C": _bytes("<B"),  # SHORT_BINBYTES
    b"B": _bytes("<I"),  # BINBYTES
    b"\x8e": _bytes("<Q"),  # BINBYTES8
    b"\x96": _bytes("<Q"),  # BYTEARRAY8
    b"}": _push(lambda r: {}),  # EMPTY_DICT
    b"]": _push(lambda r: []),  # EMPTY_LIST
    b"\x8f": _push(lambda r: []),  # EMPTY_SET
    b")": _push(lambda r: ()),  # EMPTY_TUPLE
    b"(": Reader._mark,  # MARK
    b"t": _push(lambda r: tuple(r._since_mark())),  # TUPLE
    b"\x91": _push(lambda r: tuple(r._since_mark())),  # FROZENSET
    b"\x85": lambda r: r._tuple_of(1),  # TUPLE1
    b"\x86": lambda r: r._tuple_of(2),  # TUPLE2
    b"\x87": lambda r: r._tuple_of(3),  # TUPLE3
    b"a": lambda r: r._extend(r._last(1)),  # APPEND
    b"e": lambda r: r._extend(r._since_mark()),  # APPENDS
    b"\x90": lambda r: r._extend(r._since_mark()),  # ADDITEMS
    b"s": lambda r: r._set_items(r._last(2)),  # SETITEM
    b"u": lambda r: r._set_items(r._since_mark()),  # SETITEMS
    b"q": lambda r: r._remember(r._number("<B")),  # BINPUT
    b"r": lambda r: r._remember(r._number("<I")),  # LONG_BINPUT
    b"\x94": lambda r: r._remember(len(r._memo)),  # MEMOIZE
    b"h": lambda r: r._recall(r._number("<B")),  # BINGET
    b"j": lambda r: r._recall(r._number("<I")),  # LONG_BINGET
    b"c": Reader._global,  # GLOBAL
    b"\x93": Reader._stack_global,  # STACK_GLOBAL
    b"R": Reader._call,  # REDUCE
    b"\x81": Reader._call,  # NEWOBJ
    b"b": Reader._build,  # BUILD
    b"Q": _push(lambda r: r.persistent(r._pop())),  # BINPERSID
}
