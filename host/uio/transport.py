"""The accelerator in the fabric beside this processor."""

from __future__ import annotations

import time

from terntable.host.devices.transport import Moved, Transport
from terntable.hw.regs import ADDRESS, Status

from .buffer import SharedMemory
from .interrupt import Interrupt
from .registers import Registers


class UioTransport(Transport):
    """Registers, interrupt and memory that this process has: they are closed with the transport.

    `memory` lies at `memory_base` on the accelerator's bus; `memory_remedy` says how it is made
    larger.
    """

    def __init__(
        self,
        name: str,
        registers: Registers,
        interrupt: Interrupt,
        memory: SharedMemory,
        memory_base: int,
        memory_remedy: str = "",
    ) -> None:
        self.name = name
        self.memory_base = memory_base
        self.memory_bytes = memory.size
        self.memory_remedy = memory_remedy
        self._registers = registers
        self._interrupt = interrupt
        self._memory = memory

    def read_register(self, address: int) -> int:
        return self._registers.read32(address)

    def write_register(self, address: int, value: int) -> None:
        self._registers.write32(address, value)

    def read_memory(self, offset: int, size: int, moved: Moved | None = None) -> bytes:
        data = self._memory.read(offset, size)
        if moved is not None:
            moved(size)
        return data

    def write_memory(self, offset: int, data: bytes, moved: Moved | None = None) -> None:
        self._memory.write(offset, data)
        if moved is not None:
            moved(len(data))

    def wait_interrupt(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            if not self._interrupt.wait(max(left, 0.0)):
                return False
            # An interrupt may be an old one, of a call that was given up. No call has ended then.
            if self._registers.read32(ADDRESS["STATUS"]) & (Status.DONE | Status.ERROR):
                return True
            if left <= 0:
                return False

    def close(self) -> None:
        self._memory.close()
        self._interrupt.close()
        self._registers.close()
