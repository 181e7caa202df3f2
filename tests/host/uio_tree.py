"""A folder that stands for a board's Linux: sysfs, device files and procfs as UIO and u-dma-buf
make them, and what a file lacks.

A file has no registers and no caches behind it. So the classes of `Machine` are replaced: registers
are an accelerator's, the interrupt is the product's on a socket whose other end does as UIO does,
and what the CPU sees of the memory is another file than the DRAM, which only commands for the
caches bring together.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from terntable.host.boards.board import load_board
from terntable.host.uio.buffer import LINE
from terntable.host.uio.interrupt import UioInterrupt
from terntable.host.uio.open import Machine

UIO = load_board("kv260").uio
_ACCESS = 9  # octets of an access on a socket: kind, address, word


class Accelerator(Protocol):
    """What is behind the registers. `mute` keeps the interrupt down."""

    base: int
    mute: bool

    def read32(self, address: int) -> int: ...
    def write32(self, address: int, value: int) -> None: ...
    def raised(self) -> bool: ...
    def pass_time(self) -> None: ...
    def close(self) -> None: ...


class Tree:
    """The folder. `machine` gives it to the product with the classes that a file needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uio = folder / "sys/class/uio/uio3"
        self.buffer = folder / "sys/class/u-dma-buf" / UIO.buffer
        self.memory = folder / "dev" / UIO.buffer
        self.device = folder / "dev" / "uio3"
        self.meminfo = folder / "proc/meminfo"
        self.dram = folder / "dram"

    def write(self, base: int, memory_bytes: int) -> None:
        """Make it: memory at `base`."""
        texts = {
            self.uio.parent / "uio0/name": "axi-pmon\n",
            self.uio / "name": f"{UIO.device}\n",
            self.uio / "maps/map0/addr": "0x00000000a0000000\n",
            self.uio / "maps/map0/name": f"{UIO.device}@a0000000\n",
            self.uio / "maps/map0/offset": "0x0\n",
            self.uio / "maps/map0/size": "0x0000000000001000\n",
            self.buffer / "phys_addr": f"{base:#018x}\n",
            self.buffer / "size": f"{memory_bytes}\n",
            self.buffer / "dma_coherent": "0\n",
            self.buffer / "sync_mode": "1\n",
            self.buffer / "sync_for_cpu": "0\n",
            self.buffer / "sync_for_device": "0\n",
            self.meminfo: "MemTotal: 4034816 kB\nCmaTotal: 1048576 kB\nCmaFree: 524288 kB\n",
        }
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.device.parent.mkdir()
        self.device.write_bytes(bytes(mmap.PAGESIZE))
        self.memory.write_bytes(os.urandom(memory_bytes))
        self.dram.write_bytes(os.urandom(memory_bytes))

    def machine(
        self,
        registers: Callable[[], Any],
        interrupt: Callable[[int, str], UioInterrupt],
    ) -> Machine:
        roots = (self.folder / name for name in ("sys", "dev", "proc"))
        return Machine(
            *roots,
            registers=lambda file, size, offset: registers(),
            interrupt=interrupt,
            caches=lambda folder: WriteBackCaches(self.memory, self.dram),
        )


class WriteBackCaches:
    """The CPU has its own copy of every line, until it is told."""

    def __init__(self, cached: Path, dram: Path) -> None:
        self._maps = []
        for file in (cached, dram):
            with file.open("r+b") as opened:
                self._maps.append(mmap.mmap(opened.fileno(), 0))
        self.cached, self.dram = self._maps

    def for_cpu(self, offset: int, size: int) -> None:
        self._copy(self.cached, self.dram, offset, size)

    def for_device(self, offset: int, size: int) -> None:
        self._copy(self.dram, self.cached, offset, size)

    @staticmethod
    def _copy(to: mmap.mmap, of: mmap.mmap, offset: int, size: int) -> None:
        assert offset % LINE == size % LINE == 0
        to[offset : offset + size] = of[offset : offset + size]

    def close(self) -> None:
        for each in self._maps:
            each.close()


class SocketInterrupt(UioInterrupt):
    """The product's interrupt on a socket, with the device's file beside it, which is locked."""

    def __init__(self, file: int, line: int, name: str) -> None:
        super().__init__(line, name)
        self._locked: int | None = file

    def close(self) -> None:
        super().close()
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None


def serve_interrupt(accelerator: Accelerator, far: socket.socket) -> None:
    """Do as generic UIO does, until the host is gone: mask the line with every interrupt, count it,
    unmask for a written 1. The accelerator gets on while it is not masked."""
    masked, count = True, 0
    with far, contextlib.suppress(ConnectionError):
        while True:
            if select.select([far], [], [], None if masked else 0)[0]:
                word = far.recv(4)
                if not word:
                    return
                masked = word != b"\1\0\0\0"
            elif accelerator.raised() and not accelerator.mute:
                masked, count = True, count + 1
                far.sendall(count.to_bytes(4, "little"))
            else:
                accelerator.pass_time()


def serve_registers(accelerator: Accelerator, far: socket.socket) -> None:
    """Registers for another process, until it is gone."""
    with far:
        while access := far.recv(_ACCESS, socket.MSG_WAITALL):
            address, word = (int.from_bytes(access[n : n + 4], "little") for n in (1, 5))
            if access[:1] == b"r":
                word = accelerator.read32(address)
            else:
                accelerator.write32(address, word)
            far.sendall(word.to_bytes(4, "little"))


class SocketRegisters:
    """The other end of `serve_registers`."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def read32(self, address: int) -> int:
        return self._access(b"r", address, 0)

    def write32(self, address: int, value: int) -> None:
        self._access(b"w", address, value)

    def _access(self, kind: bytes, address: int, value: int) -> int:
        self._link.sendall(kind + b"".join(n.to_bytes(4, "little") for n in (address, value)))
        return int.from_bytes(self._link.recv(4, socket.MSG_WAITALL), "little")

    def close(self) -> None:
        self._link.close()
