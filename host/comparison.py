"""The same tokens on several devices: what each makes of them, and how far they are apart.

The first device generates greedily; the others are fed its tokens (teacher forcing), so that
every step compares distributions over the same history. Each also says what it would have chosen.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .devices.base import CallResult, Device
from .devices.emulator import EmulatorDevice
from .devices.model_device import ModelDevice
from .emulator.residual import ResidualTap
from .image import Image
from .session import Session
from .shapes import Shapes

F32 = NDArray[np.float32]


@dataclass
class Trace:
    """One device's run of a prompt and the tokens after it, a step a token.

    choices  the device's own greedy choice at each step
    logits   [vocab] of each step
    layers   residual stream of the last token after each layer [layers, hidden], of each step;
             empty where the device doesn't show it
    kv       a digest of each layer's part of the KV cache, at the end; empty where the device's
             memory holds none
    """

    device: str
    detail: str
    choices: list[int] = field(default_factory=list)
    logits: list[F32] = field(default_factory=list)
    layers: list[F32] = field(default_factory=list)
    kv: list[bytes] = field(default_factory=list)
    calls: list[CallResult] = field(default_factory=list)
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def decode_rate(self) -> float | None:
        """Tokens a second after the first, measured; None where there are none."""
        return (len(self.calls) - 1) / self.decode_seconds if self.decode_seconds else None


@dataclass(frozen=True)
class Difference:
    """How far a trace is from the reference's.

    agree         whether both would choose the same token, step by step
    rms_error     root mean square of the logits' difference relative to that of the reference's
    largest       largest magnitude of the difference of two logits
    identical     whether all logits have the same bits
    layer_errors  relative root mean square of the residual stream after each layer; empty where
                  one of the devices doesn't show it
    """

    agree: list[bool]
    rms_error: float
    largest: float
    identical: bool
    layer_errors: list[float]

    def first_layer(self, threshold: float) -> int | None:
        """First layer with an error over `threshold`; None where there is none."""
        over = (n for n, error in enumerate(self.layer_errors) if not error <= threshold)
        return next(over, None)


def record(
    device: Device, image: Image, prompt: list[int], steps: int, forced: list[int] | None = None
) -> Trace:
    """Load `image`, prefill `prompt` and decode up to `steps` tokens.

    Without `forced` each step's choice is fed to the next, up to an end-of-sequence id; with it
    these are, and there are as many steps as it has ids.
    """
    read_layers = _layer_reader(device, image)
    session = Session(device, image)
    trace, ids = Trace(device.name, device.detail), prompt
    for step in range(steps if forced is None else len(forced)):
        began = time.perf_counter()
        logits, result = session.call(ids)
        took = time.perf_counter() - began
        if step:
            trace.decode_seconds += took
        else:
            trace.prefill_seconds = took
        choice = int(np.argmax(logits))
        trace.choices.append(choice)
        trace.logits.append(logits)
        trace.calls.append(result)
        if read_layers is not None:
            trace.layers.append(read_layers())
        if forced is None and choice in image.spec.eos_ids:
            break
        ids = [choice if forced is None else forced[step]]
    trace.kv = _kv_digests(device, image)
    return trace


def difference(trace: Trace, reference: Trace) -> Difference:
    """Compare two traces over the same tokens."""
    a, b = np.stack(trace.logits), np.stack(reference.logits)
    layer_errors: list[float] = []
    if trace.layers and reference.layers:
        mine, theirs = np.stack(trace.layers, axis=1), np.stack(reference.layers, axis=1)
        layer_errors = [relative_rms(x, y) for x, y in zip(mine, theirs, strict=True)]
    return Difference(
        [x == y for x, y in zip(trace.choices, reference.choices, strict=True)],
        relative_rms(a, b),
        float(np.abs(a.astype(np.float64) - b).max()),
        np.array_equal(a.view(np.uint32), b.view(np.uint32)),
        layer_errors,
    )


def first_kv_layer(a: Trace, b: Trace) -> int | None:
    """First layer whose part of the KV cache has other bits in the one than in the other; None
    where all are equal. Both must have one."""
    return next((n for n, (x, y) in enumerate(zip(a.kv, b.kv, strict=True)) if x != y), None)


def relative_rms(a: NDArray, b: NDArray) -> float:
    """Root mean square of a - b relative to that of b: 0 where they are equal."""
    error = float(np.sqrt(np.mean(np.square(a.astype(np.float64) - b))))
    size = float(np.sqrt(np.mean(np.square(b.astype(np.float64)))))
    return error / size if size else (0.0 if error == 0 else float("inf"))


def _layer_reader(device: Device, image: Image) -> Callable[[], F32] | None:
    """What gives the residual stream of the last call's last token after each layer."""
    if isinstance(device, ModelDevice):
        return device.layers
    if isinstance(device, EmulatorDevice):
        tap = ResidualTap(image.spec.hidden)
        device.machine.observer = tap
        return tap.layers
    return None


def _kv_digests(device: Device, image: Image) -> list[bytes]:
    if "kv" not in image.regions:
        return []
    stride = Shapes(image.config, image.spec, image.context, kv=image.kv).kv_layer_stride
    first = image.regions["kv"].offset
    return [
        hashlib.sha256(device.read(first + n * stride, stride)).digest()
        for n in range(image.spec.layers)
    ]
