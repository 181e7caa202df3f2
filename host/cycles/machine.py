"""The units at work on a program, as processes in time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

from terntable.host.cycles import units
from terntable.host.cycles.bus import Bus, Flow
from terntable.host.cycles.timeline import Timeline
from terntable.hw.attention.cycles import attention_cycles
from terntable.hw.config import KV_BLOCK, AcceleratorConfig
from terntable.hw.elementwise.cycles import kv_quant_cycles, row_cycles
from terntable.hw.isa import UNIT_OF, Command, Dest, KvFormat, Mode, Op, Unit
from terntable.sim.dram import DramModel

_attention_cycles = functools.lru_cache(maxsize=4096)(attention_cycles)


@dataclass(frozen=True)
class Chunk:
    """The tokens that a command runs for."""

    position: int
    tokens: int


@dataclass
class Running:
    """A command in progress: the rows that it has finished, for one that follows it."""

    rows: int = 0
    over: bool = False

    def wait(self, rows: int) -> Iterator[float]:
        """Until so many rows are finished."""
        while not self.over and self.rows < rows:
            yield Timeline.PARK


BUSY = (*(unit.name.lower() for unit in Unit), "weight_wait")
"""Counters of busy cycles."""


@dataclass
class Counts:
    """What the accelerator's counters show after a call."""

    cycles: float = 0.0
    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BUSY, 0.0))
    read_bytes: float = 0.0
    write_bytes: float = 0.0

    def all(self) -> dict[str, float]:
        """Every count by its name; busy cycles by the unit's."""
        others = {n: getattr(self, n) for n in ("cycles", "read_bytes", "write_bytes")}
        return others | self.busy

    def add(self, name: str, cycles: float) -> None:
        self.busy[name] += cycles


class CycleMachine:
    """Runs one call of a program. Every unit is a process that ends when its command has."""

    def __init__(self, config: AcceleratorConfig, program: list[Command], dram: DramModel) -> None:
        self._config = config
        self._program = program
        self._bus = Bus(config, dram)
        self._time = Timeline(config, self._bus)
        self._running: dict[Unit, Running] = {}
        self.counts = Counts()
        self._execute = {
            Op.FETCH: self._fetch,
            Op.LOAD: self._load,
            Op.NORM_QUANT: self._norm_quant,
            Op.KV_QUANT: self._kv_quant,
            Op.LINEAR: self._linear,
            Op.ATTENTION: self._attention,
        }

    def run(self, tokens: int, position: int, chunk: int) -> Counts:
        self._time.start(self._sequence(tokens, position, chunk))
        self.counts.cycles = self._time.run()
        return self.counts

    # ------------------------------------------------------------ sequencer

    def _sequence(self, tokens: int, position: int, chunk: int) -> Iterator[float]:
        done, at = 0, 0
        yield units.FIRST_COMMAND + self._bus.latency
        while (command := self._program[at]).op is not Op.END:
            wanted = {unit for unit in Unit if command.wait >> unit & 1}
            if (unit := UNIT_OF.get(command.op)) is not None:
                wanted.add(unit)
            while wanted & self._running.keys():
                yield Timeline.PARK
            if unit is not None:
                now = Chunk(position + done, min(chunk, tokens - done))
                self._running[unit] = Running()
                self._time.start(self._work(unit, command, now))
            elif done + chunk < tokens:
                done, at = done + chunk, -1
                yield units.FIRST_COMMAND + self._bus.latency
            at += 1
            yield units.COMMAND
        while self._running:
            yield Timeline.PARK

    def _work(self, unit: Unit, command: Command, now: Chunk) -> Iterator[float]:
        began = self._time.now
        yield from self._execute[command.op](command, now)
        self.counts.add(unit.name.lower(), self._time.now - began)
        self._running.pop(unit).over = True
        self._time.wake()

    # ------------------------------------------------------------ units

    def _fetch(self, command: Command, now: Chunk) -> Iterator[float]:
        ring = self._time.ring
        self.counts.read_bytes += command["beats"] * self._config.beat_bytes
        ring.asked += command["words"]
        ring.begins = self._time.now + self._time.first_beat()
        while ring.arrived < ring.asked - 1e-6:
            yield max(1.0, (ring.asked - ring.arrived) / 4)
        yield 2.0

    def _load(self, command: Command, now: Chunk) -> Iterator[float]:
        c = self._config
        if command["dest"] == Dest.SCALE:
            # It trickles in at the pace of the head, which is what is waited for.
            self.counts.read_bytes += 4 * command["count"]
            yield self._time.first_beat()
            return
        rows = now.tokens if command["dest"] in (Dest.RESIDUAL, Dest.ROPE) else 1
        beats = -(-4 * c.lanes * command["ew"] // c.bus_bytes)
        size = rows * beats * c.bus_bytes
        self.counts.read_bytes += size
        yield self._time.first_beat()
        pace = min(self._bus.share(1), 4 * c.lanes, self._bus.every_port)
        yield from self._time.transfer(Flow(pace, pace), size / pace)
        yield 2.0 * rows

    def _norm_quant(self, command: Command, now: Chunk) -> Iterator[float]:
        head, made = bool(command["head"]), self._followed(Unit.LINEAR, command)
        cost = row_cycles(self._config, command["ew"], bool(command["norm"]), head)
        done = self._time.now
        for row in range(1 if head else now.tokens):
            yield from made.wait(row + 1)
            done = max(done + (cost.period if row else 0), self._time.now + cost.first)
            self._finish(Unit.VECTOR, 1, done)
        yield done - self._time.now

    def _followed(self, unit: Unit, command: Command) -> Running:
        """The command in progress in `unit`, where this one follows it."""
        return self._made_by(unit) if command["follow"] else Running(over=True)

    def _made_by(self, unit: Unit) -> Running:
        """The command in progress in `unit`; none is as good as over."""
        return self._running.get(unit, Running(over=True))

    def _finish(self, unit: Unit, rows: int, when: float) -> None:
        """Let the command in progress have finished more rows, later."""
        running, time = self._running[unit], self._time

        def finish() -> Iterator[float]:
            yield when - time.now
            running.rows += rows
            time.wake()

        time.start(finish())

    def _kv_quant(self, command: Command, now: Chunk) -> Iterator[float]:
        heads, time = command["kv_heads"], self._time
        cycles = kv_quant_cycles(
            self._config,
            command["heads_per_kv"],
            heads,
            command["head_ew"],
            now.tokens,
            command["record_bytes"],
        )
        for head in range(heads):
            written = time.now + cycles * (head + 1) / heads + self._bus.written
            self._finish(Unit.VECTOR, 1, written)
        size = now.tokens * heads * command["record_bytes"]
        self.counts.write_bytes += size
        yield from time.transfer(Flow(size / cycles, 0.0), cycles)
        yield self._bus.written

    def _attention(self, command: Command, now: Chunk) -> Iterator[float]:
        c, heads, size = self._config, command["kv_heads"], command["record_bytes"]
        given = command["heads_per_kv"], heads, command["head_dims"]
        cycles, positions = _attention_cycles(c, *given, now.position, now.tokens)
        newest = (now.position + now.tokens - 1) % KV_BLOCK + 1
        # The way of the last item through the unit.
        last = min(now.position + now.tokens, KV_BLOCK)
        item, _ = _attention_cycles(c, 1, 1, command["head_dims"], last - 1, 1)
        record = max(
            size / self._bus.every_port,
            units.unpack(c, command["head_dims"], KvFormat(command["format"]), size) / c.ports,
        )
        self.counts.read_bytes += positions * size
        done = self._made_by(Unit.VECTOR)
        # Items wait for the first block; or the last item waits for the last record.
        pace = max(cycles - item + newest * record, positions * record) / heads
        flow = Flow(positions * size / (heads * pace), positions * size / (heads * pace) / c.ports)
        for head in range(heads):
            yield from done.wait(head + 1)
            if head == 0:
                yield self._time.first_beat()
            yield from self._time.transfer(flow, pace)
        yield item

    def _linear(self, command: Command, now: Chunk) -> Iterator[float]:
        c, time, ring = self._config, self._time, self._time.ring
        tokens = c.head_digits if command["single"] else now.tokens
        head, made = command["mode"] == Mode.HEAD, self._followed(Unit.VECTOR, command)
        flow = self._head_flow(command) if head else Flow(0.0, 0.0)
        self._bus.begin(flow)
        yield units.linear_begin(c, min(tokens, c.tokens))
        drained = [time.now, time.now]
        k_tiles, tiles = command["k_tiles"], command["tiles"]
        for tile in range(tiles):
            words = command["last_words"] if tile == tiles - 1 else command["tile_words"]
            consumed = ring.free_limit + k_tiles * words
            for first in range(0, tokens, c.tokens):
                lanes = min(c.tokens, tokens - first)
                if tile == 0:
                    yield from made.wait(first + lanes)
                if (late := drained[-2] - time.now) > 0:
                    yield late
                nominal = k_tiles * units.k_tile(c, words, lanes)
                if first + c.tokens >= tokens:
                    ring.free_limit, ring.freeing = consumed, k_tiles * words / nominal
                yield nominal
                if first == 0 and ring.arrived < consumed - 1e-6:
                    began = time.now
                    time.target = consumed
                    yield Timeline.WORDS
                    self.counts.add("weight_wait", time.now - began)
                over = max(time.now + units.LINEAR_PIPELINE, drained[-1])
                drained.append(over + units.drain(c, words, lanes, head))
                if tile == tiles - 1:
                    self._finish(Unit.LINEAR, lanes, drained[-1] + units.EPILOGUE)
        yield drained[-1] - time.now + units.EPILOGUE
        self._bus.end(flow)

    def _head_flow(self, command: Command) -> Flow:
        """Scales in and logits out of an LM head, 4 bytes of each an entry, spread over it."""
        c = self._config
        entries = command["out_rows"] / command["planes"]
        words = (command["tiles"] - 1) * command["tile_words"] + command["last_words"]
        weights = words * command["k_tiles"] * c.word_trits / 5
        cycles = max(
            weights / self._bus.every_port,
            command["k_tiles"] * words * units.k_tile(c, command["tile_words"], 1)
            / command["tile_words"],
        )  # fmt: skip
        self.counts.write_bytes += 4 * entries
        return Flow(8 * entries / cycles, 4 * entries / cycles)
