"""Width converter: words of a stream joined or cut, least significant first."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out


def reference(words: Iterable[int], i_bits: int, o_bits: int) -> list[int]:
    """What `words` of `i_bits` become at `o_bits`; a partial word at the end is held back."""
    bits = 0
    count = 0
    for word in words:
        bits |= word << (i_bits * count)
        count += 1
    return [(bits >> (o_bits * i)) % (1 << o_bits) for i in range(i_bits * count // o_bits)]


class WidthConverter(Component):
    """Joins or cuts words; the ratio of the widths is an integer either way.

    Latency: one cycle from the (last) input word to the (first) output word. Throughput: the wider
    side moves a word every `ratio` cycles without gaps, the narrower side one every cycle.
    Back-pressure: one word is buffered, and `i.ready` follows `o.ready` combinationally when it is
    full. `clear` drops everything inside, whole words too; no word is taken in that cycle. Reset
    does the same.
    """

    LATENCY = 1

    i: stream.Interface
    o: stream.Interface
    clear: Signal

    def __init__(self, i_bits: int, o_bits: int) -> None:
        if min(i_bits, o_bits) < 1 or max(i_bits, o_bits) % min(i_bits, o_bits):
            raise ValueError(f"{i_bits} bits to {o_bits} bits is no integer ratio")
        self._i_bits = i_bits
        self._o_bits = o_bits
        super().__init__(
            {
                "i": In(stream.Signature(i_bits)),
                "o": Out(stream.Signature(o_bits)),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ratio = max(self._i_bits, self._o_bits) // min(self._i_bits, self._o_bits)
        up = self._o_bits > self._i_bits
        narrow = min(self._i_bits, self._o_bits)
        word = Signal(max(self._i_bits, self._o_bits))
        count = Signal(range(ratio + 1))  # parts present

        taken = self.i.valid & self.i.ready
        given = self.o.valid & self.o.ready
        if up:
            full = count == ratio
            m.d.comb += [
                self.o.payload.eq(word),
                self.o.valid.eq(full),
                self.i.ready.eq((~full | self.o.ready) & ~self.clear),
            ]
            with m.If(given):
                m.d.sync += count.eq(0)
            with m.If(taken):
                m.d.sync += count.eq(count + 1)
                # Parts shift down, so that the first one ends lowest.
                m.d.sync += word.eq((self.i.payload << (self._o_bits - narrow)) | (word >> narrow))
                with m.If(given):
                    m.d.sync += count.eq(1)
        else:
            empty = count == 0
            last = count == 1
            m.d.comb += [
                self.o.payload.eq(word[:narrow]),
                self.o.valid.eq(~empty),
                self.i.ready.eq((empty | (last & self.o.ready)) & ~self.clear),
            ]
            with m.If(given):
                m.d.sync += [count.eq(count - 1), word.eq(word >> narrow)]
            with m.If(taken):
                m.d.sync += [count.eq(ratio), word.eq(self.i.payload)]
        with m.If(self.clear):
            m.d.sync += count.eq(0)
        return m
