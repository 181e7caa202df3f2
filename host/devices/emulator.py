"""The emulator as a device."""

from __future__ import annotations

import contextlib

import numpy as np

from terntable.host.devices.base import CallResult, Device, DeviceError, check_call, check_image
from terntable.host.emulator import Machine, Observer
from terntable.host.image import Image
from terntable.hw.config import AcceleratorConfig


class EmulatorDevice(Device):
    """Runs images on the host, with the gateware's results and no clock.

    A call is executed in `wait`. `observer` is called after each command.
    """

    name = "emulator"

    def __init__(self, config: AcceleratorConfig, observer: Observer | None = None) -> None:
        self.config = config
        self.machine = Machine(config)
        self.machine.observer = observer
        self._image: Image | None = None
        self._call: tuple[int, int, int] | None = None

    def load(self, image: Image) -> None:
        check_image(self.config, image)
        memory = np.zeros(image.size, np.uint8)
        memory[: image.write_base] = image.data
        self.machine.attach(memory, image.write_base, image.program)
        self._image, self._call = image, None
        # Weights are unpacked here, not in the first call's time. A program that can't be executed
        # is that call's error, as it is the accelerator's.
        with contextlib.suppress(DeviceError):
            self.machine.prepare()

    def write(self, offset: int, data: bytes) -> None:
        image = self._loaded(offset, len(data))
        self.machine.memory.data[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        if offset < image.write_base:
            self.machine.invalidate()

    def read(self, offset: int, size: int) -> bytes:
        self._loaded(offset, size)
        return self.machine.memory.data[offset : offset + size].tobytes()

    def start(self, tokens: int, position: int, chunk: int | None = None) -> None:
        image = self._loaded(0, 0)
        if self._call:
            raise DeviceError("start while a call runs")
        self._call = check_call(image, tokens, position, chunk)

    def wait(self) -> CallResult:
        if not self._call:
            raise DeviceError("wait without a call")
        call, self._call = self._call, None
        return self.machine.run(*call, progress=self.progress)

    def _loaded(self, offset: int, size: int) -> Image:
        if self._image is None:
            raise DeviceError("no image is loaded")
        if offset < 0 or offset + size > self._image.size:
            raise DeviceError(
                f"{size} bytes are not inside the image of {self._image.size}", address=offset
            )
        return self._image
