"""Cuts KV records, as they arrive from one memory port, into code words and scales."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, Signature

from ..fp import sanitise


class RecordUnpacker(Component):
    """While `go` is high, takes `count` records from `i` and then raises `done` for a cycle, in
    which it takes nothing; the next block begins the cycle after.

    A record is `head_beats` words of K codes, as many of V codes, the scales of K and V (binary32)
    and padding to `record_beats` whole bus words. A code word comes out as `code` and the scales,
    sanitised, as `scale`, both one cycle after their last bit was taken and at most one a cycle;
    `done` is never before the last of them.

    Throughput: a bus word a cycle, or as many cycles as code words are in it. `i.ready` depends on
    `go` and `count`, not on `i.valid`. Reset: the next word is the first of a record.
    """

    i: stream.Interface

    def __init__(self, bus_bits: int, word_bits: int, beats: int, positions: int) -> None:
        if max(bus_bits, word_bits) % min(bus_bits, word_bits):
            raise ValueError(f"{bus_bits} and {word_bits} bits: the ratio must be an integer")
        self._bus_bits = bus_bits
        self._word_bits = word_bits
        at = {"en": Out(1), "position": Out(range(max(positions, 2)))}
        super().__init__(
            {
                "i": In(stream.Signature(bus_bits)),
                "go": In(1),
                "count": In(range(positions + 1)),
                "head_beats": In(range(beats + 1)),
                "record_beats": In(16),
                "done": Out(1),
                "code": Out(
                    Signature(
                        at
                        | {
                            "v": Out(1),
                            "beat": Out(range(max(beats, 2))),
                            "data": Out(word_bits),
                        }
                    )
                ),
                "scale": Out(Signature(at | {"k": Out(32), "v": Out(32)})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, word = self._bus_bits, self._word_bits
        cuts, joins = max(1, bus // word), max(1, word // bus)

        position = Signal.like(self.count)
        cut = Signal(range(max(cuts, 2)))  # part of the bus word
        join = Signal(range(max(joins, 2)))  # part of the code word
        bus_beat = Signal(16)
        beat = Signal(max(len(self.head_beats), 2))
        section = Signal(2)  # 0 K, 1 V, 2 scales and padding

        more = self.go & (position != self.count)
        take = more & self.i.valid
        whole = join == joins - 1
        last_cut = cut == cuts - 1
        ends = last_cut & (bus_beat == self.record_beats - 1)
        m.d.comb += [
            self.i.ready.eq(more & last_cut),
            self.done.eq(self.go & (position == self.count)),
        ]
        piece = self.i.payload.word_select(cut, word) if cuts > 1 else self.i.payload
        held = Signal(word, reset_less=True)
        joined = Signal(word)
        if joins > 1:
            m.d.comb += joined.eq(held)
            m.d.comb += joined.word_select(join, bus).eq(piece)
        else:
            m.d.comb += joined.eq(piece)

        k_scale = Signal(32, reset_less=True)
        m.d.sync += [self.code.en.eq(0), self.scale.en.eq(0)]
        with m.If(self.done):
            m.d.sync += position.eq(0)
        with m.If(take):
            m.d.sync += [
                held.eq(joined),
                self.code.en.eq(whole & ~section[1]),
                self.code.position.eq(position),
                self.code.v.eq(section[0]),
                self.code.beat.eq(beat),
                self.code.data.eq(joined),
                self.scale.position.eq(position),
                cut.eq(cut + 1),
                join.eq(join + 1),
            ]
            with m.If(last_cut):
                m.d.sync += [cut.eq(0), bus_beat.eq(bus_beat + 1)]
            with m.If(whole):
                m.d.sync += join.eq(0)
                with m.If(section[1]):
                    with m.If(beat != 3):  # only told apart from the first two words
                        m.d.sync += beat.eq(beat + 1)
                with m.Elif(beat == self.head_beats - 1):
                    m.d.sync += [beat.eq(0), section.eq(section + 1)]
                with m.Else():
                    m.d.sync += beat.eq(beat + 1)
            with m.If(section[1]):
                if word >= 64:
                    k, v = joined[:32], joined[32:64]
                    # A joined word may end with the record before it is full.
                    m.d.sync += self.scale.en.eq(ends if joins > 1 else beat == 0)
                else:
                    k, v = k_scale, joined[:32]
                    with m.If(beat == 0):
                        m.d.sync += k_scale.eq(joined[:32])
                    m.d.sync += self.scale.en.eq(beat == 1)
                m.d.sync += [
                    self.scale.k.eq(sanitise(k)),
                    self.scale.v.eq(sanitise(v)),
                ]
            with m.If(ends):
                m.d.sync += [
                    bus_beat.eq(0),
                    join.eq(0),
                    beat.eq(0),
                    section.eq(0),
                    position.eq(position + 1),
                ]
        return m
