"""Parameters of the DRAM model (dram.cpp)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DramModel:
    """How the simulated DRAM behaves.

    Every port moves at most one bus word a cycle each way. Reads and writes of all ports share a
    token bucket that `bandwidth` (bytes a second) fills; a burst is charged at least `min_burst`
    bytes. The first beat of a read, and the answer to a write, come `latency` (seconds) after the
    address or the last beat. A port has at most `outstanding` bursts in flight a direction and
    answers in order. `base` is the memory's bus address: accesses outside the image are answered
    DECERR, those in `errors` (offset, size) SLVERR. With `stress_seed` all channels stall at
    random and latencies vary.
    """

    bandwidth: float = 14.0e9
    latency: float = 150e-9
    min_burst: int = 64
    outstanding: int = 16
    base: int = 0x8_0000_0000
    stress_seed: int | None = None
    errors: tuple[tuple[int, int], ...] = ()

    def latency_cycles(self, clock_hz: int) -> int:
        return max(1, math.ceil(self.latency * clock_hz - 1e-6))

    def bytes_per_cycle(self, clock_hz: int) -> float:
        return self.bandwidth / clock_hz

    def settings(self, clock_hz: int) -> str:
        """The text that dram.cpp reads from TERNTABLE_DRAM."""
        items = [
            f"base={self.base:#x}",
            f"bytes_per_cycle={self.bytes_per_cycle(clock_hz)!r}",
            f"latency={self.latency_cycles(clock_hz)}",
            f"min_burst={self.min_burst}",
            f"outstanding={self.outstanding}",
            *(f"error={offset:#x},{size:#x}" for offset, size in self.errors),
        ]
        if self.stress_seed is not None:
            items.append(f"stress={self.stress_seed}")
        return ";".join(items)
