"""The accelerator's work as GPU kernels, on CUDA where there is a GPU; interpreted elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from terntable.host.devices.base import DeviceError
from terntable.host.devices.model_device import DTYPES, ModelDevice
from terntable.host.model import Model
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError

if TYPE_CHECKING:
    import torch

    from terntable.host.kernels.decoder import TernaryDecoder

F32 = NDArray[np.float32]

KV_KINDS = ("float16", "int8")
"""Number formats of the KV cache."""
_CAPABILITY = (8, 0)
"""Least compute capability that the kernels are compiled for."""


class TritonDevice(ModelDevice):
    """Runs a model on the kernels of `host.kernels`: packed ternary weights, int8 activations,
    K and V in the format `kv`, binary32 between, the LM head as the checkpoint has it.

    Activations go through int8 in every model, `weight_only` ones too: the accelerator does so.
    Where there is no CUDA GPU, or TRITON_INTERPRET=1 is set, the kernels are interpreted on the
    CPU: the same results, slowly. `note` is called with a line before the weights are packed.

    Raises UserError where neither is possible, and where the model doesn't fit into memory.
    """

    name = "triton"

    def __init__(
        self,
        config: AcceleratorConfig,
        model: Model,
        dtype: str = DTYPES[0],
        note: Callable[[str], None] | None = None,
        kv: str = KV_KINDS[0],
    ) -> None:
        super().__init__(config, model, dtype)
        if dtype != DTYPES[0]:
            raise UserError(
                f"device triton computes in {DTYPES[0]}, not in {dtype}: leave --dtype out"
            )
        if kv not in KV_KINDS:
            raise UserError(f"unknown KV format {kv!r}: choose from {', '.join(KV_KINDS)}")
        place = choose_place()
        import torch

        from terntable.host.kernels.decoder import TernaryDecoder

        self.kv = kv
        self.detail = f"{'cuda' if place.type == 'cuda' else 'interpreted'}, KV in {kv}"
        if note:
            note(
                f"triton on {torch.cuda.get_device_name()}: packing the weights"
                if place.type == "cuda"
                else "triton without a GPU: its kernels are interpreted on the CPU, slowly"
            )
        try:
            self._decoder: TernaryDecoder | None = TernaryDecoder(model, place)
        except torch.OutOfMemoryError:
            raise UserError(
                f"model {model.spec.name!r} doesn't fit into the GPU's memory: take a smaller one"
            ) from None

    def _reset(self, context: int) -> None:
        import torch

        try:
            self._open.reset(context, self.kv)
        except torch.OutOfMemoryError:
            raise UserError(
                f"a KV cache of {context} positions doesn't fit into the GPU's memory: give a"
                " configuration with a smaller max_context"
            ) from None

    def _forward(self, rows: F32, position: int) -> F32:
        import torch

        try:
            x = self._open.forward(torch.from_numpy(rows), position)
            logits: F32 = self._open.logits(x[-1]).cpu().numpy()
        except torch.OutOfMemoryError:
            raise DeviceError(f"out of memory: {len(rows)} tokens at position {position}") from None
        return logits

    def _layers(self) -> F32:
        layers: F32 = self._open.layers.cpu().numpy().copy()
        return layers

    def close(self) -> None:
        super().close()
        self._decoder = None

    @property
    def _open(self) -> TernaryDecoder:
        if self._decoder is None:
            raise DeviceError("the device is closed")
        return self._decoder


def choose_place() -> torch.device:
    """Where kernels run: on CUDA, or on the CPU by the interpreter, which is switched on here
    before triton is imported. Raises UserError where neither works."""
    from terntable.host.devices import missing

    if lack := missing("triton"):
        raise UserError(lack)
    import torch

    if "triton" not in sys.modules and not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
    from terntable.host.kernels.tuning import INTERPRETED

    if INTERPRETED:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "device triton finds no CUDA GPU, and triton was imported by another package to compile"
            " for one: set TRITON_INTERPRET=1 to interpret its kernels on the CPU"
        )
    if (capability := torch.cuda.get_device_capability()) < _CAPABILITY:
        raise UserError(
            f"device triton needs a GPU of compute capability {_dotted(_CAPABILITY)}, this one has"
            f" {_dotted(capability)}: set TRITON_INTERPRET=1, or take device torch"
        )
    return torch.device("cuda")


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
