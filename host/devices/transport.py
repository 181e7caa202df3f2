"""How a host reaches a board: registers, memory and the interrupt, whatever lies between."""

from __future__ import annotations

import abc
import zlib
from collections.abc import Callable, Iterable, Sequence

from terntable.hw.regs import ADDRESS

Moved = Callable[[int], None]
"""Called with the bytes that have gone over since the last time."""

ZEROS = bytes(1 << 16)


class Transport(abc.ABC):
    """Registers and memory of one board.

    Memory offsets are bytes from the start of the memory that the accelerator may have, registers
    are addressed as in `terntable.hw.regs`. What can't be done raises DeviceError, in bounded time;
    a transport never returns data that differ from the board's.

    name           for people: 'serial port /dev/ttyUSB0'
    memory_base    the memory's address on the accelerator's bus, a multiple of 4096
    memory_bytes   its size
    memory_remedy  what makes it larger, for people; empty where nothing does
    """

    name: str
    memory_base: int
    memory_bytes: int
    memory_remedy: str = ""

    @abc.abstractmethod
    def read_register(self, address: int) -> int:
        """The word of a register."""

    @abc.abstractmethod
    def write_register(self, address: int, value: int) -> None:
        """Write a register, exactly once."""

    @abc.abstractmethod
    def read_memory(self, offset: int, size: int, moved: Moved | None = None) -> bytes:
        """Copy bytes out of the memory."""

    @abc.abstractmethod
    def write_memory(self, offset: int, data: bytes, moved: Moved | None = None) -> None:
        """Copy bytes into the memory; the accelerator sees them afterwards."""

    @abc.abstractmethod
    def wait_interrupt(self, timeout: float) -> bool:
        """Wait for the interrupt, `timeout` seconds at most: whether it is raised."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the board. May be called twice."""

    def get(self, *names: str) -> list[int]:
        """Words of registers by their names, read in this order."""
        return self.read_registers([ADDRESS[name] for name in names])

    def set(self, **values: int) -> None:
        """Write registers by their names, in this order, each exactly once."""
        self.write_registers((ADDRESS[name], value) for name, value in values.items())

    # Where a transport has something better than one access after the other.
    def read_registers(self, addresses: Sequence[int]) -> list[int]:
        """Words of several registers, read in this order."""
        return [self.read_register(address) for address in addresses]

    def write_registers(self, registers: Iterable[tuple[int, int]]) -> None:
        """Write (address, value) pairs in this order, each exactly once."""
        for address, value in registers:
            self.write_register(address, value)

    def fill_memory(self, offset: int, size: int) -> None:
        """Make bytes of the memory zero."""
        for at in range(offset, offset + size, len(ZEROS)):
            self.write_memory(at, ZEROS[: offset + size - at])

    def checksum_memory(self, offset: int, size: int) -> int:
        """CRC-32 (of zlib) of bytes of the memory."""
        return zlib.crc32(self.read_memory(offset, size))
