"""Cuts KV records, as they arrive from one memory port, into code words and scales."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, Signature
from amaranth.utils import exact_log2

from ..choose import choose
from ..fp import sanitise
from ..isa import KvFormat
from ..record_places import places_layout
from .shape import AttentionShape


class RecordUnpacker(Component):
    """While `go` is high, takes `count` records from `i` and then raises `done` for a cycle, in
    which it takes nothing; the next block begins the cycle after.

    A record (`kv_records`) is `head_beats` words of K codes, as many of V codes, the scales of K
    and V and padding to `record_beats` whole bus words; `places`, from `record_places`, says where
    its parts lie. A word of codes comes out as `code`, int16 in every format, and the scales,
    sanitised, as `scale`, both one cycle after their last bit was taken and at most one a cycle;
    `done` is never before the last of them. All parameters are held while `go` is high.

    Throughput: a bus word a cycle, or as many cycles as code words are in it. `i.ready` depends on
    the parameters, not on `i.valid`. Reset: the next word is the first of a record.
    """

    i: stream.Interface

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        positions = shape.steps
        at = {"en": Out(1), "position": Out(range(max(positions, 2)))}
        super().__init__(
            {
                "i": In(stream.Signature(shape.config.bus_bits)),
                "go": In(1),
                "count": In(range(positions + 1)),
                "format": In(KvFormat),
                "head_beats": In(range(shape.beats + 1)),
                "places": In(places_layout(shape.config)),
                "record_beats": In(16),
                "done": Out(1),
                "code": Out(
                    Signature(
                        at | {"v": Out(1), "beat": Out(shape.beat), "data": Out(shape.word_bits)}
                    )
                ),
                "scale": Out(Signature(at | {"k": Out(32), "v": Out(32)})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, dims = self._shape.config.bus_bits, self._shape.dims
        position = Signal.like(self.count)
        bus_beat = Signal(16)
        take = Signal()  # a part of a bus word
        part = Signal(range(max(2, bus // (dims * min(kv.bits for kv in KvFormat)))))
        last_part = Signal()
        more = self.go & (position != self.count)
        has_codes = bus_beat < self.places.codes
        takes_word = take & last_part
        ends = takes_word & (bus_beat + 1 == self.record_beats)
        m.d.comb += [
            take.eq(more & self.i.valid),
            self.i.ready.eq(more & last_part),
            self.done.eq(self.go & (position == self.count)),
        ]
        with m.If(self.done):
            m.d.sync += position.eq(0)
        with m.If(take):
            m.d.sync += part.eq(part + 1)
        with m.If(takes_word):
            m.d.sync += [part.eq(0), bus_beat.eq(bus_beat + 1)]
        with m.If(ends):
            m.d.sync += [bus_beat.eq(0), position.eq(position + 1)]

        whole = Signal()
        self._elaborate_codes(m, take, part, has_codes, last_part, whole)
        self._elaborate_places(m, take, whole, ends)
        m.d.sync += [self.code.position.eq(position), self.scale.position.eq(position)]

        # Scales: in a bus word side by side, or in two that follow one another.
        at_scales = takes_word & (bus_beat == self.places.scales)
        m.d.sync += self.scale.en.eq(at_scales)
        if bus >= 64:
            pair = self.i.payload.word_select(self.places.lane, 64)
            m.d.sync += [
                self.scale.k.eq(sanitise(pair[:32])),
                self.scale.v.eq(sanitise(pair[32:])),
            ]
        else:
            after = Signal()
            with m.If(takes_word):
                m.d.sync += after.eq(at_scales)
            m.d.sync += [
                self.scale.en.eq(takes_word & after),
                self.scale.v.eq(sanitise(self.i.payload)),
            ]
            with m.If(at_scales):
                m.d.sync += self.scale.k.eq(sanitise(self.i.payload))
        return m

    def _elaborate_codes(
        self,
        m: Module,
        take: Value,
        part: Signal,
        has_codes: Value,
        last_part: Signal,
        whole: Signal,
    ) -> None:
        """Parts of bus words to words of codes: `whole` says that the part that is taken completes
        one, `last_part` that nothing of the bus word is left then."""
        bus, dims, word = self._shape.config.bus_bits, self._shape.dims, self.code.data
        # Where a part's codes come from: a number a format and part, for a multiplexer of them all.
        choices: list[list[Value]] = []
        choice = Signal(8)
        with m.Switch(self.format):
            for kv in KvFormat:
                codes = min(dims, bus // kv.bits)  # of a part
                parts, joins = bus // (codes * kv.bits), dims // codes
                with m.Case(kv):
                    m.d.comb += [
                        choice.eq(len(choices) + part[: exact_log2(parts)]),
                        last_part.eq((part == parts - 1) | ~has_codes),
                        whole.eq(1),
                    ]
                    if joins > 1:
                        join = Signal(range(joins), name=f"join{kv.bits}")
                        m.d.comb += whole.eq(join == joins - 1)
                        with m.If(take):
                            m.d.sync += join.eq(Mux(has_codes, join + 1, 0))
                for at in range(parts):
                    piece = self.i.payload.word_select(at, codes * kv.bits)
                    new = [piece.word_select(i, kv.bits) for i in range(codes)]
                    wide = [Cat(code, code[-1].replicate(16 - kv.bits)) for code in new]
                    choices.append([word[16 * codes :], *wide])
        with m.If(take):
            m.d.sync += word.eq(choose(choice, [Cat(*pieces) for pieces in choices]))

    def _elaborate_places(self, m: Module, take: Value, whole: Value, ends: Value) -> None:
        """Which word of the record the next code word is."""
        beat, v = Signal(self._shape.beat), Signal()
        over = Signal()  # K and V are through
        m.d.sync += [
            self.code.en.eq(take & whole & ~over),
            self.code.v.eq(v),
            self.code.beat.eq(beat),
        ]
        with m.If(take & whole & ~over):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat + 1 == self.head_beats):
                m.d.sync += [beat.eq(0), v.eq(~v), over.eq(v)]
        with m.If(ends):
            m.d.sync += [beat.eq(0), v.eq(0), over.eq(0)]
