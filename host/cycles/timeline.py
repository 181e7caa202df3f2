"""Processes in time, and the weights that flow into the ring between their events."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from terntable.host.cycles.bus import Bus, Flow
from terntable.hw.config import AcceleratorConfig

_NEVER = float("inf")


class Ring:
    """Weight words by count since the call's begin: fetched, and given back at a steady rate."""

    def __init__(self, config: AcceleratorConfig, bus: Bus) -> None:
        self._bus = bus
        self.word_bytes = config.word_trits / 5
        buffered = 2 * config.burst_beats * config.beat_bytes / self.word_bytes
        self._depth = config.weight_depth + buffered
        """Words of the ring and of the ports' buffers, which are full when the ring is."""
        self.arrived = 0.0
        self.asked = 0.0
        self.begins = 0.0
        """Time when the words that were asked for begin to arrive."""
        self.freed = 0.0
        self.freeing = 0.0
        self.free_limit = 0.0

    def rates(self, now: float) -> tuple[float, float]:
        """Words a cycle that arrive and that are given back."""
        back = self.freeing if self.freed < self.free_limit else 0.0
        if self.arrived >= self.asked or now < self.begins:
            return 0.0, back
        rate = min(1.0, self._bus.left / self.word_bytes)
        if self.arrived - self.freed >= self._depth - 1e-6:
            rate = min(rate, back)
        return rate, back

    def next_change(self, now: float, target: float) -> float:
        """Cycles until rates change by themselves, or `target` words are there."""
        rate, back = self.rates(now)
        times = [_NEVER]
        if now < self.begins:
            times.append(self.begins - now)
        if rate:
            times.append((min(target, self.asked) - self.arrived) / rate)
            gap = rate - back
            room = self._depth - (self.arrived - self.freed)
            if gap > 1e-12 and room > 1e-6:
                times.append(room / gap)
        if back:
            times.append((self.free_limit - self.freed) / back)
        return min(times)

    def advance(self, now: float, cycles: float) -> None:
        rate, back = self.rates(now)
        self.arrived = min(self.arrived + rate * cycles, self.asked)
        self.freed = min(self.freed + back * cycles, self.free_limit)


class Timeline:
    """Runs processes: iterators that yield the number of cycles they sleep, or `WORDS` to wait for
    `target` weight words to have arrived, or `PARK` to sleep until `wake`."""

    WORDS = -1.0
    PARK = -2.0

    def __init__(self, config: AcceleratorConfig, bus: Bus) -> None:
        self.bus = bus
        self.ring = Ring(config, bus)
        self.now = 0.0
        self.target = 0.0
        self._waiting: Iterator[float] | None = None
        self._parked: list[Iterator[float]] = []
        self._sleeping: list[tuple[float, int, Iterator[float]]] = []
        self._number = 0

    def start(self, process: Iterator[float]) -> None:
        self._resume(process)

    def wake(self) -> None:
        """Resume the parked processes, in this cycle."""
        parked, self._parked = self._parked, []
        for process in parked:
            self._sleep(process, 0.0)

    def first_beat(self) -> float:
        """Cycles from a descriptor of now to its first beat."""
        return self.bus.first_beat(self.ring.rates(self.now)[0] * self.ring.word_bytes)

    def transfer(self, flow: Flow, cycles: float) -> Iterator[float]:
        """Hold a flow for some cycles."""
        self.bus.begin(flow)
        yield cycles
        self.bus.end(flow)

    def run(self) -> float:
        """Until nothing is left to happen. Returns the time."""
        while self._sleeping or self._waiting is not None:
            step = self._sleeping[0][0] - self.now if self._sleeping else _NEVER
            target = self.target if self._waiting is not None else _NEVER
            step = max(min(step, self.ring.next_change(self.now, target)), 0.0)
            if step == _NEVER:
                raise RuntimeError("the program waits for weights that nothing fetches")
            self.ring.advance(self.now, step)
            self.now += step
            if self._waiting is not None and self.ring.arrived >= self.target - 1e-6:
                process, self._waiting = self._waiting, None
                self._resume(process)
            while self._sleeping and self._sleeping[0][0] <= self.now + 1e-9:
                self._resume(heapq.heappop(self._sleeping)[2])
        return self.now

    def _sleep(self, process: Iterator[float], cycles: float) -> None:
        self._number += 1
        heapq.heappush(self._sleeping, (self.now + cycles, self._number, process))

    def _resume(self, process: Iterator[float]) -> None:
        wanted = next(process, None)
        if wanted is None:
            return
        if wanted == self.WORDS:
            if self.ring.arrived >= self.target - 1e-6:
                self._sleep(process, 0.0)
            else:
                self._waiting = process
        elif wanted == self.PARK:
            self._parked.append(process)
        else:
            self._sleep(process, wanted)
