"""The clock in the fabric, measured against the host's.

Nothing on a board tells a program what a clock in the fabric is. But the accelerator counts the
cycles of a call, and a call that waits for ever is easily had: a LINEAR whose weights nobody
fetches. Its count is read twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from terntable.hw import isa, regs
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError
from terntable.hw.isa import Mode, Op
from terntable.hw.regs import Control, Status

from ..devices.base import DeviceError
from ..devices.transport import Transport

TOLERANCE = 0.01
"""By which a clock may be off. The oscillators of boards are a hundred times better."""

_PROGRAM_BYTES = 4096
_TRIES = 5
_WATCHDOG_SECONDS = 5
"""After which the call ends by itself, should this process die."""


def waiting_program(config: AcceleratorConfig) -> bytes:
    """A page of LINEARs. The first waits for weights, the others fill the queue behind it, so that
    what comes after the page is never asked for."""
    words = -(-config.lanes // config.rows)
    command = isa.encode(
        Op.LINEAR, mode=Mode.PLAIN, single=0, follow=0, k_tiles=1, tile_words=words, tiles=1,
        last_words=words, out_rows=config.lanes, segment0=0, segment1=0, rope=0, head_ew=0,
        planes=0, scale0_even=1.0, scale0_odd=1.0, scale1_even=1.0, scale1_odd=1.0,
        scale2_even=1.0, scale2_odd=1.0, address=0, first_row=0,
    )  # fmt: skip
    return command * (_PROGRAM_BYTES // isa.COMMAND_BYTES)


def measure_clock(
    transport: Transport,
    config: AcceleratorConfig,
    *,
    seconds: float = 0.1,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[float, float]:
    """Two frequencies in hertz between which the fabric's clock is.

    The wait is `seconds`; what an access of a register takes makes the two differ. The first page
    of the memory is overwritten, no call may be running. Raises DeviceError where the accelerator
    can't read its memory.
    """

    def count() -> tuple[float, int, float]:
        before = clock()
        (cycles,) = transport.get("CYCLES")
        return before, cycles, clock()

    def sample() -> tuple[float, int, float]:
        """The count, and times before and after it: the closest of several, since other programs
        come in between."""
        return min((count() for _ in range(_TRIES)), key=lambda it: it[2] - it[0])

    transport.write_memory(0, waiting_program(config))
    base = transport.memory_base
    transport.set(
        CONTROL=Control.CLEAR | Control.RESET, BASE_LO=base & 0xFFFFFFFF, BASE_HI=base >> 32,
        LIMIT=_PROGRAM_BYTES, WRITE_BASE=_PROGRAM_BYTES, PROGRAM=0, IRQ_ENABLE=0,
        WATCHDOG=min(_WATCHDOG_SECONDS * config.clock_hz, 0xFFFFFFFF), TOKENS=1, POSITION=0,
        CHUNK=1,
    )  # fmt: skip
    try:
        transport.set(CONTROL=Control.START)
        first, cycles, began = sample()
        sleep(seconds)
        ended, more, last = sample()
        status, code = transport.get("STATUS", "ERROR_CODE")
        if status != Status.BUSY:
            unit, address = transport.get("ERROR_UNIT", "ERROR_ADDRESS")
            raise DeviceError(
                f"the accelerator did not run a program in its memory, at {base:#x} on its bus:"
                f" {regs.error_name(code)}, STATUS {status:#x}",
                unit=regs.ERROR_UNITS.get(unit),
                address=address,
            )
    finally:
        transport.set(CONTROL=Control.CLEAR | Control.RESET)
    counted = (more - cycles) & 0xFFFFFFFF
    return counted / (last - first), counted / max(ended - began, 1e-9)


def check_clock(transport: Transport, config: AcceleratorConfig) -> str:
    """The fabric's clock, in words. Raises UserError where it is not the configuration's."""
    low, high = measure_clock(transport, config)
    found = f"{(low + high) / 2e6:.4g} MHz, within {(high - low) / 2e6:.2g}, measured"
    if high < (1 - TOLERANCE) * config.clock_hz or low > (1 + TOLERANCE) * config.clock_hz:
        raise UserError(
            f"the fabric's clock is {found}; configuration {config.name!r} is for"
            f" {config.clock_hz / 1e6:g} MHz: load the bitstream and, where there is one, the"
            " overlay that terntable build made, which sets the reference clock"
        )
    return found
