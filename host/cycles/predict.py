"""The cycles of a call, predicted."""

from __future__ import annotations

from dataclasses import dataclass

from terntable.host.cycles.machine import CycleMachine
from terntable.host.cycles.outline import outline_program
from terntable.host.head import PLANES
from terntable.host.model import ModelSpec
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import KvFormat
from terntable.sim.dram import DramModel


@dataclass(frozen=True)
class Prediction:
    """What a call would show: cycles from doorbell to done, and by unit as
    `CallResult.unit_cycles` names them."""

    cycles: int
    unit_cycles: dict[str, int]


def predict(
    spec: ModelSpec,
    config: AcceleratorConfig,
    tokens: int,
    position: int = 0,
    *,
    chunk: int | None = None,
    kv: KvFormat = KvFormat.INT16,
    planes: int = PLANES,
    dram: DramModel | None = None,
) -> Prediction:
    """Cycles of a call of `tokens` tokens at `position`.

    Raises UserError when the shape does not fit the configuration.
    """
    program = outline_program(spec, config, position + tokens, kv, planes)
    machine = CycleMachine(config, program, dram or DramModel())
    counts = machine.run(tokens, position, chunk or config.chunk)
    beats = {
        "read_beats": counts.read_bytes / config.bus_bytes,
        "write_beats": counts.write_bytes / config.bus_bytes,
    }
    return Prediction(
        round(counts.cycles), {name: round(n) for name, n in (counts.busy | beats).items()}
    )
