"""The published semantics in PyTorch as a device: the reference, on CPU or CUDA."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terntable.host.devices.base import DeviceError
from terntable.host.devices.model_device import ModelDevice
from terntable.host.model import Model, ModelSpec
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError

if TYPE_CHECKING:
    from terntable.host.reference.decoder import Decoder

F32 = NDArray[np.float32]

_SMALL = 1 << 20
"""Weights of a model's largest matrix up to which one thread of the CPU is faster than more."""


class TorchDevice(ModelDevice):
    """Runs a model in PyTorch, on CUDA where there is a GPU.

    Weights are unpacked when the device is made and kept in `dtype`; where that doesn't fit, the
    trits stay int8 and are widened at each use, which is slower. Raises UserError where even
    these don't fit. `note` is called with a line before the weights are read.
    """

    name = "torch"

    def __init__(
        self,
        config: AcceleratorConfig,
        model: Model,
        dtype: str = "float32",
        note: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(config, model, dtype)
        try:
            import torch
        except (ImportError, OSError) as e:  # a library that it was built for is not there
            raise UserError(
                f"PyTorch is installed but can't be loaded ({str(e).splitlines()[0]}): install it"
                " again"
            ) from None

        from terntable.host.reference.decoder import Decoder

        place = "cuda" if torch.cuda.is_available() else "cpu"
        self.detail = f"{place}, {dtype}"
        shapes = [*model.spec.linear_shapes.values(), model.head.shape]
        self._one_thread = max(rows * columns for rows, columns in shapes) <= _SMALL
        number = getattr(torch, dtype)
        widen = choose_widening(model, number.itemsize, free_memory(place), self.detail)
        if note:
            kept = dtype if widen else "int8"
            where = torch.cuda.get_device_name() if place == "cuda" else "the CPU"
            note(f"torch on {where} in {dtype}: reading the weights, kept as {kept}")
        with _memory_errors(f"model {model.spec.name!r} on {self.detail}"):
            self._decoder: Decoder | None = Decoder(model, place, number, widen)

    def _reset(self, context: int) -> None:
        self._open.reset()

    def _forward(self, rows: F32, position: int) -> F32:
        import torch

        what = f"{len(rows)} tokens at position {position} on {self.detail}"
        with _memory_errors(what), _threads(self._one_thread):
            x = self._open.forward(torch.from_numpy(rows), position)
            return _array(self._open.logits(x[-1:])[0])

    def _layers(self) -> F32:
        return _array(self._open.layers)

    def close(self) -> None:
        super().close()
        self._decoder = None

    @property
    def _open(self) -> Decoder:
        if self._decoder is None:
            raise DeviceError("the device is closed")
        return self._decoder


def weight_bytes(spec: ModelSpec, trit: int, head: int) -> int:
    """Bytes of a model's weights at `trit` bytes a ternary weight and `head` one of the head's."""
    return spec.ternary_weights * trit + spec.vocab * spec.hidden * head


def choose_widening(model: Model, itemsize: int, free: int | None, where: str) -> bool:
    """Whether weights of `itemsize` bytes fit into `free` bytes (None: unknown); False where only
    narrow ones do. Raises UserError where none do."""
    wide = weight_bytes(model.spec, itemsize, itemsize)
    narrow = weight_bytes(model.spec, 1, model.head.dtype.itemsize)
    if free is None or wide <= free:
        return True
    if narrow <= free:
        return False
    raise UserError(
        f"model {model.spec.name!r} needs {narrow / 1e9:.1f} GB of memory ({where}) and"
        f" {free / 1e9:.1f} GB are free: end other programs or take a smaller model"
    )


def free_memory(place: str) -> int | None:
    """Bytes to be had on `cpu` (without swapping) or `cuda`; None where the system doesn't say."""
    if place == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


@contextlib.contextmanager
def _threads(one: bool) -> Iterator[None]:
    """Let PyTorch use one thread of the CPU, if `one`, and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    if one:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _memory_errors(what: str) -> Iterator[None]:
    """Memory that PyTorch can't get becomes a DeviceError."""
    try:
        yield
    except RuntimeError as e:
        text = str(e)
        if "out of memory" in text or "can't allocate memory" in text:
            raise DeviceError(f"out of memory: {what}") from None
        raise


def _array(x: Any) -> F32:
    """A copy: the next call writes over the tensor."""
    return x.float().cpu().numpy().copy()
