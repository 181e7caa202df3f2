"""From beats of weight bytes to words of table indices."""

from __future__ import annotations

from functools import reduce
from itertools import combinations, zip_longest
from math import gcd
from operator import or_, xor

import numpy as np
from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from numpy.typing import NDArray

from ..config import AcceleratorConfig
from .trits import TRITS_PER_BYTE, decode_bytes

_TRIT_BITS = 2


def reference(stream_bytes: NDArray[np.uint8], words: int, config: AcceleratorConfig) -> list[int]:
    """The index words, as integers of word_bits, of a joined byte stream."""
    c = config
    digits = decode_bytes(stream_bytes)[: words * c.word_trits].astype(np.int64)
    index = digits.reshape(words, c.rows * c.tables, c.group) @ 3 ** np.arange(c.group)
    return [sum(int(v) << (i * c.index_bits) for i, v in enumerate(word)) for word in index]


class Unpack(Component):
    """Decodes the byte code, cuts the stream of trits into words and recodes them as indices.

    i: beats of beat_bytes bytes (byte 0 lowest). o: words of rows * tables indices of index_bits
    (row-major, first lowest). LATENCY cycles from the beat that completes a word to the word; a
    beat in and a word out every cycle, whichever limits; stalls on either side. clear: drops all
    trits that are inside; no beat may enter in that cycle. Reset empties it.
    """

    LATENCY = 3

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(8 * c.beat_bytes))),
                "o": Out(stream.Signature(unsigned(c.word_bits))),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        beat_trits = TRITS_PER_BYTE * c.beat_bytes
        step = gcd(beat_trits, c.word_trits)
        beat, word = beat_trits // step, c.word_trits // step  # in steps
        capacity = beat + word - 1
        step_bits = step * _TRIT_BITS

        # Bytes to trits.
        trits = Signal(beat_trits * _TRIT_BITS, reset_less=True)
        trits_valid = Signal()
        trits_ready = Signal()
        m.d.comb += self.i.ready.eq(~trits_valid | trits_ready)
        with m.If(self.i.ready):
            m.d.sync += trits_valid.eq(self.i.valid)
            m.d.sync += trits.eq(
                Cat(_decode(self.i.payload.word_select(b, 8)) for b in range(c.beat_bytes))
            )

        # Gearbox: the oldest trit is the lowest; steps above `level` are zero.
        store = Signal(capacity * step_bits)
        level = Signal(range(capacity + 1))
        full_word, two_words = Signal(), Signal()  # as many are in store
        slices = _BitSlices(m, c.rows * c.tables)
        index_valid = Signal()
        index_ready = Signal()
        take = Signal()
        rest = Signal(range(capacity + 1))
        kept = Signal(capacity * step_bits)
        enter = Signal()
        m.d.comb += [
            take.eq(full_word & index_ready),
            rest.eq(Mux(take, level - word, level)),
            kept.eq(Mux(take, store[word * step_bits :], store)),
            # So that rest + beat <= capacity.
            trits_ready.eq(~Mux(take, two_words, full_word)),
            enter.eq(trits_valid & trits_ready),
        ]
        m.d.sync += [store.eq(kept), level.eq(rest)]
        for flag, least in ((full_word, word), (two_words, 2 * word)):
            # Beside the sum that makes the level, not behind it.
            without, after = (
                Mux(take, level >= least + word - more, level >= least - more) for more in (0, beat)
            )
            m.d.sync += flag.eq(Mux(enter, after, without))
        with m.If(enter):
            m.d.sync += level.eq(rest + beat)
            with m.Switch(rest):
                for at in range(word):
                    with m.Case(at):
                        m.d.sync += store.eq(kept | Cat(Const(0, at * step_bits), trits))

        # Trits to indices.
        index = Signal(c.word_bits, reset_less=True)
        m.d.comb += index_ready.eq(~index_valid | self.o.ready)
        with m.If(index_ready):
            m.d.sync += index_valid.eq(full_word)
            m.d.sync += index.eq(slices.indices(store, c.group, c.index_bits))
        m.d.comb += [self.o.valid.eq(index_valid), self.o.payload.eq(index)]

        with m.If(self.clear):
            m.d.sync += [trits_valid.eq(0), level.eq(0), store.eq(0), index_valid.eq(0)]
            m.d.sync += [full_word.eq(0), two_words.eq(0)]
        return m


def _constants(values: list[int], bits: int, index: Value) -> Value:
    """A small read-only table as logic."""
    return Array([Const(v, bits) for v in values])[index]


def _trits(values: range, count: int) -> list[int]:
    """Digits of numbers in base 3, two bits each, least significant first."""
    return [sum((v // 3**j % 3) << (_TRIT_BITS * j) for j in range(count)) for v in values]


def _decode(byte: Value) -> Value:
    """The five trits of a byte (see trits.py)."""
    low, high = byte[:5], byte[5:]
    swapped = low >= 27
    # low - 27 is 0..3 where it counts.
    idx3 = Mux(swapped, Cat(high, Cat(~low[0], low[1] ^ low[0])), low)
    last = Mux(swapped, Const(2 | 2 << _TRIT_BITS, 4), _constants(_trits(range(8), 2), 4, high))
    return Cat(_constants(_trits(range(27), 3), 6, idx3), last)


class _BitSlices:
    """Small numbers of many groups, bit by bit: a vector for each bit, one element a group.

    Logic rather than adders: a bit of an index is one function of 2 * group bits of trits, which
    synthesis would not see through carry chains. Every vector is a signal, since simulators
    compute an expression anew for each of its uses.
    """

    def __init__(self, m: Module, count: int) -> None:
        self._m, self._count, self._number = m, count, 0

    def vector(self, value: Value) -> Signal:
        vector = Signal(self._count, name=f"slice{self._number}")
        self._number += 1
        self._m.d.comb += vector.eq(value)
        return vector

    def indices(self, trits: Value, group: int, bits: int) -> Value:
        """The sum of trit j times 3**j of each group of trits, `bits` bits each."""
        total: list[Value | None] = []
        for j in range(group):
            low, high = (
                self.vector(
                    Cat(trits[(g * group + j) * _TRIT_BITS + b] for g in range(self._count))
                )
                for b in range(_TRIT_BITS)
            )
            either = self.vector(low | high)
            term: list[Value | None] = []
            for b in range((2 * 3**j).bit_length()):
                ones, twos = 3**j >> b & 1, 2 * 3**j >> b & 1
                term.append(either if ones and twos else low if ones else high if twos else None)
            total = self._add(total, term)
        planes = [plane for plane in total[:bits] if plane is not None]
        return Cat(plane[g] for g in range(self._count) for plane in planes)

    def _add(self, a: list[Value | None], b: list[Value | None]) -> list[Value | None]:
        """Ripple sum; None is zero."""
        total: list[Value | None] = []
        carry: Value | None = None
        for x, y in zip_longest(a, b):
            terms = [t for t in (x, y, carry) if t is not None]
            total.append(self.vector(reduce(xor, terms)) if terms else None)
            pairs = [t & u for t, u in combinations(terms, 2)]
            carry = self.vector(reduce(or_, pairs)) if pairs else None
        return [*total, carry]
