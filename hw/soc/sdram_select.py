"""Which segment goes next to the SDRAM: a read or a write."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from .sdram_bus import segment_layout
from .sdram_part import SdramPart


def access_layout(part: SdramPart, beats: int) -> data.StructLayout:
    """A segment that is written or read."""
    return data.StructLayout({"write": unsigned(1), "segment": segment_layout(part, beats)})


class SegmentSelector(Component):
    """Hands segments on when nothing can stop them half way: room for all words of a read, all
    words of a write at hand.

    Up to STREAK segments of a direction follow one another while the other waits: a turn of the
    data pins costs cycles. Latency: two cycles. Throughput: a segment every third cycle.
    Back-pressure: none is lost, `o` is held until it is taken. Reset: empty.

    Ports
    -----
    read, write : segments in the order of their bursts.
    popped : a word left the read buffer of `depth` words.
    pushed : a word entered the write buffer.
    acknowledged : the master took the answer to a write burst; `answers` may be waiting.
    """

    STREAK = 8

    read: stream.Interface
    write: stream.Interface
    o: stream.Interface
    popped: Signal
    pushed: Signal
    acknowledged: Signal

    def __init__(self, part: SdramPart, beats: int, depth: int, answers: int) -> None:
        self._beats, self._depth, self._answers = beats, depth, answers
        segment = stream.Signature(segment_layout(part, beats))
        super().__init__(
            {
                "read": In(segment),
                "write": In(segment),
                "o": Out(stream.Signature(access_layout(part, beats))),
                "popped": In(1),
                "pushed": In(1),
                "acknowledged": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        room = Signal(range(self._depth + 1), init=self._depth)  # of the read buffer, not promised
        words = Signal(range(self._depth + 1))  # of the write buffer, not promised
        answers = Signal(range(self._answers + 1), init=self._answers)
        writing = Signal()
        streak = Signal(range(self.STREAK))

        # Whether a segment can go is known a cycle late: from one that went until the next can be
        # looked at are two cycles.
        can_read, can_write = Signal(), Signal()
        settling = Signal(2)
        m.d.sync += [
            can_read.eq(self.read.valid & (room > self.read.payload.len)),
            can_write.eq(self.write.valid & (words > self.write.payload.len) & answers.any()),
            settling.eq(settling >> 1),
        ]
        decides = ~self.o.valid & (settling == 0)
        turn = streak == self.STREAK - 1
        write = can_write & (~can_read | (writing ^ turn))
        read = can_read & ~write
        m.d.comb += [self.read.ready.eq(decides & read), self.write.ready.eq(decides & write)]

        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(decides & (can_read | can_write)):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.payload.write.eq(write),
                self.o.payload.segment.eq(Mux(write, self.write.payload, self.read.payload)),
                settling.eq(~0),
                writing.eq(write),
                streak.eq(Mux(write != writing, 0, Mux(turn, streak, streak + 1))),
            ]

        # What was promised with the segment that has just gone.
        gone = settling[1]
        segment = self.o.payload.segment
        promised = Signal(range(self._depth + 1))
        m.d.comb += promised.eq(segment.len + 1)
        popped, pushed, acknowledged = Signal(), Signal(), Signal()
        m.d.sync += [
            popped.eq(self.popped),
            pushed.eq(self.pushed),
            acknowledged.eq(self.acknowledged),
            room.eq(room + popped - Mux(gone & ~writing, promised, 0)),
            words.eq(words + pushed - Mux(gone & writing, promised, 0)),
            answers.eq(answers + acknowledged - (gone & writing & segment.last)),
        ]
        return m
