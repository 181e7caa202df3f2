"""The program of a model whose weights nobody needs: dimensions only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from terntable.host.head import PLANES
from terntable.host.image import align
from terntable.host.linears import Part, gain_row, parts_of
from terntable.host.model import Layer, ModelSpec, TernaryLinear
from terntable.host.packing import PackedStream, plan_tiles
from terntable.host.schedule import Constants, Schedule
from terntable.host.shapes import Shapes
from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import Command, KvFormat


def outline_program(
    spec: ModelSpec,
    config: AcceleratorConfig,
    context: int,
    kv: KvFormat = KvFormat.INT16,
    planes: int = PLANES,
) -> list[Command]:
    """The commands that `compile_model` writes for a model of this shape with one scale a matrix;
    all regions begin at 0, all scales are 1. Raises UserError when the shape does not fit."""
    shapes = Shapes(config, spec, context, planes, kv)
    shapes.check()
    linears = {
        name: TernaryLinear(np.broadcast_to(np.int8(0), shape), np.float32(1))
        for name, shape in spec.linear_shapes.items()
    }
    gains = {name: np.ones(size, np.float32) for name, size in spec.norm_sizes.items()}
    parts = parts_of(Layer(linears, gains), shapes, f"model {spec.name!r}")
    rows = {name: gain_row(name, gain, shapes) for name, gain in gains.items()}
    final = gain_row("final", np.ones(spec.hidden, np.float32), shapes)
    constants = Constants(
        [parts] * spec.layers,
        {(n, name): row for n in range(spec.layers) for name, row in rows.items()}
        | {(spec.layers, "final"): final},
    )
    head = plan_tiles(config, shapes.head_rows, shapes.hidden)
    weights = _stream(config, [p for found in parts.values() for p in found] * spec.layers)
    schedule = Schedule(shapes, head, constants, {}, weights, _stream(config, [Part(0, (), head)]))
    return isa.decode_program(schedule.encode())


def _stream(config: AcceleratorConfig, parts: Iterable[Part]) -> PackedStream:
    """A stream of these parts' weights, of no contents."""
    words = sum(part.plan.words for part in parts)
    beats = -(-words * config.word_trits // (5 * config.beat_bytes))
    width = align(beats * config.bus_bytes)
    return PackedStream(np.broadcast_to(np.uint8(0), (config.ports, width)), beats, words)
