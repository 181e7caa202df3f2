"""What blocks owe one another: streams, and the bursts that channels hand to ports.

Each is an assumption about one block's inputs and a property of another's outputs.
"""

from __future__ import annotations

from typing import Any

from amaranth import C, Signal, Value
from amaranth.hdl import Assert, Assume

from terntable.hw.axi.bus import PAGE_BYTES
from terntable.sim.formal import Bench


def source(bench: Bench, stream: Any, drop: Any = 0, words: Any = None) -> None:
    """Any words at any time, or those of `words`, as a stream's contract allows: valid and payload
    are held until ready. An offer may be withdrawn in the cycle after `drop`."""
    m = bench.m
    payload = Value.cast(stream.payload)
    if words is None:
        words = bench.free(len(payload), "payload")
    m.d.comb += [stream.valid.eq(bench.free(1, "valid")), payload.eq(words)]
    held, was = _held(bench, stream, drop)
    with m.If(held):
        m.d.comb += Assume(stream.valid & (payload == was))


def sink(bench: Bench, stream: Any, drop: Any = 0) -> None:
    """Ready at any time. Valid and payload must be held until then, except after `drop`; valid
    must not depend on ready in the same cycle."""
    m = bench.m
    m.d.comb += stream.ready.eq(bench.free(1, "ready"))
    held_until_ready(bench, stream, drop, src_loc_at=1)
    bench.independent(stream.valid, of=stream.ready)


def held_until_ready(bench: Bench, stream: Any, drop: Any = 0, src_loc_at: int = 0) -> None:
    """Valid and payload must be held until ready, except after `drop`."""
    m = bench.m
    held, was = _held(bench, stream, drop)
    with m.If(held):
        m.d.comb += Assert(
            stream.valid & (Value.cast(stream.payload) == was), src_loc_at=1 + src_loc_at
        )


def _held(bench: Bench, stream: Any, drop: Any) -> tuple[Signal, Value]:
    drop = drop if isinstance(drop, Value) else C(drop, 1)
    return (
        bench.before(stream.valid & ~stream.ready & ~drop),
        bench.before(stream.payload),
    )


def lawful(burst: Any, bus_bits: int, burst_beats: int) -> Value:
    """A burst that AXI allows at an aligned address: its length, and within one page. The fence
    refuses the others."""
    bus_bytes = bus_bits // 8
    aligned = burst.address % bus_bytes == 0
    within = burst.address % PAGE_BYTES + burst.beats * bus_bytes <= PAGE_BYTES
    return (burst.beats != 0) & (burst.beats <= burst_beats) & (within | ~aligned)
