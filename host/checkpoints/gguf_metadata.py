"""The metadata of a GGUF file: keys with typed values, read where they lie in the file.

Every count and length is held against the bytes that are left before anything is made of it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Union, overload

import numpy as np
from numpy.typing import NDArray

from terntable.hw.errors import UserError

NUMBERS: dict[int, np.dtype] = {
    0: np.dtype("u1"),
    1: np.dtype("i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
"""Value types of a fixed size. 8 is a string (64-bit length, UTF-8), 9 an array."""
STRING, ARRAY = 8, 9
MAX_KEYS = 1 << 16
"""Files have dozens."""
MAX_STRINGS = 1 << 22
"""Strings of an array: vocabularies reach a quarter of a million, merges twice that."""
MAX_NESTED = 1 << 16
"""Arrays inside arrays; no key in use has any."""
MAX_DEPTH = 4
MAX_NAME = 1024
_LENGTH = struct.Struct("<Q")


class Strings(Sequence[str]):
    """Strings that stay in the file until they are asked for."""

    def __init__(self, data: memoryview, starts: array[int], lengths: array[int]) -> None:
        self._data, self._starts, self._lengths = data, starts, lengths

    def __len__(self) -> int:
        return len(self._starts)

    def raw(self, index: int) -> bytes:
        """The bytes of one."""
        start = self._starts[index]
        return bytes(self._data[start : start + self._lengths[index]])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.raw(index).decode("utf-8", "replace")


Value = Union[int, float, bool, memoryview, NDArray, Strings, "list[Value]"]
"""A string is the memoryview of its bytes; bool before int where types are told apart."""


class Cursor:
    """Reads a file's bytes from the front. Raises UserError where they end."""

    def __init__(self, path: Path, data: memoryview, at: int = 0) -> None:
        self.path, self.data, self.at = path, data, at
        self._nested = 0

    def damaged(self, what: str) -> UserError:
        return UserError(f"{self.path}: its GGUF header is damaged or cut short: {what}")

    def take(self, size: int, what: str) -> memoryview:
        """The next `size` bytes."""
        if not 0 <= size <= len(self.data) - self.at:
            raise self.damaged(f"{what} of {size:,} bytes")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, dtype: np.dtype, what: str) -> int | float | bool:
        value = np.frombuffer(self.take(dtype.itemsize, what), dtype)[0]
        # 1e-5 in binary32 is meant as 1e-5.
        return float(str(value)) if dtype == np.float32 else value.item()

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def string(self, what: str) -> memoryview:
        return self.take(self.u64(what), what)

    def name(self, what: str) -> str:
        """A string that names something: printable UTF-8."""
        raw = self.string(what)
        if len(raw) > MAX_NAME:
            raise self.damaged(f"{what} of {len(raw):,} bytes")
        try:
            text = bytes(raw).decode()
        except UnicodeDecodeError:
            raise self.damaged(f"{what} isn't UTF-8") from None
        if not text.isprintable():
            raise self.damaged(f"{what} {text[:40]!a}")
        return text

    def value(self, kind: int, key: str, depth: int = 0) -> Value:
        """A value of type `kind`. Arrays of numbers are views of the file."""
        if kind in NUMBERS:
            return self.number(NUMBERS[kind], f"a value of {key}")
        if kind == STRING:
            return self.string(f"a value of {key}")
        if kind != ARRAY:
            raise self.damaged(f"{key} has value type {kind}: types 0 to 12 are known")
        kind, count = self.u32(f"the type of {key}"), self.u64(f"the length of {key}")
        what = f"an array {key} of {count:,}"
        if kind in NUMBERS:
            dtype = NUMBERS[kind]
            return np.frombuffer(self.take(count * dtype.itemsize, what), dtype)
        if kind == STRING:
            return self._strings(count, what)
        self._nested += count
        if depth >= MAX_DEPTH or self._nested > MAX_NESTED:
            raise self.damaged(f"{what} arrays")
        return [self.value(kind, key, depth + 1) for _ in range(count)]

    def _strings(self, count: int, what: str) -> Strings:
        if count > min(MAX_STRINGS, (len(self.data) - self.at) // _LENGTH.size):
            raise self.damaged(f"{what} strings")
        starts, lengths = array("q"), array("q")
        data, at, size, length_at = self.data, self.at, len(self.data), _LENGTH.unpack_from
        for _ in range(count):
            if at + 8 > size:
                raise self.damaged(what)
            (length,) = length_at(data, at)
            at += 8
            if length > size - at:
                raise self.damaged(what)
            starts.append(at)
            lengths.append(length)
            at += length
        self.at = at
        return Strings(data, starts, lengths)


class Metadata:
    """Values by key. A key that is missing, or of another type than asked for, is a UserError."""

    def __init__(self, path: Path, values: dict[str, Value]) -> None:
        self.path, self.values = path, values

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def _wrong(self, key: str, expected: str) -> UserError:
        if key not in self.values:
            return UserError(f"{self.path}: {key} is missing")
        return UserError(f"{self.path}: {key} is no {expected}")

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer. Of an array, as newer writers give for each layer, the one value it has."""
        value = self.values.get(key, default)
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "integer" + (" shared by all layers" * self._is_array(key)))
        return value

    def _is_array(self, key: str) -> bool:
        return isinstance(self.values.get(key), np.ndarray)

    def real(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, "number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "truth value")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if isinstance(value, memoryview):
            return bytes(value).decode("utf-8", "replace")
        if not isinstance(value, str):
            raise self._wrong(key, "string")
        return value

    def strings(self, key: str) -> Strings:
        value = self.values.get(key)
        if not isinstance(value, Strings):
            raise self._wrong(key, "array of strings")
        return value

    def numbers(self, key: str, count: int | None = None) -> NDArray:
        """An array of numbers, the first `count` of them, or all."""
        value = self.values.get(key)
        if not isinstance(value, np.ndarray) or value.dtype == np.bool_:
            raise self._wrong(key, "array of numbers")
        if count is not None and len(value) < count:
            raise UserError(f"{self.path}: {key} has {len(value):,} entries, not {count:,}")
        return value[:count]


def read_metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    """The `count` key-value pairs at the cursor."""
    if count > MAX_KEYS:
        raise cursor.damaged(f"{count:,} metadata keys")
    values: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.name("a metadata key")
        if key in values:
            raise cursor.damaged(f"{key} comes twice")
        values[key] = cursor.value(cursor.u32(f"the type of {key}"), key)
    return values
