"""From the devices of a board to a transport."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from terntable.hw.errors import UserError

from ..boards.board import Uio
from .buffer import Caches, SharedMemory, UdmaCaches
from .interrupt import Interrupt, UioInterrupt
from .registers import MappedRegisters, Registers
from .sysfs import RELOAD, Roots, UdmaDevice, UioDevice, larger_buffer, open_file
from .transport import UioTransport

MOST_BYTES = 1 << 32
"""Of memory that the registers, and commands for the caches, can name."""


@dataclass(frozen=True)
class Machine(Roots):
    """The machine that the program runs on. Tests have others: with other roots, and with other
    classes where the effect of an access is not in the file."""

    registers: Callable[[int, int, int], Registers] = MappedRegisters
    interrupt: Callable[[int, str], Interrupt] = UioInterrupt
    caches: Callable[[Path], Caches] = UdmaCaches


def open_transport(
    machine: Machine, uio: Uio, device: UioDevice, buffer: UdmaDevice
) -> UioTransport:
    """Take the devices for this process alone. Raises UserError, with the remedy, where they can't
    be had; nothing stays open then."""
    name = f"UIO device {uio.device!r}"
    with contextlib.ExitStack() as stack:
        file = open_file(device.file, os.O_RDWR)
        interrupt = machine.interrupt(file, name)
        stack.callback(interrupt.close)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{name} is in use: end the program that runs on the board") from None
        # Without O_SYNC, which would map it uncached.
        memory_file = open_file(buffer.file, os.O_RDWR)
        try:
            caches = machine.caches(buffer.folder)
            stack.callback(caches.close)
            registers = machine.registers(file, device.size, device.offset)
            stack.callback(registers.close)
            memory = SharedMemory(memory_file, min(buffer.size, MOST_BYTES), caches)
        except (OSError, ValueError) as e:
            raise UserError(f"{name} can't be mapped, {e}: {RELOAD}") from None
        finally:
            os.close(memory_file)  # a mapping has its own
        stack.pop_all()
    return UioTransport(
        name, registers, interrupt, memory, buffer.address, larger_buffer(machine, uio.buffer)
    )
