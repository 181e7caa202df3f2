"""What devices that run the model itself have in common: memory, calls, chunks."""

from __future__ import annotations

import abc

import numpy as np
from numpy.typing import NDArray

from terntable.host.devices.base import CallResult, Device, DeviceError, check_call, check_image
from terntable.host.image import Image
from terntable.host.model import Model
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError

F32 = NDArray[np.float32]

DTYPES = ("float32", "bfloat16")
"""Number formats in which such a device may compute."""
CHUNK = 256
"""Tokens computed at a time where a call names no chunk: bounds the scores' memory."""


class ModelDevice(Device):
    """Runs a Model without an accelerator: the image is input rows, logits and no weights.

    It takes images of `compiler.outline` (compiled ones as well) made of its own model. Host
    memory stands for the image's; a call is executed in `wait`. Results are those of floating
    point: another chunk length may change their last bits.

    A subclass provides `_reset`, `_forward` and `_layers`, sets `name` and `detail`, and frees
    what it holds in `close`.
    """

    def __init__(self, config: AcceleratorConfig, model: Model, dtype: str = DTYPES[0]) -> None:
        if dtype not in DTYPES:
            raise UserError(f"unknown dtype {dtype!r}: choose from {', '.join(DTYPES)}")
        self.config = config
        self.model = model
        self.dtype = dtype
        self._image: Image | None = None
        self._memory = np.zeros(0, np.uint8)
        self._call: tuple[int, int, int] | None = None
        self._ran = False

    @abc.abstractmethod
    def _reset(self, context: int) -> None:
        """Empty the KV cache: `context` positions, all of which read as zeros."""

    @abc.abstractmethod
    def _forward(self, rows: F32, position: int) -> F32:
        """Run embedding rows [tokens, hidden] at `position` and up; write their K and V.

        A token attends to all positions up to its own, those never written included. Returns the
        last token's logits [vocab].
        """

    @abc.abstractmethod
    def _layers(self) -> F32:
        """Residual stream of the last `_forward`'s last token after each layer [layers, hidden]."""

    def layers(self) -> F32:
        """Residual stream of the last token of the last call, after each layer [layers, hidden]."""
        if not self._ran:
            raise DeviceError("no call has run since the image was loaded")
        return self._layers()

    def load(self, image: Image) -> None:
        check_image(self.config, image)
        if image.spec != self.model.spec:
            raise UserError(
                f"the image is of model {image.spec.name!r}, device {self.name} runs"
                f" {self.model.spec.name!r}: outline that one"
            )
        self._memory = np.zeros(image.size, np.uint8)
        self._memory[: image.data.size] = image.data
        self._reset(image.context)
        self._image, self._call, self._ran = image, None, False

    def write(self, offset: int, data: bytes) -> None:
        self._loaded(offset, len(data))
        self._memory[offset : offset + len(data)] = np.frombuffer(data, np.uint8)

    def read(self, offset: int, size: int) -> bytes:
        self._loaded(offset, size)
        return self._memory[offset : offset + size].tobytes()

    def start(self, tokens: int, position: int, chunk: int | None = None) -> None:
        """As `Device.start`, but CHUNK tokens at a time where no chunk is given."""
        image = self._loaded(0, 0)
        if self._call:
            raise DeviceError("start while a call runs")
        tokens, position, checked = check_call(image, tokens, position, chunk)
        self._call = tokens, position, CHUNK if chunk is None else checked

    def wait(self) -> CallResult:
        image = self._loaded(0, 0)
        if not self._call:
            raise DeviceError("wait without a call")
        (tokens, position, chunk), self._call = self._call, None
        rows = self._rows(image, tokens)
        logits = np.zeros(0, np.float32)
        for at in range(0, tokens, chunk):
            part = rows[at : at + chunk]
            logits = self._forward(part, position + at)
            if self.progress:
                self.progress(at + len(part), tokens)
        self._ran = True
        self.write(image.regions["logits"].offset, logits.astype("<f4", copy=False).tobytes())
        best = int(np.argmax(logits))
        return CallResult(best, float(logits[best]))

    def close(self) -> None:
        self._image, self._call, self._ran = None, None, False
        self._memory = np.zeros(0, np.uint8)

    def _rows(self, image: Image, tokens: int) -> F32:
        """The first rows of region `input` [tokens, hidden]."""
        at, width = image.regions["input"].offset, image.input_width
        rows = self._memory[at : at + 4 * tokens * width].view("<f4").reshape(tokens, width)
        return np.ascontiguousarray(rows[:, : image.spec.hidden])

    def _loaded(self, offset: int, size: int) -> Image:
        if self._image is None:
            raise DeviceError("no image is loaded")
        if offset < 0 or size < 0 or offset + size > self._image.size:
            raise DeviceError(
                f"{size} bytes are not inside the image of {self._image.size}", address=offset
            )
        return self._image
