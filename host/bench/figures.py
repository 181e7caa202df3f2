"""Cycles of a bench as the figures that people compare: rates, utilisation, the JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from terntable.host.bench.roofline import (
    Roofline,
    bits_per_weight,
    multiply_accumulates,
    roofline,
)
from terntable.host.bench.runner import Measured, predict_point
from terntable.host.bench.workload import Workload
from terntable.sim.dram import DramModel

DRAM = DramModel()


@dataclass(frozen=True)
class Figures:
    """A measured point of a workload, in figures."""

    work: Workload
    measured: Measured

    @property
    def seconds(self) -> float:
        """Of the call: a token of decode, the time to the first token of a prefill."""
        return self.measured.cycles / self.work.config.clock_hz

    @property
    def tok_s(self) -> float:
        return self.measured.point.tokens / self.seconds

    @property
    def dram_gbps(self) -> float:
        """Bytes that the memory moved, reads and writes, in 10^9 a second."""
        beats = sum(self.measured.unit_cycles[n] for n in ("read_beats", "write_beats"))
        counted = self.measured.simulated or self.measured.cycles
        config = self.work.config
        return beats * config.bus_bytes / (counted / config.clock_hz) / 1e9

    @property
    def dram_utilisation(self) -> float:
        """The same as a share of the memory model's limit."""
        return self.dram_gbps * 1e9 / DRAM.bandwidth

    @property
    def array_utilisation(self) -> float:
        """Ternary multiply-accumulates of the call, head included, as a share of the peak."""
        tokens = self.measured.point.tokens
        useful = multiply_accumulates(self.work.full, tokens, self.work.planes)
        return useful / (self.measured.cycles * self.work.config.macs_per_cycle)

    @property
    def roofline(self) -> Roofline:
        return roofline(self.work, self.measured.point)

    @property
    def of_roofline(self) -> float:
        """Share of the speed that memory and array would allow."""
        return self.roofline.cycles / self.measured.cycles


def bench_object(
    work: Workload, measured: Sequence[Measured], kind: str, wall_s: float
) -> dict[str, Any]:
    """The JSON object of a bench; `kind` is 'simulated' or 'predicted'."""
    figures = [Figures(work, m) for m in measured]
    exact = [m.exact for m in measured]
    return {
        "config": work.config.name,
        "shape": work.full.name,
        "kv": work.kv.label,
        "planes": work.planes,
        "kind": kind,
        "clock_hz": work.config.clock_hz,
        "dram_model_gbps": DRAM.bandwidth / 1e9,
        "decode": [
            {
                "context": f.measured.point.position,
                "cycles": f.measured.cycles,
                "tok_s": f.tok_s,
                **_details(f),
            }
            for f in figures
            if f.measured.point.is_decode
        ],
        "prefill": [
            {
                "tokens": f.measured.point.tokens,
                "cycles": f.measured.cycles,
                "ttft_s": f.seconds,
                **_details(f),
            }
            for f in figures
            if not f.measured.point.is_decode
        ],
        "bits_per_weight": bits_per_weight(work.config, work.full),
        "layers_simulated": work.spec.layers if kind == "simulated" else 0,
        "layers_total": work.full.layers,
        "bit_exact": None if None in exact else all(exact),
        "wall_s": wall_s,
    }


def _details(figures: Figures) -> dict[str, Any]:
    work = figures.work
    return {
        "dram_utilisation": figures.dram_utilisation,
        "array_utilisation": figures.array_utilisation,
        "predicted_cycles": predict_point(work, work.full, figures.measured.point).cycles,
        "roofline_cycles": figures.roofline.cycles,
        "roofline_bound": figures.roofline.bound,
        "unit_cycles": figures.measured.unit_cycles,
    }
