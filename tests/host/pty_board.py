"""A board at a serial port, as the host sees it: a pseudo-terminal, behind it the reference of the
link (tests/far_end.py) and the emulator in the accelerator's place."""

from __future__ import annotations

import contextlib
import mmap
import os
import pty
import select
import struct
import threading
import time
import tty
from collections.abc import Callable

import numpy as np

from terntable.host.devices.base import DeviceError
from terntable.host.devices.board import BoardDevice
from terntable.host.devices.register_device import COUNTERS
from terntable.host.emulator import Machine
from terntable.host.link.port import SerialPort
from terntable.host.link.serial_transport import SerialTransport
from terntable.hw import isa, regs
from terntable.hw.config import AcceleratorConfig
from terntable.hw.regs import ADDRESS, Control, Error, Status

from ..far_end import OKAY, SLVERR, FarEnd, Line

BAUD = 3_000_000
BASE = 0x1000_0000
MEMORY_BYTES = 1 << 20


class EmulatedAccelerator:
    """The control port's registers; a start runs the program in `memory` to its end at once.

    `mute` keeps the interrupt down, `stuck` keeps a call from ever getting on. Such a call counts
    cycles of `clock_hz`, and so does one whose program begins with a matrix: it lacks weights.
    """

    def __init__(self, config: AcceleratorConfig, memory: bytearray | mmap.mmap) -> None:
        self.config = config
        self.memory = np.frombuffer(memory, np.uint8)
        self.machine = Machine(config)
        self.mute = self.stuck = False
        self.clock_hz = config.clock_hz
        self._began = 0.0
        self.reset()

    def reset(self) -> None:
        self.words = dict.fromkeys(ADDRESS, 0)
        self.words |= {
            "MAGIC": regs.MAGIC, "VERSION": regs.VERSION, "CONFIG_HASH": self.config.hash,
        }  # fmt: skip

    def read(self, address: int) -> tuple[int, int]:
        name = next((r.name for r in regs.REGISTERS if r.address == address), None)
        if name == "CYCLES" and self.words["STATUS"] == Status.BUSY:
            return int((time.perf_counter() - self._began) * self.clock_hz) & 0xFFFFFFFF, OKAY
        return (0, SLVERR) if name is None else (self.words[name], OKAY)

    def write(self, address: int, word: int) -> int:
        register = next((r for r in regs.REGISTERS if r.address == address), None)
        if register is None:
            return SLVERR
        if register.access is regs.Access.RW:
            self.words[register.name] = word
        elif register.name == "CONTROL":
            if word & Control.RESET:
                self.words |= {"STATUS": 0, "ERROR_CODE": 0}
            if word & Control.CLEAR and not self.words["STATUS"] & Status.ERROR:
                self.words |= {"STATUS": 0, "ERROR_CODE": 0}
            if word & Control.START:
                self._start()
        return OKAY

    def interrupt(self, milliseconds: int) -> bool:
        ended = self.words["STATUS"] & (Status.DONE | Status.ERROR)
        return bool(ended and self.words["IRQ_ENABLE"] and not self.mute)

    def _start(self) -> None:
        w = self.words
        image = self.memory[w["BASE_LO"] - BASE :][: w["LIMIT"]]
        if self.stuck or image[w["PROGRAM"]] == isa.Op.LINEAR:
            w["STATUS"], self._began = Status.BUSY, time.perf_counter()
            return
        call = w["TOKENS"], w["POSITION"], w["CHUNK"]
        end = call[0] + call[1]
        if not call[0] or end > self.config.max_context or not 1 <= call[2] <= self.config.chunk:
            return self._fail(Error.BAD_CALL, regs.SEQUENCER_UNIT, end)
        self.machine.attach(image, w["WRITE_BASE"], w["PROGRAM"])
        try:
            result = self.machine.run(*call)
        except DeviceError as e:
            unit = next((n for n, name in regs.ERROR_UNITS.items() if name == e.unit), 0)
            return self._fail(Error.BAD_COMMAND, unit, e.address or 0, e.command or 0)
        logit = struct.unpack("<I", struct.pack("<f", result.argmax_logit))[0]
        w |= {"STATUS": Status.DONE, "ARGMAX": result.argmax, "ARGMAX_LOGIT": logit, "CYCLES": 1000}
        w |= dict.fromkeys(COUNTERS.values(), 10)
        return None

    def _fail(self, code: Error, unit: int, address: int, command: int = 0) -> None:
        self.words |= {
            "STATUS": Status.ERROR, "ERROR_CODE": code, "ERROR_UNIT": unit,
            "ERROR_ADDRESS": address & 0xFFFFFFFF, "ERROR_COMMAND": command,
        }  # fmt: skip


class PtyBoard:
    """The board: its serial port is `path`. What comes over the line goes through `to_board` and
    `to_host`, which tests replace."""

    def __init__(self, config: AcceleratorConfig, memory_bytes: int = MEMORY_BYTES) -> None:
        memory = bytearray(os.urandom(memory_bytes))  # what DRAM holds at first
        self.accelerator = EmulatedAccelerator(config, memory)
        self.far_end = FarEnd(
            self.accelerator.read, self.accelerator.write, memory, self.accelerator.interrupt,
            base=BASE,
        )  # fmt: skip
        self.to_board: Callable[[bytes], bytes] = bytes
        self.to_host: Callable[[bytes], bytes] = bytes
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self._slave: int | None = slave  # or the master would see the line hung up between hosts
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        line = Line()
        while True:
            ready, _, _ = select.select([self._master, self._wake], [], [])
            if self._wake in ready:
                return
            with contextlib.suppress(OSError):
                frames = map(line.push, self.to_board(os.read(self._master, 1 << 16)))
                for frame in frames:
                    if frame is not None:
                        self._send(self.to_host(self.far_end.answer(frame)))

    def _send(self, octets: bytes) -> None:
        while octets:
            octets = octets[os.write(self._master, octets) :]

    def reset(self) -> None:
        """Power lost and back."""
        self.far_end.reset()
        self.accelerator.reset()

    def unplug(self) -> None:
        """The port is gone, as that of a converter on USB."""
        if self._slave is None:
            return
        os.write(self._stop, b"x")
        self._thread.join()
        for each in (self._master, self._slave, self._wake, self._stop):
            os.close(each)
        self._slave = None


class BoardOnPty(BoardDevice):
    """A device with a board of its own, which goes with it."""

    def __init__(self, config: AcceleratorConfig, **parameters: float) -> None:
        self.board = PtyBoard(config)
        transport = SerialTransport(SerialPort(self.board.path, BAUD), timeout=5.0)
        super().__init__(config, transport, **parameters)

    def close(self) -> None:
        super().close()
        self.board.unplug()
