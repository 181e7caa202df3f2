"""Queries on chip, as they are written."""

from __future__ import annotations

from amaranth import Module, Signal, Value, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ..elementwise.rows import times
from ..fp import delay, register
from ..interfaces import QueryScaleSignature, QueryWriteSignature
from .shape import BLOCK, AttentionShape, skewed


class QBuffer(Component):
    """Takes Q of a chunk through `q_write` and `q_scale`, and gives it out by row: q_row is token *
    max_heads + head.

    `code` gives word `beat` of a row, lane i CODE_LATENCY + i cycles after the address, and
    `scale` the row's scale SCALE_LATENCY cycles after it, one of each a cycle. Writes are never
    refused; a read CODE_LATENCY cycles after a write sees it. Reset: codes are kept.
    """

    CODE_LATENCY = 3
    SCALE_LATENCY = 3

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        codes = data.ArrayLayout(signed(16), shape.dims)
        row = Out(shape.q_row)
        super().__init__(
            {
                "q_write": In(QueryWriteSignature(shape.config)),
                "q_scale": In(QueryScaleSignature(shape.config)),
                "code": In(Signature({"row": row, "beat": Out(shape.beat), "data": In(codes)})),
                "scale": In(Signature({"row": row, "data": In(32)})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, c = self._shape, self._shape.config
        rows = c.chunk * c.max_heads

        head_at = register(m, times(self.q_write.token, c.max_heads) + self.q_write.head)
        word = register(m, self.q_write.word)
        written = register(m, self.q_write.data)
        en = delay(m, self.q_write.en, 1)
        part_bits = s.parts.bit_length() - 1
        write_at = times(head_at, s.beats) + (word >> part_bits)
        # A memory a slice of lanes: the slices are read one after the other.
        read_at = register(m, times(self.code.row, s.beats) + self.code.beat)
        for first in range(0, s.dims, s.slice):
            part, lane = divmod(first, c.lanes)
            memory_word = written[16 * lane : 16 * (lane + s.slice)]
            here = en & (word[:part_bits] == part)
            at = delay(m, read_at, first, reset_less=True)
            read = self._slice(m, first, rows * s.beats, here, write_at, memory_word, at)
            for i in range(s.slice):
                code = skewed(m, read.word_select(i, 16), i)
                m.d.comb += self.code.data[first + i].eq(code)

        m.submodules.scales = scales = memory.Memory(shape=32, depth=rows, init=[], attrs=BLOCK)
        write, read_scale = scales.write_port(), scales.read_port()
        m.d.comb += [
            write.addr.eq(times(self.q_scale.token, c.max_heads) + self.q_scale.head),
            write.data.eq(self.q_scale.data),
            write.en.eq(self.q_scale.en),
            read_scale.addr.eq(register(m, self.scale.row)),
            read_scale.en.eq(1),
            self.scale.data.eq(register(m, read_scale.data)),
        ]
        return m

    def _slice(
        self, m: Module, first: int, depth: int, en: Value, at: Value, word: Value, read_at: Value
    ) -> Value:
        """The slice from lane `first` at `read_at`, two cycles later. Its memory is cut at the
        largest power of two, so that little of a RAM block is left over."""
        head = 1 << depth.bit_length() - 1
        tail_read = register(m, read_at >= head)
        chosen = Signal(16 * self._shape.slice, reset_less=True)
        for name, size in (("head", head), ("tail", depth - head)):
            if not size:
                continue
            m.submodules[f"codes_{name}{first}"] = codes = memory.Memory(
                shape=16 * self._shape.slice, depth=size, init=[], attrs=BLOCK
            )
            write, read = codes.write_port(), codes.read_port()
            m.d.comb += [
                write.en.eq(en & ((at >= head) == (name == "tail"))),
                write.addr.eq(at),
                write.data.eq(word),
                read.addr.eq(read_at),
                read.en.eq(1),
            ]
            with m.If(tail_read == (name == "tail")):
                m.d.sync += chosen.eq(read.data)
        return chosen
