"""Runs a workload's calls on simulated RTL and on the emulator, and compares bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from terntable.host.bench.workload import Point, Workload, fill_cache, prompt_ids
from terntable.host.cycles import Prediction, predict
from terntable.host.devices.base import CallResult, Device
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.devices.sim import SimDevice
from terntable.host.image import Image
from terntable.host.model import ModelSpec

Cycles = Callable[[Point, int], None]
"""Called while a point is simulated, with the cycles so far."""


@dataclass(frozen=True)
class Measured:
    """A call in cycles. `cycles` are those of the full shape: where fewer layers were simulated
    the layers that are missing are the cycle model's; `simulated` is what was counted.

    unit_cycles  as counted (see CallResult)
    exact        logits and KV cache are the emulator's, bit for bit; None where nothing was run
    """

    point: Point
    cycles: int
    simulated: int
    unit_cycles: dict[str, int]
    exact: bool | None


def run_points(
    work: Workload, image: Image, rtl: SimDevice, on_cycle: Cycles | None = None
) -> Iterator[Measured]:
    """Measure the workload's points one by one on the open device `rtl`.

    Raises DeviceError for a fault of the accelerator.
    """
    rtl.load(image)
    with EmulatorDevice(work.config) as emulator:
        emulator.load(image)
        for point in work.points:
            fill_cache(emulator.machine, point.position)
            kv = image.regions["kv"]
            rtl.write(kv.offset, emulator.read(kv.offset, kv.size))
            rtl.on_cycle = (lambda n, p=point: on_cycle(p, n)) if on_cycle else None
            _call(emulator, work, image, point)
            result = _call(rtl, work, image, point)
            yield _measured(work, point, result, _same(emulator, rtl, image))


def predict_points(work: Workload) -> Iterator[Measured]:
    """The cycle model's figures of the same points."""
    for point in work.points:
        guess = predict_point(work, work.full, point)
        yield Measured(point, guess.cycles, 0, guess.unit_cycles, None)


def predict_point(work: Workload, spec: ModelSpec, point: Point) -> Prediction:
    """The cycle model's figures of a point with `spec`, the whole shape or what is simulated."""
    call = (point.tokens, point.position)
    return predict(spec, work.config, *call, kv=work.kv, planes=work.planes)


def _call(device: Device, work: Workload, image: Image, point: Point) -> CallResult:
    rows = image.embed(prompt_ids(work, point))
    device.write(image.regions["input"].offset, rows.tobytes())
    device.start(point.tokens, point.position)
    return device.wait()


def _same(a: Device, b: Device, image: Image) -> bool:
    """Whether the logits and the whole KV cache agree."""
    size = {"logits": 4 * image.spec.vocab, "kv": image.regions["kv"].size}
    return all(
        a.read(image.regions[name].offset, n) == b.read(image.regions[name].offset, n)
        for name, n in size.items()
    )


def _measured(work: Workload, point: Point, result: CallResult, exact: bool) -> Measured:
    cycles = result.cycles or 0
    missing = 0
    if work.extrapolated:
        whole, part = (predict_point(work, spec, point) for spec in (work.full, work.spec))
        missing = whole.cycles - part.cycles
    return Measured(point, cycles + missing, cycles, dict(result.unit_cycles), exact)
