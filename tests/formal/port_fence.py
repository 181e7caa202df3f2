"""A port's way from its channels to the bus: arbitration and the fence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth import Array, C, Cat, Mux, Signal, Value
from amaranth.hdl import Assert, Assume
from amaranth.lib import data

from terntable.hw.axi.bus import ADDRESS_BITS, PAGE_BYTES
from terntable.hw.axi.fence import access_layout, request_layout
from terntable.hw.regs import Error
from terntable.sim.formal import Bench

from .contract import lawful, source
from .marked import Marked

BITS = 16
BYTES = BITS // 8
BURST_BEATS = 4
FIRST = 2
"""Of the stages of a burst, the fence's first; the others are the register slice's."""
UNITS = (7, 9)
"""Requesters of the port's two channels."""


@dataclass
class Window:
    """The image: constants of a proof."""

    base: Signal
    lower: Value
    limit: Signal

    def allows(self, burst: Any) -> Value:
        """Whether a burst may reach the bus."""
        end = burst.address + burst.beats * BYTES
        aligned = (burst.address % BYTES == 0) & (self.base % PAGE_BYTES == 0)
        return aligned & (burst.address >= self.lower) & (end <= self.limit)

    def holds(self, address: Any) -> Value:
        """Whether an address that is offered on the bus lies in the window with all its beats,
        and in one page."""
        offset = (address.addr - self.base)[:ADDRESS_BITS]
        size = (address.len + 1) * BYTES
        return (
            (address.addr % BYTES == 0)
            & (offset >= self.lower)
            & (offset + size <= self.limit)
            & (address.addr % PAGE_BYTES + size <= PAGE_BYTES)
            & (address.len < BURST_BEATS)
        )


class PortFence:
    """Drives a port's bursts, window, `flush` and `halt`, and checks what becomes of a burst.

    `marked` is a burst on its way through the fence and `burst` its content, `unit` its requester;
    `go` says that the oldest one is offered on the bus in the next cycle. `doomed` is high while
    what was flushed is outstanding.
    """

    def __init__(self, b: Bench, port: Any, *, address: Any, error: Error, writes: bool) -> None:
        m = b.m
        bursts = [port.burst0, port.burst1]
        for burst in bursts:
            # A flush resets the channels too.
            source(b, burst, drop=port.flush)
            with m.If(burst.valid):
                m.d.comb += Assume(lawful(burst.payload, BITS, BURST_BEATS))
        self.window = window = Window(
            b.constant(ADDRESS_BITS, "base"),
            b.constant(32, "lower") if writes else C(0, 32),
            b.constant(32, "limit"),
        )
        m.d.comb += [
            port.base.eq(window.base),
            port.limit.eq(window.limit),
            port.flush.eq(b.free(1, "flush")),
            port.halt.eq(b.free(1, "halt")),
        ]
        if writes:
            m.d.comb += port.lower.eq(window.lower)

        taken = [burst.valid & burst.ready for burst in bursts]
        self.go = go = b.probe("dut.go", 1)
        # After a flush all is dropped until nothing is outstanding.
        self.doomed = doomed = Signal(name="doomed")
        with m.If(port.idle):
            m.d.sync += doomed.eq(0)
        with m.If(port.flush):
            m.d.sync += doomed.eq(1)
        count = Signal(range(7))
        m.d.sync += count.eq(count + taken[0] + taken[1] - go)
        with m.If(port.flush):
            m.d.sync += count.eq(0)
        layout = request_layout(len(bursts))
        request = Signal(layout)
        m.d.comb += [
            request.address.eq(Mux(taken[1], bursts[1].payload.address, bursts[0].payload.address)),
            request.beats.eq(Mux(taken[1], bursts[1].payload.beats, bursts[0].payload.beats)),
            request.source.eq(taken[1]),
        ]
        self.marked = marked = Marked(
            b, enter=Cat(taken).any(), value=request, leave=go, count=count, most=5,
            drop=port.flush,
        )  # fmt: skip
        self.burst = burst = data.View(layout, marked.value)
        self.unit = Array(C(u, 8) for u in UNITS)[burst.source]

        # One channel at a time, the first before the second; none while all is dropped.
        m.d.comb += [
            Assert(~(taken[0] & taken[1])),
            Assert(~(taken[1] & bursts[0].valid)),
            Assert(~(port.flush & Cat(taken).any())),
        ]
        # What is offered on the bus comes from the fence, in order, and lies in the window.
        fresh = address.valid & ~b.before(address.valid & ~address.ready)
        m.d.comb += Assert(fresh == b.before(go))
        with m.If(address.valid):
            m.d.comb += Assert(window.holds(address.payload))
        with m.If(b.before(marked.first & go)):
            m.d.comb += [
                Assert(address.payload.addr == (window.base + burst.address)[:ADDRESS_BITS]),
                Assert(address.payload.len == burst.beats - 1),
            ]
        # Nothing starts in an error, in a flush, or before all that was flushed has ended.
        stopped = port.halt | port.flush | doomed
        m.d.comb += Assert(~(go & stopped))
        # A burst outside is reported, and nothing else is called outside.
        outside = port.error.valid & (port.error.code == error)
        m.d.comb += Assert(~outside | (count != 0))
        due = b.before(marked.first)
        due = marked.first & due & b.before(due) & b.before(b.before(due))
        with m.If(marked.first & outside):
            m.d.comb += [
                Assert(~window.allows(burst)),
                Assert(port.error.address == burst.address),
                Assert(port.error.unit == self.unit),
            ]
        with m.If(due & ~window.allows(burst) & ~stopped):
            m.d.comb += [Assert(~go), Assert(port.error.valid)]

        self._invariants(b, count)

    def _invariants(self, b: Bench, count: Value) -> None:
        """What the register slice's words and the fence's stages hold, the newest first."""
        m, window, marked, burst = b.m, self.window, self.marked, self.burst
        sources = len(UNITS)
        in_fence = b.probe("dut.fence.valid", 3)
        kept, chosen = b.probe("dut.chosen.kept", 1), b.probe("dut.chosen.o__valid", 1)
        valid = [kept, chosen, *in_fence]
        end, low = b.probe("dut.fence.end", 33), b.probe("dut.fence.low", 1)
        stages = [
            _stage(b, "dut.chosen.spare", request_layout(sources)),
            _stage(b, "dut.chosen.o__payload", request_layout(sources)),
            _stage(b, "dut.fence.request", request_layout(sources)),
            _stage(b, "dut.fence.access", access_layout(sources)),
            _stage(b, "dut.fence.o__payload", access_layout(sources)),
        ]
        m.d.comb += [b.invariant(count == sum(valid)), b.invariant(~kept | chosen)]
        m.d.comb += b.invariant(b.probe("dut.draining", 1) == self.doomed)
        places = [valid[n] & (marked.ahead == sum(valid[n + 1 :])) for n in range(len(stages))]
        for n, held in enumerate(stages):
            with m.If(valid[n]):
                m.d.comb += b.invariant(lawful(held, BITS, BURST_BEATS))
                if n > FIRST:
                    m.d.comb += b.invariant(
                        held.addr == (window.base + held.address)[:ADDRESS_BITS]
                    )
            with m.If(marked.inside & places[n]):
                m.d.comb += b.invariant(
                    (held.address == burst.address)
                    & (held.beats == burst.beats)
                    & (held.source == burst.source)
                )
        with m.If(marked.inside):
            m.d.comb += b.invariant(Cat(places).any())
        second, third = FIRST + 1, FIRST + 2
        access = stages[second]
        unaligned = (access.address % BYTES != 0) | (window.base % PAGE_BYTES != 0)
        with m.If(valid[second]):
            m.d.comb += [
                b.invariant(end == access.address + access.beats * BYTES),
                b.invariant(low == ((access.address < window.lower) | unaligned)),
            ]
        with m.If(valid[third]):
            m.d.comb += b.invariant(stages[third].ok == window.allows(stages[third]))


def _stage(b: Bench, path: str, layout: data.StructLayout) -> data.View:
    return data.View(layout, b.probe(path, layout.size))
