"""The cycles of a call, predicted."""

from __future__ import annotations

from dataclasses import dataclass

from terntable.host.cycles.machine import Counts, CycleMachine
from terntable.host.cycles.outline import outline_program
from terntable.host.head import PLANES
from terntable.host.model import ModelSpec
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import KvFormat
from terntable.sim.dram import DramModel

RHYTHM = 3
"""Layers after which every further one takes the same time."""


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

    Layers are alike once the weight ring is in its rhythm, which takes two or three of them: of a
    deep model as many are run and one more, and the others take what that one does.
    Raises UserError when the shape does not fit the configuration.
    """

    def run(layers: int) -> Counts:
        part = spec.model_copy(update={"layers": layers})
        program = outline_program(part, config, position + tokens, kv, planes)
        machine = CycleMachine(config, program, dram or DramModel())
        return machine.run(tokens, position, chunk or config.chunk)

    if spec.layers <= RHYTHM + 1:
        counts = run(spec.layers).all()
    else:
        few, more = run(RHYTHM).all(), run(RHYTHM + 1).all()
        rest = spec.layers - RHYTHM
        counts = {
            name: few.get(name, 0) + rest * (n - few.get(name, 0)) for name, n in more.items()
        }
    beats = {
        f"{way}_beats": counts.pop(f"{way}_bytes") / config.bus_bytes for way in ("read", "write")
    }
    cycles = round(counts.pop("cycles"))
    return Prediction(cycles, {name: round(n) for name, n in (counts | beats).items()})
