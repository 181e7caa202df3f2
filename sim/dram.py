"""Parameters of the DRAM model (dram.cpp)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Stalls:
    """How likely each channel of a memory port stands still in a cycle.

    A channel that stands still goes on for up to `longest` cycles with probability `pause`. With
    `shy` the memory is ready only after it has seen valid. `control` is the same for the host's
    side of the control port, whose address and data then come in any order.
    """

    ar: float = 0.25
    r: float = 0.25
    aw: float = 0.25
    w: float = 0.25
    b: float = 0.25
    pause: float = 1 / 256
    longest: int = 63
    shy: bool = False
    control: float = 0.0


class Fault(NamedTuple):
    """Bytes of the image whose accesses of a kind ("r", "w" or "rw") fail: the first `times` since
    a reset, all by default."""

    offset: int
    size: int
    kind: str = "rw"
    times: int = -1


@dataclass(frozen=True)
class DramModel:
    """How the simulated DRAM behaves. Times are seconds, rounded up to cycles.

    Every port moves at most one bus word a cycle each way. Reads and writes of all ports share a
    token bucket that `bandwidth` (bytes a second) fills; a burst is charged at least `min_burst`
    bytes. The first beat of a read comes `latency` after the address, the answer to a write
    `write_latency` (as a read by default) after the last beat; each port adds its own of
    `port_latency`, and up to `jitter` are added at random. A port has at most `outstanding`
    bursts in flight a direction and answers in order. `base` is the memory's bus address: accesses
    outside the image are answered DECERR, those that touch `errors` SLVERR, those that touch
    `lost` never, nor any behind them on their port.

    `stress_seed` is the seed of all that is random. With it the channels stall, by `stalls`, and
    unless these are given a read's latency varies by as much as it is.
    """

    bandwidth: float = 14.0e9
    latency: float = 150e-9
    write_latency: float | None = None
    port_latency: tuple[float, ...] = ()
    jitter: float = 0.0
    min_burst: int = 64
    outstanding: int = 16
    base: int = 0x8_0000_0000
    stress_seed: int | None = None
    stalls: Stalls | None = None
    errors: tuple[tuple[int, int] | Fault, ...] = ()
    lost: tuple[tuple[int, int] | Fault, ...] = ()

    @classmethod
    def stressed(cls, seed: int) -> DramModel:
        """A memory as bad as they come, drawn from `seed`: latencies from none to microseconds,
        ports out of step, slow writes, little bandwidth, few bursts in flight, stalls anywhere."""
        rng = random.Random(seed)
        chance = (0.0, 0.1, 0.5, 0.9)
        return cls(
            bandwidth=rng.choice((14.0e9, 2.0e9, 0.4e9)),
            latency=rng.choice((0.0, 50e-9, 150e-9, 1e-6, 3e-6)),
            write_latency=rng.choice((0.0, 150e-9, 2e-6, 6e-6)),
            port_latency=tuple(rng.choice((0.0, 30e-9, 1e-6, 4e-6)) for _ in range(4)),
            jitter=rng.choice((0.0, 100e-9, 1e-6)),
            outstanding=rng.choice((1, 2, 3, 16)),
            stress_seed=seed,
            stalls=Stalls(
                ar=rng.choice(chance),
                r=rng.choice(chance),
                aw=rng.choice(chance),
                w=rng.choice(chance),
                b=rng.choice(chance),
                pause=rng.choice((0.0, 1 / 256, 1 / 32)),
                shy=rng.random() < 0.5,
                control=rng.choice(chance[:3]),
            ),
        )

    def cycles(self, seconds: float, clock_hz: int) -> int:
        return math.ceil(seconds * clock_hz - 1e-6)

    def latency_cycles(self, clock_hz: int) -> int:
        return max(1, self.cycles(self.latency, clock_hz))

    def bytes_per_cycle(self, clock_hz: int) -> float:
        return self.bandwidth / clock_hz

    def settings(self, clock_hz: int) -> str:
        """The text that dram.cpp and server.py read from TERNTABLE_DRAM."""
        stalls, jitter = self.stalls, self.jitter
        if self.stress_seed is not None and stalls is None:
            stalls, jitter = Stalls(), self.latency
        write = self.latency if self.write_latency is None else self.write_latency
        items = [
            f"base={self.base:#x}",
            f"bytes_per_cycle={self.bytes_per_cycle(clock_hz)!r}",
            f"latency={self.latency_cycles(clock_hz)}",
            f"write_latency={max(1, self.cycles(write, clock_hz))}",
            *(f"port_latency={self.cycles(t, clock_hz)}" for t in self.port_latency),
            f"jitter={self.cycles(jitter, clock_hz)}",
            f"min_burst={self.min_burst}",
            f"outstanding={self.outstanding}",
            *(f"error={_range(fault)}" for fault in self.errors),
            *(f"lost={_range(fault)}" for fault in self.lost),
            f"seed={self.stress_seed or 0}",
        ]
        if stalls is not None:
            channels = (stalls.ar, stalls.r, stalls.aw, stalls.w, stalls.b)
            items += [
                f"stalls={','.join(map(repr, channels))}",
                f"pause={stalls.pause!r}",
                f"longest={stalls.longest}",
                f"shy={int(stalls.shy)}",
                f"control={stalls.control!r}",
            ]
        return ";".join(items)


def _range(fault: tuple[int, int] | Fault) -> str:
    where = Fault(*fault)
    return f"{where.offset:#x},{where.size:#x},{where.kind},{where.times}"
