"""Memory that the CPU's caches and the accelerator share."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Protocol

from terntable.host.devices.base import DeviceError

from .sysfs import open_file

LINE = 64
"""Bytes in which caches are written back and dropped: a line of the ARMv8 cores, or several."""

_TO_DEVICE, _FROM_DEVICE = 1, 2
_MOST = 1 << 30
"""Bytes of one command; its field has 32 bits."""


class Caches(Protocol):
    """What to do about the CPU's caches. Ranges are whole lines."""

    def for_cpu(self, offset: int, size: int) -> None:
        """Drop cached bytes: the CPU then reads what the accelerator has written."""

    def for_device(self, offset: int, size: int) -> None:
        """Write cached bytes back: the accelerator then reads what the CPU has written."""

    def close(self) -> None:
        """Release them. May be called twice."""


class UdmaCaches:
    """The sync files of a u-dma-buf device in `folder`. Raises UserError where they can't be had.

    What is written to one is a command: offset in the upper 32 bits, then size, direction in bits 3
    and 2, and 1. A write returns when the caches are done, and is a barrier: a register that is
    written after it is written later.
    """

    def __init__(self, folder: Path) -> None:
        self._files: list[int] = []
        try:
            for name in ("sync_for_cpu", "sync_for_device"):
                self._files.append(open_file(folder / name, os.O_WRONLY))
        except BaseException:
            self.close()
            raise

    def for_cpu(self, offset: int, size: int) -> None:
        self._command(self._files[0], offset, size, _FROM_DEVICE)

    def for_device(self, offset: int, size: int) -> None:
        self._command(self._files[1], offset, size, _TO_DEVICE)

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    @staticmethod
    def _command(file: int, offset: int, size: int, direction: int) -> None:
        for at in range(offset, offset + size, _MOST):
            count = min(_MOST, offset + size - at)
            os.pwrite(file, f"0x{at:08x}{count | direction << 2 | 1:08x}".encode(), 0)


class SharedMemory:
    """`size` bytes of a device file, cached, kept coherent with the accelerator by `caches`.

    Cached since it is copied to and from: on 64-bit ARM an uncached mapping is device memory, in
    which the C library's copies end in a bus error where they are not aligned. No line is dirty
    but within `write`, so to drop lines never loses a write. A line that is written in part is
    dropped before, or what the accelerator wrote to the rest would be lost.
    """

    def __init__(self, file: int, size: int, caches: Caches) -> None:
        self.size = size
        self._map = mmap.mmap(file, size)
        self._caches = caches

    def read(self, offset: int, size: int) -> bytes:
        self._check(offset, size)
        self._caches.for_cpu(*self._lines(offset, size))
        return self._map[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        self._check(offset, len(data))
        first, size = self._lines(offset, len(data))
        if first != offset:
            self._caches.for_cpu(first, LINE)
        if first + size != end:
            self._caches.for_cpu(first + size - LINE, LINE)
        self._map[offset:end] = data
        self._caches.for_device(first, size)

    def close(self) -> None:
        self._caches.close()
        self._map.close()

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise DeviceError(
                f"{size} bytes are not inside the memory of {self.size}", address=offset
            )

    @staticmethod
    def _lines(offset: int, size: int) -> tuple[int, int]:
        """Offset and size of the lines that bytes lie in."""
        first = offset // LINE * LINE
        return first, -(-(offset + size) // LINE) * LINE - first
