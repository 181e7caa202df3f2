"""What a bench runs: a published shape with random weights, and a KV cache that looks used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from terntable.host.compiler import compile_model
from terntable.host.devices.base import Progress
from terntable.host.emulator import Chunk, Machine
from terntable.host.head import PLANES
from terntable.host.image import Image
from terntable.host.model import BUILT_IN, ModelSpec, load_model, random_model
from terntable.host.named_shapes import NAMED_SHAPES
from terntable.host.shapes import Shapes
from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError
from terntable.hw.isa import KvFormat, Op

SEED = 0


@dataclass(frozen=True)
class Point:
    """A call to be measured: `tokens` tokens behind `position` others."""

    tokens: int
    position: int = 0

    @property
    def is_decode(self) -> bool:
        return self.position > 0

    def __str__(self) -> str:
        if self.is_decode:
            return f"decode at context {self.position:,}"
        return f"prefill of {self.tokens:,}"


@dataclass(frozen=True)
class Workload:
    """A shape on a configuration and the calls to be measured.

    full   the shape as published
    spec   the same with as many layers as are simulated
    """

    config: AcceleratorConfig
    full: ModelSpec
    spec: ModelSpec
    points: tuple[Point, ...]
    kv: KvFormat = KvFormat.INT16
    planes: int = PLANES

    @property
    def context(self) -> int:
        """Positions that the longest call needs."""
        return max(p.position + p.tokens for p in self.points)

    @property
    def extrapolated(self) -> bool:
        return self.spec.layers < self.full.layers


def make_workload(
    config: AcceleratorConfig,
    shape: str,
    contexts: Sequence[int],
    prompts: Sequence[int],
    layers: int | None = None,
    kv: KvFormat = KvFormat.INT16,
    planes: int = PLANES,
) -> Workload:
    """Check the request. Raises UserError with a line that names the number and the remedy."""
    full = shape_called(shape)
    Shapes(config, full, 1).check()
    if layers is not None and not 1 <= layers <= full.layers:
        raise UserError(f"layers is {layers}: {shape} has 1 to {full.layers} to simulate")
    most = min(full.context, config.max_context)
    for what, values, room in (("context", contexts, most - 1), ("prompt", prompts, most)):
        for value in values:
            if not 1 <= value <= room:
                raise UserError(
                    f"{what} is {value}: 1 to {room} are possible with {shape} on {config.name}"
                )
    points = (*(Point(1, n) for n in contexts), *(Point(n) for n in prompts))
    if not points:
        raise UserError("nothing to measure: give a context or a prompt")
    spec = full if layers is None else full.model_copy(update={"layers": layers})
    if planes not in isa.PLANES:
        raise UserError(f"planes is {planes}: choose {' or '.join(map(str, isa.PLANES))}")
    return Workload(config, full, spec, points, kv, planes)


def shape_called(name: str) -> ModelSpec:
    """A published shape, or that of a built-in model. Raises UserError that lists them."""
    if name in NAMED_SHAPES:
        return NAMED_SHAPES[name]
    built_in = sorted(p.parent.name for p in BUILT_IN.glob("*/config.json"))
    if name in built_in:
        return load_model(name).spec
    raise UserError(f"unknown shape {name!r}: choose from {', '.join([*NAMED_SHAPES, *built_in])}")


def make_image(work: Workload, progress: Progress | None = None) -> Image:
    """The image of random weights."""
    model = random_model(work.spec, SEED)
    return compile_model(model, work.config, work.context, progress, work.planes, work.kv)


def prompt_ids(work: Workload, point: Point) -> list[int]:
    """Random tokens of a call."""
    rng = np.random.default_rng([SEED, point.tokens, point.position])
    return rng.integers(0, work.spec.vocab, point.tokens).tolist()


def fill_cache(machine: Machine, positions: int) -> None:
    """Write K and V of positions 0 and up of all layers, as the program's own KV_QUANTs write
    them, of random rows: a cache of any length without the prefill that would have made it."""
    rng = np.random.default_rng([SEED, positions])
    chunk = machine.config.chunk
    for command in machine.prepare().commands:
        if command.op is not Op.KV_QUANT:
            continue
        for at in range(0, positions, chunk):
            tokens = min(chunk, positions - at)
            shape = (tokens, machine.f.shape[1])
            machine.f[:tokens] = rng.standard_normal(shape, dtype=np.float32)
            machine.execute(command, Chunk(at, tokens, 0))
