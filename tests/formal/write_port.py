"""WritePort: lawful bursts inside the window, each with exactly its beats, each answered once."""

from __future__ import annotations

from amaranth import Array, Cat, Mux, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import data

from terntable.hw.axi.write_port import WritePort
from terntable.hw.regs import Error

from .contract import source
from .fifo_invariants import buffered_fifo, sync_fifo
from .marked import Marked
from .memory import write_memory
from .planted import Bug
from .port_fence import BITS, UNITS, PortFence
from .proof import Proof, Suite


def bench(b, block, outstanding):
    m = b.m
    block = type(block.__name__, (block,), {"OUTSTANDING": outstanding})
    m.submodules.dut = dut = block(BITS, UNITS)
    most = outstanding
    addresses, lasts = write_memory(b, dut, most)
    fence = PortFence(b, dut, address=dut.aw, error=Error.WRITE_FENCE, writes=True)
    go, doomed = fence.go, fence.doomed
    started = go & fence.marked.first
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
        b, enter=started, value=Cat(fence.burst.source, fence.burst.address), leave=answer,
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
    m.d.comb += Assert(b.before(ending) == (fresh & last))
    m.d.sync += owed.eq(owed + go - ending)
    work = data.StructLayout({"source": range(2), "len": 8})
    moving = Marked(
        b, enter=started, value=Cat(fence.burst.source, (fence.burst.beats - 1)[:8]), leave=ending,
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
    m.d.comb += Assert(handed[0] + handed[1] == (move & ~doomed))
    with m.If(moving.first & move & ~doomed):
        m.d.comb += Assert(Cat(handed).bit_select(burst.source, 1))
    payload = Cat(dut.w.payload.data, dut.w.payload.strb)
    for word, hand in zip(words, handed, strict=True):
        with m.If(b.before(hand)):
            m.d.comb += Assert(payload == b.before(word.payload))
    with m.If(b.before(move & doomed)):
        m.d.comb += Assert(dut.w.payload.strb == 0)
    free = ~dut.w.valid | dut.w.ready
    # A burst shows behind the queue's register one cycle later at most.
    shows = b.before((owed != 0) & ~ending)
    with m.If((owed != 0) & shows & free & doomed):
        m.d.comb += Assert(move)
    with m.If(moving.first & shows & free & Array(w.valid for w in words)[burst.source]):
        m.d.comb += Assert(move)

    # Every answer is taken. A good one is told to its channel, a bad one is reported.
    told = [dut.answered0, dut.answered1]
    live = answer & ~doomed
    reported = dut.error.valid & (dut.error.code == Error.WRITE_RESPONSE)
    asked = data.View(owner, asking.value)
    unit = Array(UNITS)[asked.source]
    m.d.comb += [
        Assert(dut.b.ready),
        Assert(told[0] + told[1] == (live & ~bad)),
        Assert(reported == (live & bad)),
        Assert(addresses + dut.aw.valid <= most),
        Assert(dut.idle == (count == 0)),
        Assert(dut.beat == (dut.w.valid & dut.w.ready)),
    ]
    with m.If(asking.first & live):
        m.d.comb += Assert(bad | Cat(told).bit_select(asked.source, 1))
    with m.If(asking.first & reported):
        m.d.comb += [Assert(dut.error.address == asked.address), Assert(dut.error.unit == unit)]
    # The oldest burst is the one that is said to be waited for.
    m.d.comb += Assert(dut.waiting.valid == (count != 0))
    with m.If(asking.first):
        m.d.comb += [Assert(dut.waiting.address == asked.address), Assert(dut.waiting.unit == unit)]
    with m.If(dut.error.valid):
        m.d.comb += Assert(reported | (dut.error.code == Error.WRITE_FENCE))

    # For the induction.
    sync_fifo(b, "dut.owners", most, owner.size, count, asking)
    buffered_fifo(
        b, "dut.owed", most, work.size, owed,
        b.probe("dut.owed.r_rdy", 1), b.probe("dut.owed.r_data", work.size), moving,
    )  # fmt: skip
    m.d.comb += [
        b.invariant(b.probe("dut.answered", 1) == answer),
        b.invariant(addresses + dut.aw.valid + answer == count),
        b.invariant(owed + (dut.w.valid & last) + lasts + answer == count),
    ]
    sent = b.probe("dut.sent", 8)
    m.d.comb += b.invariant((owed != 0) | (sent == 0))
    with m.If(moving.inside):
        m.d.comb += b.invariant(moved == Mux(moving.first, sent, 0))
        m.d.comb += b.invariant(moved <= burst.len)
    m.d.comb += [
        Cover(b.before(moving.first & ending & ~doomed) & (moved == 3) & (count == most)),
        Cover(b.before(doomed) & ~doomed & b.before(b.before(answer))),
        Cover(reported),
        Cover(fence.marked.first & dut.error.valid & (dut.error.code == Error.WRITE_FENCE)),
    ]


PROOFS = [Proof(WritePort, bench, (outstanding,), 3) for outstanding in (3, 16)]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[0], 18),
    bugs=[
        (PROOFS[0], bug)
        for bug in (
            Bug("fence ignored", "                & access.ok\n", ""),
            Bug("lower bound ignored", "fence.lower.eq(self.lower)", "fence.lower.eq(0)"),
            Bug("starts in an error", "draining | self.flush | self.halt", "draining | self.flush"),
            Bug(
                "address changes while it waits",
                "                & (~self.aw.valid | self.aw.ready)\n",
                "",
            ),
            Bug("more outstanding than allowed", "                & owners.w_rdy\n", ""),
            Bug("last one beat late", "last = sent == burst.len", "last = sent == burst.len + 1"),
            Bug(
                "data change while they wait",
                "(present | draining) & (~self.w.valid | self.w.ready)",
                "(present | draining)",
            ),
            Bug(
                "flushed words are written",
                "word[self._bus_bits :] & ~draining.replicate(self._bus_bits // 8)",
                "word[self._bus_bits :]",
            ),
            Bug(
                "flush waits for the requester",
                "owed.r_rdy & (present | draining)",
                "owed.r_rdy & present",
            ),
            Bug(
                "words of the other channel",
                "with m.If(burst.source == n):",
                "with m.If(burst.source != n):",
            ),
            Bug(
                "bad answers acknowledged",
                "answered & ~bad & ~draining & (owner",
                "answered & ~draining & (owner",
            ),
            Bug("flush ends too early", "with m.Elif(self.idle):", "with m.Else():"),
        )
    ],
)
