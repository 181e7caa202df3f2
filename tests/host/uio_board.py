"""A board whose Linux is a folder: sysfs, device files and procfs as UIO and u-dma-buf make them,
and behind them an accelerator, the simulated Verilog or the emulator.

A file has no registers and no caches behind it. So the classes of `Machine` are replaced: registers
are the accelerator's, the interrupt is the product's on a socket whose other end does as UIO does,
and what the CPU sees of the memory is another file than the DRAM, which only commands for the
caches bring together.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from terntable.host.boards.board import Uio, load_board
from terntable.host.devices.board import BoardDevice
from terntable.host.uio.buffer import LINE
from terntable.host.uio.interrupt import UioInterrupt
from terntable.host.uio.open import Machine, open_transport
from terntable.host.uio.sysfs import find_buffer, find_uio
from terntable.host.uio.transport import UioTransport
from terntable.hw.config import AcceleratorConfig
from terntable.hw.regs import ADDRESS, Status
from terntable.sim.accelerator import Simulation, compile_accelerator, design_of
from terntable.sim.dram import DramModel

from .pty_board import BASE, EmulatedAccelerator

UIO = load_board("kv260").uio
MEMORY_BYTES = 1 << 20
HIGH = 0x8_0000_0000
"""Where a KV260 has its memory above 4 GiB."""

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


class SimulatedAccelerator:
    """The generated Verilog over the DRAM in `memory`, an open file. Time passes in it while
    registers are accessed and in `pass_time`."""

    base = HIGH

    def __init__(self, config: AcceleratorConfig, memory: int) -> None:
        self._simulation = Simulation(
            compile_accelerator(config, design_of(config)),
            memory=memory,
            clock_hz=config.clock_hz,
            dram=DramModel(base=self.base),
        )
        self._lock = threading.RLock()
        self.clock_hz = config.clock_hz
        self.mute = False

    def read32(self, address: int) -> int:
        with self._lock:
            return self._simulation.read_registers([address])[0]

    def write32(self, address: int, value: int) -> None:
        with self._lock:
            self._simulation.write_registers([(address, value)])

    def raised(self) -> bool:
        with self._lock:
            names = "STATUS", "IRQ_ENABLE"
            status, enable = self._simulation.read_registers([ADDRESS[n] for n in names])
        return bool(status & (Status.DONE | Status.ERROR) and enable)

    def pass_time(self) -> None:
        if self.read32(ADDRESS["STATUS"]) & Status.BUSY:
            self.run(2000)
        else:
            time.sleep(0.001)

    def run(self, cycles: int) -> None:
        with self._lock:
            self._simulation.run(cycles)

    def reset(self, **dram: Any) -> None:
        """Load the design again, with a memory that has these parameters."""
        with self._lock:
            self._simulation.reset(DramModel(base=self.base, **dram))

    def seconds(self) -> float:
        """Simulated time."""
        return self._simulation.cycle / self.clock_hz

    def close(self) -> None:
        with self._lock:
            self._simulation.close()


class EmulatorAccelerator(EmulatedAccelerator):
    """The emulator over the DRAM in `memory`, an open file."""

    base = BASE

    def __init__(self, config: AcceleratorConfig, memory: int) -> None:
        super().__init__(config, mmap.mmap(memory, 0))

    def read32(self, address: int) -> int:
        return self.read(address)[0]

    def write32(self, address: int, value: int) -> None:
        self.write(address, value)

    def raised(self) -> bool:
        return self.interrupt(0)

    def pass_time(self) -> None:
        time.sleep(0.001)

    def close(self) -> None:
        pass


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


class UioBoard:
    """The board: `open` gives what a program gets that reaches it."""

    def __init__(
        self,
        config: AcceleratorConfig,
        make: Callable[[AcceleratorConfig, int], Any] = SimulatedAccelerator,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="terntable-board-")
        self.tree = Tree(Path(self._folder.name))
        self.tree.write(make.base, memory_bytes)  # type: ignore[attr-defined]
        with self.tree.dram.open("r+b") as dram:
            self.accelerator = make(config, dram.fileno())
        self._served: list[tuple[threading.Thread, socket.socket]] = []
        self.machine = self.tree.machine(
            lambda: _Unowned(self.accelerator),
            lambda file, name: SocketInterrupt(file, self.serve(serve_interrupt).detach(), name),
        )

    def serve(self, what: Callable[[Any, socket.socket], None]) -> socket.socket:
        """The host's end of a socket whose other end is served."""
        near, far = socket.socketpair()
        thread = threading.Thread(target=what, args=(self.accelerator, far), daemon=True)
        thread.start()
        self._served.append((thread, far))
        return near

    def open(self, uio: Uio = UIO) -> UioTransport:
        device = find_uio(self.machine, uio.device)
        buffer = find_buffer(self.machine, uio.buffer, uio.buffer_bytes)
        return open_transport(self.machine, uio, device, buffer)

    def close(self) -> None:
        for thread, far in self._served:
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)
            thread.join(30)
        self.accelerator.close()
        with contextlib.suppress(OSError):
            self._folder.cleanup()


class _Unowned:
    """Registers of an accelerator that outlives the transport."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.read32, self.write32 = accelerator.read32, accelerator.write32

    def close(self) -> None:
        pass


class BoardOnUio(BoardDevice):
    """A device with a board of its own, which goes with it."""

    def __init__(self, config: AcceleratorConfig, **parameters: Any) -> None:
        self.board = UioBoard(config)
        super().__init__(config, self.board.open(), **parameters)

    def close(self) -> None:
        super().close()
        self.board.close()


def other_process(folder: Path, registers: int, interrupt: int) -> None:
    """What a program does that is killed in a call: the sockets are inherited."""
    from .test_uio_faults import CONFIG, IDS, IMAGE

    machine = Tree(folder).machine(
        lambda: SocketRegisters(socket.socket(fileno=registers)),
        lambda file, name: SocketInterrupt(file, interrupt, name),
    )
    device, buffer = find_uio(machine, UIO.device), find_buffer(machine, UIO.buffer, 0)
    board = BoardDevice(CONFIG, open_transport(machine, UIO, device, buffer))
    board.load(IMAGE)
    board.write(IMAGE.regions["input"].offset, IMAGE.embed(IDS).tobytes())
    board.start(len(IDS), 0)
    print("started", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    other_process(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
