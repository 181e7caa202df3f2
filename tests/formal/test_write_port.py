"""WritePort: lawful bursts inside the window, each with exactly its beats, each answered once."""

from __future__ import annotations

from amaranth import Array, Cat, Mux, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import data

from terntable.hw.axi.write_port import WritePort
from terntable.hw.regs import Error
from terntable.sim.formal import Bench

from .bus_slave import write_memory
from .contract import source
from .fifos import sync_fifo
from .marked import Marked
from .port_fence import BITS, UNITS, PortFence

STROBES = BITS // 8


def bench(block):
    b = Bench()
    m = b.m
    m.submodules.dut = dut = block(BITS, UNITS)
    most = block.OUTSTANDING
    addresses, lasts = write_memory(b, dut, most)
    fence = PortFence(b, dut, address=dut.aw, error=Error.WRITE_FENCE, writes=True)
    go, draining, access = fence.go, fence.draining, fence.access
    words = [dut.word0, dut.word1]
    for word in words:
        source(b, word, drop=dut.flush)
    handed = [word.valid & word.ready for word in words]

    # Answers pass through one register.
    answer = b.before(dut.b.valid & dut.b.ready)
    bad = b.before(dut.b.payload.resp[1])
    count = Signal(range(most + 2))  # bursts offered and not answered
    m.d.sync += count.eq(count + go - answer)
    owner = data.StructLayout({"source": range(2), "address": 32})
    asking = Marked(
        b, enter=go, value=Cat(access.source, access.address), leave=answer,
        count=count, most=most,
    )  # fmt: skip

    # Beats: `move` loads the register that W is offered from.
    move = b.probe("dut.move", 1)
    fresh = Signal()
    last = dut.w.payload.last
    m.d.comb += [
        fresh.eq(dut.w.valid & ~b.before(dut.w.valid & ~dut.w.ready)),
        Assert(fresh == b.before(move)),
    ]
    owed = Signal(range(most + 2))  # bursts offered, their last beat not
    ending = b.probe("dut.owed.r_en", 1)  # this cycle's move is a burst's last
    m.d.sync += owed.eq(owed + go - ending)
    work = data.StructLayout({"source": range(2), "len": 8})
    moving = Marked(
        b, enter=go, value=Cat(access.source, (access.beats - 1)[:8]), leave=ending,
        count=owed, most=most,
    )  # fmt: skip
    burst = data.View(work, moving.value)

    # A marked burst has exactly its beats: the last one and no other is called last.
    moved = Signal(9)
    with m.If(moving.first & move):
        m.d.sync += moved.eq(moved + 1)
    with m.If(~moving.inside):
        m.d.sync += moved.eq(0)
    with m.If(b.before(moving.first & move)):
        m.d.comb += Assert(last == b.before(moved == burst.len))
    m.d.comb += Assert(~move | (owed != 0))

    # Its words come from the channel that asked for it, each once; after a flush they come from
    # nowhere, and do not wait: their strobes are zero.
    doomed = Signal()
    with m.If(count == 0):
        m.d.sync += doomed.eq(0)
    with m.If(dut.flush):
        m.d.sync += doomed.eq(1)
    m.d.comb += [
        Assert(draining == doomed),
        Assert(handed[0] + handed[1] == (move & ~doomed)),
    ]
    with m.If(moving.first & move & ~doomed):
        m.d.comb += Assert(Cat(handed).bit_select(burst.source, 1))
    payload = Cat(dut.w.payload.data, dut.w.payload.strb)
    for word, hand in zip(words, handed, strict=True):
        with m.If(b.before(hand)):
            m.d.comb += Assert(payload == b.before(word.payload))
    with m.If(b.before(move & doomed)):
        m.d.comb += Assert(dut.w.payload.strb == 0)
    free = ~dut.w.valid | dut.w.ready
    with m.If((owed != 0) & free & doomed):
        m.d.comb += Assert(move)
    with m.If(moving.first & free & Array(w.valid for w in words)[burst.source]):
        m.d.comb += Assert(move)

    # Every answer is taken. A good one is told to its channel, a bad one is reported.
    told = [dut.answered0, dut.answered1]
    live = answer & ~doomed
    reported = dut.error.valid & (dut.error.code == Error.WRITE_RESPONSE)
    unit = Array(UNITS)[data.View(owner, asking.value).source]
    m.d.comb += [
        Assert(dut.b.ready),
        Assert(told[0] + told[1] == (live & ~bad)),
        Assert(reported == (live & bad)),
        Assert(count <= most),
        Assert(dut.idle == (count == 0)),
        Assert(dut.beat == (dut.w.valid & dut.w.ready)),
    ]
    with m.If(asking.first & live):
        m.d.comb += Assert(bad | Cat(told).bit_select(data.View(owner, asking.value).source, 1))
    with m.If(asking.first & reported):
        m.d.comb += [
            Assert(dut.error.address == data.View(owner, asking.value).address),
            Assert(dut.error.unit == unit),
        ]
    with m.If(dut.error.valid):
        m.d.comb += Assert(reported | (dut.error.code == Error.WRITE_FENCE))

    # For the induction.
    sync_fifo(b, "dut.owners", most, owner.size, count, asking)
    sync_fifo(b, "dut.owed", most, work.size, owed, moving)
    m.d.comb += [
        Assert(b.probe("dut.answered", 1) == answer),
        Assert(addresses + dut.aw.valid + answer == count),
        Assert(owed + (dut.w.valid & last) + lasts + answer == count),
    ]
    sent = b.probe("dut.sent", 8)
    m.d.comb += Assert((owed != 0) | (sent == 0))
    with m.If(moving.inside):
        m.d.comb += Assert(moved == Mux(moving.first, sent, 0))
        m.d.comb += Assert(moved <= burst.len)
    m.d.comb += [
        Cover(b.before(moving.first & ending & ~doomed) & (moved == 3) & (count == most)),
        Cover(b.before(doomed) & ~doomed & b.before(b.before(answer))),
        Cover(reported),
        Cover(fence.marked.first & dut.error.valid & (dut.error.code == Error.WRITE_FENCE)),
    ]
    return b
