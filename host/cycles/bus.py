"""The memory ports as rates: who gets how many bytes a cycle.

Weights take what the others leave. They lie on all ports alike, so the port that has least to
spare sets their pace.
"""

from __future__ import annotations

from dataclasses import dataclass

from terntable.hw.config import AcceleratorConfig
from terntable.sim.dram import DramModel

READ_LATENCY = 16
"""Cycles between a descriptor and a reader's first beat, beside the memory's own latency."""
WRITE_LATENCY = 12
"""Cycles of a write burst, beside its data and the memory's own latency."""
BURST_LATENCY = 12
"""Cycles between the room for a burst and its first beat, beside the memory's own latency."""


@dataclass(frozen=True)
class Flow:
    """A transfer in progress: bytes a cycle of all ports together, and of the port that has most
    of them (reads only: what is written has wires of its own)."""

    total: float
    port: float


class Bus:
    """Rates on a configuration's ports with a memory behind them."""

    def __init__(self, config: AcceleratorConfig, dram: DramModel) -> None:
        self._config = config
        self.latency = dram.latency_cycles(config.clock_hz)
        self._bandwidth = dram.bytes_per_cycle(config.clock_hz)
        self._flows: list[Flow] = []

    def first_beat(self, weights: float) -> float:
        """Cycles from a descriptor to its first beat, behind the bursts of weights that are under
        way when these come at so many bytes a cycle."""
        c = self._config
        beats = weights / c.beat_bytes * (self.latency + BURST_LATENCY + c.burst_beats)
        return READ_LATENCY + self.latency + min(beats, 2 * c.burst_beats)

    @property
    def written(self) -> int:
        """Cycles from the last data of a burst to its acknowledgement."""
        return WRITE_LATENCY + self.latency

    def share(self, bursts: int) -> float:
        """Most bytes a cycle that a reader with a buffer of `bursts` bursts gets of a port: room
        for a burst is given back when the whole burst has been read."""
        c = self._config
        waiting = c.burst_beats + self.latency + BURST_LATENCY
        return min(1.0, bursts * c.burst_beats / waiting) * c.bus_bytes

    @property
    def every_port(self) -> float:
        """Most bytes a cycle of a reader on all ports, alone."""
        return min(self._config.ports * self.share(2), self._bandwidth)

    def begin(self, flow: Flow) -> None:
        self._flows.append(flow)

    def end(self, flow: Flow) -> None:
        self._flows.remove(flow)

    @property
    def left(self) -> float:
        """Bytes a cycle that weights may take now."""
        c = self._config
        port = min(self.share(2), c.bus_bytes - sum(f.port for f in self._flows))
        total = self._bandwidth - sum(f.total for f in self._flows)
        return max(0.0, min(c.ports * port, total))
