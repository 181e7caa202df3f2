"""A board behind UIO: the folder of uio_tree.py, and an accelerator behind that, which is the
simulated Verilog or the emulator."""

from __future__ import annotations

import contextlib
import mmap
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from terntable.host.boards.board import Uio
from terntable.host.devices.board import BoardDevice
from terntable.host.uio.open import open_transport
from terntable.host.uio.sysfs import find_buffer, find_uio
from terntable.host.uio.transport import UioTransport
from terntable.hw.config import AcceleratorConfig
from terntable.hw.regs import ADDRESS, Status
from terntable.sim.accelerator import Simulation, compile_accelerator, design_of
from terntable.sim.dram import DramModel

from .pty_board import BASE, EmulatedAccelerator
from .uio_tree import UIO, Accelerator, SocketInterrupt, SocketRegisters, Tree, serve_interrupt

MEMORY_BYTES = 1 << 20
HIGH = 0x8_0000_0000
"""Where a KV260 has its memory above 4 GiB."""


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
