"""The accelerator's registers, in this process' memory."""

from __future__ import annotations

import mmap
from typing import Protocol


class Registers(Protocol):
    """Words of the control port. Every call is one access of it."""

    def read32(self, address: int) -> int:
        """The word at a byte address, a multiple of 4."""

    def write32(self, address: int, value: int) -> None:
        """Write a word at a byte address, a multiple of 4."""

    def close(self) -> None:
        """Release them. May be called twice."""


class MappedRegisters:
    """Registers that a device file maps: `size` bytes, `offset` behind a page's start.

    A word is an item of a memoryview of native 32-bit words, which CPython copies by a memcpy of a
    constant four bytes: one load or store instruction. Others are not one access: struct.pack_into
    stores bytes, and the arrays of ctypes read an item before they write it. UIO maps devices such
    that accesses are made as they are written, in this order.
    """

    def __init__(self, file: int, size: int, offset: int = 0) -> None:
        pages = -(-(offset + size) // mmap.PAGESIZE)
        self._map = mmap.mmap(file, pages * mmap.PAGESIZE)
        self._words = memoryview(self._map)[offset : offset + size // 4 * 4].cast("I")

    def read32(self, address: int) -> int:
        return self._words[self._index(address)]

    def write32(self, address: int, value: int) -> None:
        self._words[self._index(address)] = value

    def close(self) -> None:
        self._words.release()
        self._map.close()

    @staticmethod
    def _index(address: int) -> int:
        if address % 4 or address < 0:
            raise ValueError(f"address {address:#x} is not that of a word")
        return address // 4
