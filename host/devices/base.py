"""The one interface to whatever executes an image: emulator, simulator, board."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from terntable.host.image import Image, crc32
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

WATCHDOG_CYCLES = 1 << 18
"""Cycles in which neither bus nor units get on, after which a call ends in an error: far more than
any memory takes to answer, a millisecond at 250 MHz."""

Progress = Callable[[int, int], None]
"""Called with how many are finished and how many there are: tokens of a call, bytes of an image."""


class DeviceError(RuntimeError):
    """A fault that the device reports: names the unit, the address and the command."""

    def __init__(
        self,
        message: str,
        *,
        unit: str | None = None,
        address: int | None = None,
        command: int | None = None,
    ) -> None:
        where = []
        if unit is not None:
            where.append(f"unit {unit}")
        if address is not None:
            where.append(f"address {address:#x}")
        if command is not None:
            where.append(f"command {command}")
        super().__init__(f"{message} ({', '.join(where)})" if where else message)
        self.unit, self.address, self.command = unit, address, command


@dataclass(frozen=True)
class CallResult:
    """What a call leaves in the registers.

    argmax        id of the largest logit, the lowest id on a tie
    argmax_logit  that logit
    cycles        cycles of the call; None where the device has no clock
    unit_cycles   busy cycles by unit in lower case ('fetch', 'load', 'vector', 'linear',
                  'attention', 'weight_wait'), and bus beats ('read_beats', 'write_beats')
    """

    argmax: int
    argmax_logit: float
    cycles: int | None = None
    unit_cycles: dict[str, int] = field(default_factory=dict)


class Device(abc.ABC):
    """Runs images of one configuration. Offsets are bytes from the image's base.

    A call processes `tokens` rows of region `input` at positions `position` and up: the KV cache
    grows by them, region `logits` holds the last token's logits (binary32 [vocab]) afterwards.
    """

    name: str
    config: AcceleratorConfig
    detail: str = ""
    """What it runs on, for people: 'cpu, float32'. Empty where the name says it all."""
    progress: Progress | None = None
    """Called with tokens while a call runs, where the device can."""
    loading: Progress | None = None
    """Called with bytes while an image is loaded, where that takes time."""

    @abc.abstractmethod
    def load(self, image: Image) -> None:
        """Make `image` resident; the run-time regions start as zeros.

        Raises UserError when the image was compiled for another configuration.
        """

    @abc.abstractmethod
    def write(self, offset: int, data: bytes) -> None:
        """Copy bytes into the image."""

    @abc.abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """Copy bytes out of the image."""

    @abc.abstractmethod
    def start(self, tokens: int, position: int, chunk: int | None = None) -> None:
        """Ring the doorbell: `tokens` >= 1 rows at `position`, `chunk` of them at a time (the
        configuration's by default). Returns at once."""

    @abc.abstractmethod
    def wait(self) -> CallResult:
        """Wait for the call's end. Raises DeviceError for a fault."""

    def close(self) -> None:  # noqa: B027
        """Release the device. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def check_image(config: AcceleratorConfig, image: Image) -> None:
    """Raise UserError unless `image` was compiled for `config` and is whole."""
    if image.config.hash != config.hash:
        raise UserError(
            f"the image is for configuration {image.config.name!r} ({image.config.hash:08x}), the"
            f" device has {config.name!r} ({config.hash:08x}): compile the model again"
        )
    if image.data.size:  # else an outline
        image.check()


def check_memory(device: Device, image: Image) -> None:
    """Raise DeviceError, which names the region, when a constant region in the device's memory is
    no longer what was loaded."""
    for region in image.regions.values():
        if region.crc32 is not None:
            data = np.frombuffer(device.read(region.offset, region.size), np.uint8)
            if crc32(data) != region.crc32:
                raise DeviceError(
                    f"region {region.name!r} is damaged: its CRC-32 differs", address=region.offset
                )


def check_call(image: Image, tokens: int, position: int, chunk: int | None) -> tuple[int, int, int]:
    """Tokens, position and chunk of a call, the chunk filled in.

    Raises DeviceError for a call that the accelerator refuses or that the image has no room for.
    """
    chunk = image.config.chunk if chunk is None else chunk
    if not 1 <= chunk <= image.config.chunk:
        raise DeviceError(f"bad call: chunk {chunk}, 1 to {image.config.chunk} are possible")
    if tokens < 1 or position < 0:
        raise DeviceError(f"bad call: {tokens} tokens at position {position}")
    check_room(image, tokens, position)
    return tokens, position, chunk


def check_room(image: Image, tokens: int, position: int) -> None:
    """Raise DeviceError for a call that ends beyond the positions that the image provides for."""
    if position + tokens > image.context:
        raise DeviceError(
            f"bad call: {tokens} tokens at position {position}, the image has room for"
            f" {image.context} positions"
        )
