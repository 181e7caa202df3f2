"""What devices have in common that are driven through the accelerator's registers."""

from __future__ import annotations

import abc
import struct
from collections.abc import Sequence

from terntable.host.image import Image
from terntable.hw import isa, regs
from terntable.hw.errors import UserError
from terntable.hw.limits import violation
from terntable.hw.regs import Control

from .base import CallResult, Device, DeviceError, check_room

COUNTERS = {
    "fetch": "CYCLES_FETCH",
    "load": "CYCLES_LOAD",
    "vector": "CYCLES_VECTOR",
    "linear": "CYCLES_LINEAR",
    "attention": "CYCLES_ATTENTION",
    "weight_wait": "CYCLES_WEIGHT_WAIT",
    "read_beats": "READ_BEATS",
    "write_beats": "WRITE_BEATS",
}
"""Registers of CallResult.unit_cycles."""

IDENTITY = ("MAGIC", "VERSION", "CONFIG_HASH")
"""Registers that tell what a design is."""

MOVING = ("READ_BEATS", "WRITE_BEATS", "UNIT_STATE", "ERROR_COMMAND")
"""Registers of which one changes while a call gets on."""

_RESULT = ("STATUS", "ERROR_CODE", "ERROR_UNIT", "ERROR_ADDRESS", "ERROR_COMMAND",
           "ARGMAX", "ARGMAX_LOGIT", "CYCLES", *COUNTERS.values())  # fmt: skip


class RegisterDevice(Device):
    """Calls by registers: how they begin, how they end, and what their errors say.

    A subclass loads the image, moves bytes, and waits; `_image` is the resident image, `_called`
    tells that a call was started and not waited for.
    """

    def __init__(self) -> None:
        self._image: Image | None = None
        self._called = False

    @abc.abstractmethod
    def _registers(self, *names: str) -> list[int]:
        """Read registers, in this order."""

    @abc.abstractmethod
    def _set(self, **values: int) -> None:
        """Write registers, in this order."""

    def abort(self) -> None:
        """Give a call in progress up by the accelerator's own reset, which waits for the bus."""
        self._called = False
        self._set(CONTROL=Control.CLEAR | Control.RESET)

    def start(self, tokens: int, position: int, chunk: int | None = None) -> None:
        if self._image is None:
            raise DeviceError("no image is loaded")
        if self._called:
            raise DeviceError("start while a call runs")
        if chunk is None:
            chunk = self.config.chunk
        # What is beyond the configuration's maximum the gateware itself refuses.
        if position + tokens <= self.config.max_context:
            check_room(self._image, tokens, position)
        self._called = True
        self._set(TOKENS=tokens, POSITION=position, CHUNK=chunk, CONTROL=Control.START)

    def _identify(self, image: Image, what: str) -> None:
        """Raise UserError unless `what` ('the design') is an accelerator that takes the image."""
        config_hash = identify(self._registers(*IDENTITY), what)
        if config_hash != image.config.hash:
            raise UserError(
                f"the image is for configuration {image.config.name!r} ({image.config.hash:08x}),"
                f" {what} has {config_hash:08x}: compile the model again"
            )

    def _prepare(self, image: Image, base: int, watchdog: int) -> None:
        """Set the registers that a reset has cleared: the image lies at bus address `base`."""
        self._set(
            BASE_LO=base & 0xFFFFFFFF,
            BASE_HI=base >> 32,
            LIMIT=image.size,
            WRITE_BASE=image.write_base,
            PROGRAM=image.program,
            IRQ_ENABLE=1,
            WATCHDOG=watchdog,
        )

    def _result(self) -> CallResult:
        """What a call that has ended left. Raises DeviceError for a fault, after a soft reset."""
        values = dict(zip(_RESULT, self._registers(*_RESULT), strict=True))
        if values["STATUS"] & regs.Status.ERROR:
            text = self._describe(values)
            self._set(CONTROL=Control.CLEAR | Control.RESET)
            raise self._error(text, values)
        self._set(CONTROL=Control.CLEAR)
        logit = struct.unpack("<f", struct.pack("<I", values["ARGMAX_LOGIT"]))[0]
        return CallResult(
            argmax=values["ARGMAX"],
            argmax_logit=logit,
            cycles=values["CYCLES"],
            unit_cycles={name: values[register] for name, register in COUNTERS.items()},
        )

    def _describe(self, values: dict[str, int]) -> str:
        """What went wrong, by the registers: the error's name, and the field that did not fit."""
        name = regs.error_name(values["ERROR_CODE"])
        if values["ERROR_CODE"] == regs.Error.BAD_DIMENSION:
            data = self.read(values["ERROR_ADDRESS"], isa.COMMAND_BYTES)
            return f"{name}: {violation(self.config, isa.decode(data))}"
        return name

    @staticmethod
    def _error(text: str, values: dict[str, int]) -> DeviceError:
        """A fault, with what the registers say."""
        if not values:
            return DeviceError(text)
        if "UNIT_STATE" in values:
            busy = [u.name for u in isa.Unit if values["UNIT_STATE"] >> u & 1]
            text += f"; busy: {', '.join(busy) or 'no unit'}; " + ", ".join(
                f"{name} {value:#x}" for name, value in values.items()
            )
        unit = values["ERROR_UNIT"]
        return DeviceError(
            text,
            unit=regs.ERROR_UNITS.get(unit, str(unit)) if values["ERROR_CODE"] else None,
            address=values["ERROR_ADDRESS"] if values["ERROR_CODE"] else None,
            command=values["ERROR_COMMAND"],
        )


def identify(words: Sequence[int], what: str) -> int:
    """The configuration's hash of `what`, whose registers IDENTITY hold `words`. Raises UserError
    where it is no accelerator that this program can drive."""
    magic, version, config_hash = words
    if magic != regs.MAGIC or version >> 16 != regs.VERSION >> 16:
        raise UserError(
            f"{what} is no terntable of version {regs.VERSION >> 16}:"
            f" MAGIC {magic:#010x}, VERSION {version:#010x}; load the bitstream that terntable"
            " build makes"
        )
    return config_hash


def check_inside(size: int, offset: int, count: int) -> None:
    """Raise DeviceError unless `count` bytes from `offset` lie inside an image of `size` bytes."""
    if offset < 0 or count < 0 or offset + count > size:
        raise DeviceError(f"{count} bytes are not inside the image of {size}", address=offset)
