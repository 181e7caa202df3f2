"""The accelerator on an FPGA board, behind a transport.

It has run against the simulated gateware and against models of the far end, not on a board.
"""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable

from terntable.host.image import Image
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError
from terntable.hw.regs import Status

from .base import WATCHDOG_CYCLES, CallResult, DeviceError, check_image
from .register_device import MOVING, RegisterDevice, check_inside
from .transport import Transport

BLOCK_BYTES = 1 << 16
"""The image is compared with what is on the board, and loaded, in pieces of this size."""

_REPORT = ("STATUS", "UNIT_STATE", "ERROR_CODE", "ERROR_UNIT", "ERROR_ADDRESS", "ERROR_COMMAND",
           "READ_BEATS", "WRITE_BEATS", "CYCLES")  # fmt: skip
"""Registers that tell what a call that does not end is at."""


class BoardDevice(RegisterDevice):
    """Runs images on a board of configuration `config`.

    A board whose registers name another configuration is refused. An image of which parts are on
    the board already, checked by their CRC-32, is loaded but for these.

    A call's end is the interrupt. Every `poll` seconds without it the registers are looked at: a
    call that has ended without an interrupt is a fault, and so is one of which nothing moves for
    `patience` seconds, in which the accelerator's own watchdog (`watchdog` cycles) has failed.
    After a fault, and when the device is closed while a call runs, the accelerator is reset, and
    takes the next call.
    """

    name = "board"

    def __init__(
        self,
        config: AcceleratorConfig,
        transport: Transport,
        *,
        poll: float = 0.5,
        patience: float = 10.0,
        watchdog: int = WATCHDOG_CYCLES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.config = config
        self.detail = transport.name
        self._transport = transport
        self._poll = poll
        self._patience = patience
        self._watchdog = watchdog
        self._clock = clock

    def load(self, image: Image) -> None:
        check_image(self.config, image)
        self._image = None
        self._identify(image, f"the board ({self._transport.name})")
        if image.size > self._transport.memory_bytes:
            remedy = self._transport.memory_remedy
            raise UserError(
                f"the image has {image.size:,} bytes, the board's memory for it"
                f" {self._transport.memory_bytes:,}: take a smaller model, or a shorter context"
                + (f"; or {remedy}" if remedy else "")
            )
        self.abort()  # what an earlier host may have left running
        self._upload(image)
        self._transport.fill_memory(image.write_base, image.size - image.write_base)
        self._image = image
        self._prepare(image, self._transport.memory_base, self._watchdog)

    def write(self, offset: int, data: bytes) -> None:
        check_inside(self._size, offset, len(data))
        self._transport.write_memory(offset, bytes(data))

    def read(self, offset: int, size: int) -> bytes:
        check_inside(self._size, offset, size)
        return self._transport.read_memory(offset, size)

    def wait(self) -> CallResult:
        if not self._called:
            raise DeviceError("wait without a call")
        self._wait_interrupt()
        self._called = False
        return self._result()

    def close(self) -> None:
        if self._called:
            with contextlib.suppress(DeviceError):
                self.abort()
        self._image, self._called = None, False
        self._transport.close()

    @property
    def _size(self) -> int:
        if self._image is None:
            raise DeviceError("no image is loaded")
        return self._image.size

    def _upload(self, image: Image) -> None:
        """Bring the constant regions to the board; what is there already stays."""
        transport, total = self._transport, image.data.size
        done = 0

        def moved(count: int) -> None:
            nonlocal done
            done += count
            if self.loading is not None:
                self.loading(done, total)

        for at in range(0, total, BLOCK_BYTES):
            block = image.data[at : at + BLOCK_BYTES].tobytes()
            crc = zlib.crc32(block)
            if transport.checksum_memory(at, len(block)) == crc:
                moved(len(block))
                continue
            transport.write_memory(at, block, moved)
            if transport.checksum_memory(at, len(block)) != crc:
                raise DeviceError(
                    f"the board's memory does not keep what is written to it: the CRC-32 of"
                    f" {len(block)} bytes differs",
                    address=at,
                )

    def _wait_interrupt(self) -> None:
        """Return when the interrupt is raised. Raises DeviceError when it can't be expected any
        more, after a soft reset."""
        seen: list[int] = []
        since = self._clock()
        while not self._transport.wait_interrupt(self._poll):
            status, *now = self._registers("STATUS", *MOVING)
            if status & (Status.DONE | Status.ERROR):
                # It may have come between the wait and the look.
                if self._transport.wait_interrupt(self._poll):
                    return
                self._give_up("the call has ended, its interrupt has not come")
            if now != seen:
                seen, since = now, self._clock()
            elif self._clock() - since >= self._patience:
                self._give_up(f"nothing has moved for {self._patience:g} s")

    def _give_up(self, text: str) -> None:
        values = dict(zip(_REPORT, self._registers(*_REPORT), strict=True))
        self.abort()
        raise self._error(text, values)

    def _registers(self, *names: str) -> list[int]:
        return self._transport.get(*names)

    def _set(self, **values: int) -> None:
        self._transport.set(**values)
