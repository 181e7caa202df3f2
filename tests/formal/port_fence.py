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

    `marked` is a burst on its way through the fence (a request of the fence), `go` says that the
    oldest one is offered on the bus in the next cycle, `access` is that one.
    """

    def __init__(self, b: Bench, port: Any, *, address: Any, error: Error, writes: bool) -> None:
        m = b.m
        bursts = [port.burst0, port.burst1]
        for burst in bursts:
            # A flush resets the channels too.
            source(b, burst, drop=port.flush)
            with m.If(burst.valid):
                m.d.comb += Assume(lawful(burst.payload, BITS, BURST_BEATS))
            b.independent(burst.ready, of=burst.payload.beats)
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
        self.draining = draining = b.probe("dut.draining", 1)
        count = Signal(range(5))
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
            b, enter=Cat(taken).any(), value=request, leave=go, count=count, most=3,
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
        self.fresh = Signal(name="fresh")
        m.d.comb += [
            self.fresh.eq(address.valid & ~b.before(address.valid & ~address.ready)),
            Assert(self.fresh == b.before(go)),
        ]
        with m.If(address.valid):
            m.d.comb += Assert(window.holds(address.payload))
        with m.If(b.before(marked.first & go)):
            m.d.comb += [
                Assert(address.payload.addr == (window.base + burst.address)[:ADDRESS_BITS]),
                Assert(address.payload.len == burst.beats - 1),
            ]
        # Nothing starts in an error, in a flush, or before all that was flushed has ended.
        m.d.comb += Assert(~(go & (port.halt | port.flush | draining)))
        # A burst outside is reported, and nothing else is called outside.
        outside = port.error.valid & (port.error.code == error)
        stopped = port.halt | port.flush | draining
        f_valid = b.probe("dut.fence.valid", 3)
        with m.If(marked.first):
            with m.If(outside):
                m.d.comb += [
                    Assert(~window.allows(burst)),
                    Assert(port.error.address == burst.address),
                    Assert(port.error.unit == self.unit),
                ]
            with m.If(~window.allows(burst)):
                m.d.comb += Assert(~go)
                with m.If(f_valid[2] & ~stopped):
                    m.d.comb += Assert(port.error.valid)
        m.d.comb += Assert(~outside | (count != 0))

        # For the induction: what the fence's stages hold.
        m.d.comb += Assert(count == f_valid[0] + f_valid[1] + f_valid[2])
        request0 = data.View(layout, b.probe("dut.fence.request", layout.size))
        access_bits = access_layout(len(bursts))
        access1 = data.View(access_bits, b.probe("dut.fence.access", access_bits.size))
        self.access = access2 = data.View(
            access_bits, b.probe("dut.fence.o__payload", access_bits.size)
        )
        with m.If(f_valid[0]):
            m.d.comb += Assert(lawful(request0, BITS, BURST_BEATS))
        with m.If(f_valid[1]):
            m.d.comb += [
                Assert(lawful(access1, BITS, BURST_BEATS)),
                Assert(access1.addr == (window.base + access1.address)[:ADDRESS_BITS]),
                Assert(b.probe("dut.fence.end", 33) == access1.address + access1.beats * BYTES),
                Assert(
                    b.probe("dut.fence.low", 1)
                    == (
                        (access1.address < window.lower)
                        | (access1.address % BYTES != 0)
                        | (window.base % PAGE_BYTES != 0)
                    )
                ),
            ]
        with m.If(f_valid[2]):
            m.d.comb += [
                Assert(lawful(access2, BITS, BURST_BEATS)),
                Assert(access2.addr == (window.base + access2.address)[:ADDRESS_BITS]),
                Assert(access2.ok == window.allows(access2)),
            ]
        after = [f_valid[1] + f_valid[2], f_valid[2], 0]
        stage = [marked.inside & f_valid[n] & (marked.ahead == after[n]) for n in range(3)]
        with m.If(marked.inside):
            m.d.comb += Assert(Cat(stage).any())
        for n, held in enumerate((request0, access1, access2)):
            with m.If(stage[n]):
                m.d.comb += Assert(
                    (held.address == burst.address)
                    & (held.beats == burst.beats)
                    & (held.source == burst.source)
                )
