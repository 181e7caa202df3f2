"""ReadPort: only lawful bursts inside the image reach the bus, and every beat reaches its owner."""

from __future__ import annotations

from amaranth import Cat, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import data

from terntable.hw.axi.read_port import ReadPort
from terntable.hw.regs import Error
from terntable.sim.formal import Bench

from .bus_slave import read_memory
from .fifos import sync_fifo
from .marked import Marked
from .port_fence import BITS, UNITS, PortFence


def bench(block):
    b = Bench()
    m = b.m
    m.submodules.dut = dut = block(BITS, UNITS)
    most = block.OUTSTANDING
    owed = read_memory(b, dut, most)
    fence = PortFence(b, dut, address=dut.ar, error=Error.READ_FENCE, writes=False)
    go, draining = fence.go, fence.draining
    fills = [dut.fill0, dut.fill1]

    # Beats pass through one register.
    beat = b.before(dut.r.valid & dut.r.ready)
    payload = data.View(dut.r.payload.shape(), b.before(dut.r.payload))
    ends = beat & payload.last
    bad = payload.resp[1]
    count = Signal(range(most + 2))  # bursts offered, their last beat not handed on
    m.d.sync += count.eq(count + go - ends)
    owner = data.StructLayout({"source": range(2), "address": 32})
    marked = Marked(
        b, enter=go, value=Cat(fence.access.source, fence.access.address), leave=ends,
        count=count, most=most,
    )  # fmt: skip
    burst = data.View(owner, marked.value)

    # Every beat is taken, and what is outstanding is bounded.
    m.d.comb += [
        Assert(dut.r.ready),
        Assert(dut.beat == beat),
        Assert(owed + dut.ar.valid + ends == count),
        Assert(count <= most),
        Assert(dut.idle == (count == 0)),
    ]

    # After a flush all beats are dropped until nothing is outstanding; after a bad beat, all
    # beats until a flush.
    doomed, broken = Signal(), Signal()
    m.d.comb += Assert(draining == doomed)
    with m.If(count == 0):
        m.d.sync += doomed.eq(0)
    with m.If(beat & bad & ~doomed):
        m.d.sync += broken.eq(1)
    with m.If(dut.flush):
        m.d.sync += [doomed.eq(1), broken.eq(0)]
    m.d.comb += Assert(b.probe("dut.broken", 1) == broken)

    # A beat goes to the channel that asked for it, and nowhere else.
    live = beat & ~doomed & ~broken
    m.d.comb += Assert(fills[0].valid + fills[1].valid == (live & ~bad))
    with m.If(marked.first & live & ~bad):
        m.d.comb += Assert(
            Cat(fills[0].valid, fills[1].valid).bit_select(burst.source, 1)
        )
    for fill in fills:
        with m.If(fill.valid):
            m.d.comb += Assert(fill.payload == payload.data)

    # A bad beat is reported, and no other is called bad.
    reported = dut.error.valid & (dut.error.code == Error.READ_RESPONSE)
    m.d.comb += Assert(reported == (live & bad))
    with m.If(reported & marked.first):
        m.d.comb += [
            Assert(dut.error.address == burst.address),
            Assert(dut.error.unit == UNITS[0] + (UNITS[1] - UNITS[0]) * burst.source),
        ]
    with m.If(dut.error.valid):
        m.d.comb += Assert(reported | (dut.error.code == Error.READ_FENCE))

    sync_fifo(b, "dut.owners", most, owner.size, count, marked)
    m.d.comb += Assert(b.probe("dut.valid", 1) == beat)
    m.d.comb += [
        Cover(marked.first & ends & ~doomed & ~broken & (count == most)),
        Cover(b.before(doomed) & ~doomed & b.before(b.before(ends))),
        Cover(reported & ~b.before(beat)),
        Cover(fence.marked.first & dut.error.valid & (dut.error.code == Error.READ_FENCE)),
    ]
    return b
