"""Fence: exactly the bursts inside the window pass, with the right bus address."""

from __future__ import annotations

from amaranth import Cat, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import data
from amaranth.utils import exact_log2

from terntable.hw.axi.bus import ADDRESS_BITS, PAGE_BYTES
from terntable.hw.axi.fence import Fence, access_layout, request_layout

from .contract import sink, source
from .marked import Marked
from .planted import Bug
from .proof import Proof, Suite

SOURCES = 3


def allowed(address: Value, beats: Value, bus_bytes: int, lower: Value, limit: Value) -> Value:
    """What the fence is for, in numbers that do not overflow."""
    end = address + beats * bus_bytes
    aligned = (address & (bus_bytes - 1)) == 0
    return aligned & (address >= lower) & (end <= limit)


def bench(b, block, bus_bits):
    m = b.m
    m.submodules.dut = dut = block(bus_bits, SOURCES)
    bus_bytes = bus_bits // 8
    source(b, dut.i)
    sink(b, dut.o)
    b.independent(dut.i.ready, of=dut.i.valid)
    taken, given = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    count = Signal(range(5))
    m.d.sync += count.eq(count + taken - given)
    marked = Marked(b, enter=taken, value=dut.i.payload, leave=given, count=count, most=3)

    # The window is steady while bursts are inside.
    window = Cat(dut.base, dut.lower, dut.limit)
    m.d.comb += [
        dut.base.eq(b.free(ADDRESS_BITS, "base")),
        dut.lower.eq(b.free(32, "lower")),
        dut.limit.eq(b.free(32, "limit")),
    ]
    with m.If(b.before((count != 0) | taken)):
        m.d.comb += Assume(window == b.before(window))

    request = data.View(request_layout(SOURCES), marked.value)
    ok = allowed(request.address, request.beats, bus_bytes, dut.lower, dut.limit)
    ok &= dut.base % PAGE_BYTES == 0
    addr = (dut.base + request.address)[:ADDRESS_BITS]
    with m.If(marked.first & given):
        m.d.comb += [
            Assert(dut.o.payload.ok == ok),
            Assert(dut.o.payload.addr == addr),
            Assert(dut.o.payload.address == request.address),
            Assert(dut.o.payload.beats == request.beats),
            Assert(dut.o.payload.source == request.source),
        ]
    # Room is offered unless all three stages are taken, and a burst shows after three cycles.
    with m.If(~dut.i.ready):
        m.d.comb += Assert((count == 3) & ~dut.o.ready)
    lately = b.before(b.before(b.before(marked.entered)))
    with m.If(lately & marked.first):
        m.d.comb += Assert(dut.o.valid)

    # For the induction: what the stages hold of the marked burst.
    valid = b.probe("dut.valid", 3)
    first = b.probe("dut.request", len(request.as_value()))
    second = data.View(access_layout(SOURCES), b.probe("dut.access", access_layout(SOURCES).size))
    end, low = b.probe("dut.end", 33), b.probe("dut.low", 1)
    m.d.comb += b.invariant(count == valid[0] + valid[1] + valid[2])
    after = [valid[1] + valid[2], valid[2], 0]  # bursts ahead of each stage
    stage = [marked.inside & valid[n] & (marked.ahead == after[n]) for n in range(3)]
    with m.If(marked.inside):
        m.d.comb += b.invariant(Cat(stage).any())
    with m.If(stage[0]):
        m.d.comb += b.invariant(first == marked.value)
    with m.If(stage[1]):
        unaligned = request.address[: exact_log2(bus_bytes)].any()
        m.d.comb += [
            b.invariant(end == request.address + request.beats * bus_bytes),
            b.invariant(low == ((request.address < dut.lower) | unaligned | dut.base[:12].any())),
        ]
    for n, access in ((1, second), (2, dut.o.payload)):
        with m.If(stage[n]):
            m.d.comb += [
                b.invariant(access.addr == addr),
                b.invariant(access.address == request.address),
                b.invariant(access.beats == request.beats),
                b.invariant(access.source == request.source),
            ]
    with m.If(stage[2]):
        m.d.comb += b.invariant(dut.o.payload.ok == ok)
    m.d.comb += Cover(marked.first & given & ok & (count == 3))
    m.d.comb += Cover(marked.first & given & ~ok & Mux(request.address < dut.lower, 0, 1))


PROOFS = [Proof(Fence, bench, (bus_bits,), 4) for bus_bits in (8, 16, 256)]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[1], 8),
    bugs=[
        (PROOFS[1], bug)
        for bug in (
            Bug(
                "end in 32 bits",
                "request.address + (request.beats << shift)",
                "(request.address + (request.beats << shift))[:32]",
            ),
            Bug("one byte past the limit", "end <= self.limit", "end <= self.limit + 1"),
            Bug("below the window", "(request.address < self.lower)", "(request.address < 0)"),
            Bug("odd addresses", "request.address[:shift].any()", "0"),
            Bug("base within a page", "page_offset.any()", "0"),
            Bug(
                "a stage overtaken", "~valid[stage] | ready[stage + 1]", "~valid[stage] | ready[3]"
            ),
            Bug("changes under the reader", "with m.If(ready[2]):", "with m.If(1):"),
        )
    ],
)
