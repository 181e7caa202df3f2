"""ReadChannel: bursts only for what the buffer can hold, and every word delivered."""

from __future__ import annotations

from amaranth import Mux, Signal
from amaranth.hdl import Assert, Cover

from terntable.hw.axi.reader import ReadChannel
from terntable.sim.formal import Bench

from .bursts import ISSUE, NEXT, SIZE
from .contract import lawful, sink, source
from .fifo_invariants import buffered_fifo
from .marked import Marked
from .planted import Bug
from .proof import Proof, Suite

BITS = 16


def bench(b, block, burst_beats, depth):
    m = b.m
    m.submodules.dut = dut = block(BITS, burst_beats, depth)
    source(b, dut.channel.req)
    sink(b, dut.burst)
    sink(b, dut.channel.data)

    # The port answers a burst with its beats, some time.
    asked = dut.burst.valid & dut.burst.ready
    owed = Signal(range(depth + 1))
    filled = Signal()
    m.d.comb += [
        filled.eq(b.free(1, "filled") & (owed != 0)),
        dut.fill.valid.eq(filled),
        dut.fill.payload.eq(b.free(BITS, "word")),
    ]
    given = dut.channel.data.valid & dut.channel.data.ready
    count = Signal(range(depth + 2))  # words in the buffer
    m.d.sync += [
        owed.eq(owed + (dut.burst.payload.beats & asked.replicate(9)) - filled),
        count.eq(count + filled - given),
    ]
    marked = Marked(b, enter=filled, value=dut.fill.payload, leave=given, count=count, most=depth)

    # Words never find the buffer full, so none is lost.
    w_rdy = b.probe("dut.buffer.w_rdy", 1)
    m.d.comb += [Assert(owed + count <= depth), Assert(~filled | w_rdy)]
    with m.If(marked.first & given):
        m.d.comb += Assert(dut.channel.data.payload == marked.value)
    with m.If(dut.burst.valid):
        m.d.comb += [
            Assert(lawful(dut.burst.payload, BITS, burst_beats)),
            Assert(owed + count + dut.burst.payload.beats <= depth),
        ]

    # For the induction.
    room, spent = b.probe("dut.room", range(depth + 1)), b.probe("dut.spent", 9)
    freed = b.probe("dut.freed", 1)
    m.d.comb += [
        b.invariant(room + freed + owed + count == depth + spent),
        b.invariant(spent <= room),
    ]
    offer_invariant(b, "dut", dut.burst, spent, room)
    buffered_fifo(
        b, "dut.buffer", depth, BITS, count,
        dut.channel.data.valid, dut.channel.data.payload, marked,
    )  # fmt: skip
    splitter_invariant(b, "dut.splitter", burst_beats)
    m.d.comb += Cover(marked.first & given & (owed + count == depth) & (marked.value == 0xABCD))


def offer_invariant(b: Bench, path: str, burst, spent: Signal, words: Signal) -> None:
    """What a channel notes of the burst that its splitter gives."""
    m = b.m
    state = b.probe(f"{path}.splitter.fsm_state", 2)
    enough = b.probe(f"{path}.enough", 1)
    m.d.comb += [
        b.invariant((spent == 0) | (state == NEXT)),
        b.invariant(~enough | (state != SIZE)),
    ]
    with m.If(enough & (state == ISSUE)):
        m.d.comb += b.invariant(words >= burst.payload.beats)


def splitter_invariant(b: Bench, path: str, burst_beats: int) -> None:
    """What a BurstSplitter's registers hold between its states."""
    m = b.m
    state = b.probe(f"{path}.fsm_state", 2)
    remaining = b.probe(f"{path}.remaining", 24)
    most, beats = b.probe(f"{path}.most", 9), b.probe(f"{path}.beats", 9)
    page = b.probe(f"{path}.page", range(4096 * 8 // BITS + 1))
    address = b.probe(f"{path}.address", 32)
    to_page = (4096 * 8 // BITS) - address[(BITS // 8).bit_length() - 1 : 12]
    some = b.probe(f"{path}.some", 1)
    m.d.comb += [
        Assert(state <= ISSUE),
        Assert((state == NEXT) | (remaining != 0)),
        Assert((remaining == 0) | some),
        Assert(b.probe(f"{path}.o__valid", 1) == (state == ISSUE)),
    ]
    with m.If(state == SIZE):
        m.d.comb += [
            Assert(most == Mux(remaining < burst_beats, remaining, burst_beats)),
            Assert(b.probe(f"{path}.ends", 1) == (remaining <= burst_beats)),
            Assert(page == to_page),
        ]
    with m.If(state == ISSUE):
        m.d.comb += [
            Assert((beats != 0) & (beats <= burst_beats) & (beats <= remaining)),
            Assert(beats <= to_page),
            Assert(b.probe(f"{path}.last", 1) == (beats == remaining)),
        ]


PROOFS = [Proof(ReadChannel, bench, parameters, 3) for parameters in ((1, 4), (2, 4), (4, 8))]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[1], 16),
    bugs=[
        (PROOFS[1], bug)
        for bug in (
            Bug(
                "asks for more than fits",
                "(room >= splitter.o.payload.beats)",
                "(room != 0)",
            ),
            Bug(
                "room given back twice",
                "room - spent + freed",
                "room - spent + 2 * freed",
            ),
            Bug(
                "offer withdrawn",
                "self.burst.valid.eq(splitter.o.valid & enough)",
                "self.burst.valid.eq(splitter.o.valid & enough & ~self.fill.valid)",
            ),
        )
    ],
)
