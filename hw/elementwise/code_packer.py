"""Codes of K and V packed into words, in the format of the KV cache."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from ..isa import KvFormat


class CodePacker(Component):
    """Joins words of `lanes` codes, 16 bits each, to words of `word_bits` with `format.bits` a
    code, the first one lowest, without gaps (`kv_records.pack_codes`).

    `last` ends a record, whose last word is filled up with zeros. `word_bits` is a power of two of
    at least 16 * lanes; `format` changes between records only.

    Latency: a word comes out one cycle after its last codes. Throughput: a word of codes a cycle.
    No back-pressure. Reset drops the word in hand.
    """

    LATENCY = 1

    def __init__(self, lanes: int, word_bits: int) -> None:
        if word_bits % (16 * lanes):
            raise ValueError(f"word_bits is {word_bits}: make it a multiple of {16 * lanes}")
        self._lanes = lanes
        self._word_bits = word_bits
        super().__init__(
            {
                "format": In(KvFormat),
                "valid": In(1),
                "last": In(1),
                "codes": In(16 * lanes),
                "o_valid": Out(1),
                "o_last": Out(1),
                "o": Out(word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # What a word of codes takes in the narrowest format.
        granule = self._lanes * min(kv.bits for kv in KvFormat)
        granules = self._word_bits // granule
        at = Signal(range(max(granules, 2)))  # of the word of codes
        full = Signal()
        ends = self.valid & (full | self.last)
        with m.Switch(self.format):
            for kv in KvFormat:
                with m.Case(kv):
                    share = self._lanes * kv.bits // granule
                    codes = Cat(
                        self.codes.word_select(i, 16)[: kv.bits] for i in range(self._lanes)
                    )
                    m.d.comb += full.eq(at == granules // share - 1)
                    with m.If(self.valid):
                        for g in range(granules):
                            here = self.o.word_select(g, granule)
                            with m.If(at == g // share):
                                m.d.sync += here.eq(codes.word_select(g % share, granule))
                            with m.Elif(at == 0):
                                m.d.sync += here.eq(0)
        with m.If(self.valid):
            m.d.sync += at.eq(Mux(ends, 0, at + 1))
        m.d.sync += [self.o_valid.eq(ends), self.o_last.eq(self.last)]
        return m
