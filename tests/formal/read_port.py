"""ReadPort: only lawful bursts inside the image reach the bus, and every beat reaches its owner."""

from __future__ import annotations

from amaranth import Array, Cat, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import data

from terntable.hw.axi.read_port import ReadPort
from terntable.hw.regs import Error

from .fifo_invariants import sync_fifo
from .marked import Marked
from .memory import read_memory
from .planted import Bug
from .port_fence import BITS, UNITS, PortFence
from .proof import Proof, Suite


def bench(b, block, outstanding):
    m = b.m
    block = type(block.__name__, (block,), {"OUTSTANDING": outstanding})
    m.submodules.dut = dut = block(BITS, UNITS)
    most = outstanding
    owed = read_memory(b, dut, most)
    fence = PortFence(b, dut, address=dut.ar, error=Error.READ_FENCE, writes=False)
    go, doomed = fence.go, fence.doomed
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
        b, enter=go & fence.marked.first, value=Cat(fence.burst.source, fence.burst.address),
        leave=ends, count=count, most=most,
    )  # fmt: skip
    burst = data.View(owner, marked.value)

    # Every beat is taken, and what is outstanding is bounded.
    m.d.comb += [
        Assert(dut.r.ready),
        Assert(dut.beat == beat),
        Assert(owed + dut.ar.valid <= most),
        Assert(dut.idle == (count == 0)),
    ]

    # After a bad beat all beats are dropped until a flush.
    broken = Signal()
    with m.If(beat & bad & ~doomed):
        m.d.sync += broken.eq(1)
    with m.If(dut.flush):
        m.d.sync += broken.eq(0)

    # A beat goes to the channel that asked for it, and nowhere else.
    live = beat & ~doomed & ~broken
    m.d.comb += Assert(fills[0].valid + fills[1].valid == (live & ~bad))
    with m.If(marked.first & live & ~bad):
        m.d.comb += Assert(Cat(fills[0].valid, fills[1].valid).bit_select(burst.source, 1))
    for fill in fills:
        with m.If(fill.valid):
            m.d.comb += Assert(fill.payload == payload.data)

    # A bad beat is reported, and no other is called bad.
    reported = dut.error.valid & (dut.error.code == Error.READ_RESPONSE)
    m.d.comb += Assert(reported == (live & bad))
    unit = Array(UNITS)[burst.source]
    with m.If(reported & marked.first):
        m.d.comb += [Assert(dut.error.address == burst.address), Assert(dut.error.unit == unit)]
    # The oldest burst is the one that is said to be waited for.
    m.d.comb += Assert(dut.waiting.valid == (count != 0))
    with m.If(marked.first):
        m.d.comb += [Assert(dut.waiting.address == burst.address), Assert(dut.waiting.unit == unit)]
    with m.If(dut.error.valid):
        m.d.comb += Assert(reported | (dut.error.code == Error.READ_FENCE))

    sync_fifo(b, "dut.owners", most, owner.size, count, marked)
    m.d.comb += [
        b.invariant(b.probe("dut.valid", 1) == beat),
        b.invariant(b.probe("dut.broken", 1) == broken),
        b.invariant(owed + dut.ar.valid + ends == count),
    ]
    m.d.comb += [
        Cover(marked.first & ends & ~doomed & ~broken & (count == most)),
        Cover(b.before(doomed) & ~doomed & b.before(b.before(ends))),
        Cover(reported & ~b.before(beat)),
        Cover(fence.marked.first & dut.error.valid & (dut.error.code == Error.READ_FENCE)),
    ]


PROOFS = [Proof(ReadPort, bench, (outstanding,), 3) for outstanding in (2, 16)]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[0], 16),
    bugs=[
        (PROOFS[0], bug)
        for bug in (
            Bug("fence ignored", "                & access.ok\n", ""),
            Bug("starts in an error", "draining | self.flush | self.halt", "draining | self.flush"),
            Bug(
                "address changes while it waits",
                "                & (~self.ar.valid | self.ar.ready)\n",
                "",
            ),
            Bug("more outstanding than allowed", "                & owners.w_rdy\n", ""),
            Bug(
                "length is beats",
                "self.ar.payload.len.eq(access.beats - 1)",
                "self.ar.payload.len.eq(access.beats)",
            ),
            Bug(
                "data after a flush", "live = valid & ~draining & ~broken", "live = valid & ~broken"
            ),
            Bug(
                "data after a bad beat",
                "live = valid & ~draining & ~broken",
                "live = valid & ~draining",
            ),
            Bug(
                "owner leaves a beat early",
                "owners.r_en.eq(valid & beat.last)",
                "owners.r_en.eq(self.r.valid & self.r.payload.last)",
            ),
            Bug("flush ends too early", "with m.Elif(self.idle):", "with m.Else():"),
            Bug("EXOKAY is an error", "bad = beat.resp[1]", "bad = beat.resp[0]"),
            Bug(
                "wrong requester reported",
                "units[owner.source], owner.address",
                "units[access.source], owner.address",
            ),
        )
    ],
)
