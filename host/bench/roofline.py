"""What memory and array allow at best, from bytes and multiply-accumulates alone."""

from __future__ import annotations

from dataclasses import dataclass

from terntable.host.bench.workload import Point, Workload
from terntable.host.cycles.outline import outline_program
from terntable.host.head import PLANES
from terntable.host.model import ModelSpec
from terntable.host.shapes import Shapes
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import Op
from terntable.sim.dram import DramModel


@dataclass(frozen=True)
class Roofline:
    """Least cycles of a call: of its bytes at the bandwidth of memory or ports, and of its ternary
    multiply-accumulates at the array's peak."""

    memory_cycles: float
    array_cycles: float

    @property
    def cycles(self) -> float:
        return max(self.memory_cycles, self.array_cycles)

    @property
    def bound(self) -> str:
        return "memory" if self.memory_cycles >= self.array_cycles else "array"


def weight_bytes(
    config: AcceleratorConfig, spec: ModelSpec, planes: int = PLANES
) -> tuple[int, int]:
    """Bytes of the layers' weights and of the LM head as they are stored."""
    sizes = [
        command["beats"] * config.beat_bytes
        for command in outline_program(spec, config, 1, planes=planes)
        if command.op is Op.FETCH
    ]
    return sizes[0], sizes[1]


def bits_per_weight(config: AcceleratorConfig, spec: ModelSpec) -> float:
    """Stored bits of a ternary weight, all padding included."""
    return 8 * weight_bytes(config, spec)[0] / spec.ternary_weights


def multiply_accumulates(spec: ModelSpec, tokens: int, planes: int = PLANES) -> int:
    """Ternary multiply-accumulates of a call: all layers for each token, the head once."""
    return tokens * spec.ternary_weights + planes * spec.vocab * spec.hidden


def roofline(work: Workload, point: Point) -> Roofline:
    """Weights once a chunk, the head once, K and V of all positions once a chunk."""
    config, spec = work.config, work.full
    layers, head = weight_bytes(config, spec, work.planes)
    shapes = Shapes(config, spec, 1, kv=work.kv)
    scales = 2 * 4 * spec.vocab  # scales in, logits out
    total = head + scales
    for first in range(0, point.tokens, config.chunk):
        end = min(first + config.chunk, point.tokens)
        rows = (end - first) * 4 * shapes.hidden
        positions = point.position + end  # read, and those of the chunk written
        total += layers + rows
        total += (positions + end - first) * spec.layers * spec.kv_heads * shapes.record_bytes
    bandwidth = min(DramModel().bytes_per_cycle(config.clock_hz), config.beat_bytes)
    return Roofline(
        total / bandwidth,
        multiply_accumulates(spec, point.tokens, work.planes) / config.macs_per_cycle,
    )
