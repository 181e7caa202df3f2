"""Normalised outputs: o / sum(p), to the row memory."""

from __future__ import annotations

from amaranth import Module, Shape, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, Signature

from .. import numeric
from ..fp import Divide, FromInt, Mul, Scale2, delay, register
from ..interfaces import RowWriteSignature, row_words
from .accumulate import Accumulator
from .shape import AttentionShape

reference = numeric.attention_output

_ONE = 0x3F800000
_K_BITS = 11


class OutputUnit(Component):
    """Writes the rows of a pass: numeric.attention_output in binary32.

    `start` (one cycle) takes `query_pass`; states and outputs are read until `done` (one cycle).
    Row (token, head) goes to words of row `token` of the attention outputs, heads one after the
    other. A row takes head_beats * dims / lanes cycles or the 45 of its division, whichever is
    longer: the division of a row runs beside the output of the one before. Reset: idle.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        c = shape.config
        super().__init__(
            {
                "start": In(1),
                "query_pass": In(shape.query_pass()),
                "job": In(shape.job()),
                "done": Out(1),
                "state": Out(Signature({"row": Out(shape.row), "data": In(shape.state())})),
                "read": Out(
                    Signature(
                        {
                            "row": Out(shape.row),
                            "beat": Out(shape.beat),
                            "data": In(data.ArrayLayout(signed(shape.o_bits), shape.dims)),
                        }
                    )
                ),
                "o_write": Out(
                    RowWriteSignature(c.chunk, row_words(c, c.longest_row), c.lanes, 32)
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, c, job = self._shape, self._shape.config, self.job
        part_bits = s.parts.bit_length() - 1
        to_layout = data.StructLayout({"token": s.token, "word": s.out_word})

        row = Signal(range(s.max_rows + 1))
        rows = Signal.like(row)
        head_left = Signal.like(job.heads_per_kv)
        to = Signal(to_layout)
        first_word = Signal(s.out_word)
        wait = Signal(range(32))
        k = Signal(Shape(_K_BITS, signed=True), reset_less=True)

        m.submodules.from_l = from_l = FromInt(s.l_bits, signed=False)
        m.submodules.divide = divide = Divide()
        l_word = Signal(s.l_bits, reset_less=True)
        m.d.comb += [
            from_l.i.eq(l_word),
            divide.a.eq(_ONE),
            divide.b.eq(from_l.o),
            self.state.row.eq(row),
        ]

        # What is streamed now.
        streaming = Signal()
        s_row, s_to = Signal(s.row), Signal(to_layout)
        s_inverse = Signal(32, reset_less=True)
        s_k = Signal(Shape(_K_BITS, signed=True), reset_less=True)
        beat, part = Signal(s.beat), Signal(range(max(s.parts, 2)))
        with m.If(streaming):
            m.d.sync += [part.eq(part + 1), s_to.word.eq(s_to.word + 1)]
            with m.If(part == s.parts - 1):
                m.d.sync += [part.eq(0), beat.eq(beat + 1)]
                with m.If(beat == job.head_beats - 1):
                    m.d.sync += [beat.eq(0), streaming.eq(0)]

        with m.FSM(name="rows"):
            with m.State("IDLE"):
                m.d.sync += [
                    row.eq(0),
                    rows.eq(self.query_pass.rows),
                    head_left.eq(job.heads_per_kv),
                    to.token.eq(self.query_pass.token),
                    to.word.eq(self.query_pass.word),
                    first_word.eq(self.query_pass.word),
                ]
                with m.If(self.start):
                    m.next = "STATE"
            with m.State("STATE"):
                m.next = "CONVERT"
            with m.State("CONVERT"):
                state = self.state.data
                m.d.sync += [
                    l_word.eq(state.l),
                    k.eq(state.max_w - state.max_p + (3 - 127)),
                    wait.eq(FromInt.LATENCY),
                ]
                m.next = "CONVERTING"
            with m.State("CONVERTING"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.comb += divide.start.eq(1)
                    m.next = "DIVIDE"
            with m.State("DIVIDE"):
                with m.If(divide.done):
                    m.next = "GIVE"
            with m.State("GIVE"):
                with m.If(~streaming):
                    m.d.sync += [
                        streaming.eq(1),
                        s_row.eq(row),
                        s_to.eq(to),
                        s_inverse.eq(divide.o),
                        s_k.eq(k),
                        row.eq(row + 1),
                        head_left.eq(head_left - 1),
                        to.word.eq(to.word + (job.head_beats << part_bits)),
                        wait.eq(31),
                    ]
                    with m.If(head_left == 1):
                        m.d.sync += [
                            head_left.eq(job.heads_per_kv),
                            to.token.eq(to.token + 1),
                            to.word.eq(first_word),
                        ]
                    m.next = "STATE"
                    with m.If(row == rows - 1):
                        m.next = "FLUSH"
            with m.State("FLUSH"):
                with m.If(~streaming):
                    m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"

        # Lanes: memory, part of the word, conversion, product, power of two.
        m.d.comb += [self.read.row.eq(s_row), self.read.beat.eq(beat)]
        front = Accumulator.READ_LATENCY + 1
        which = delay(m, part, front - 1, reset_less=True)
        inverse = delay(m, s_inverse, front + FromInt.LATENCY, reset_less=True)
        power = delay(m, s_k, front + FromInt.LATENCY + Mul.LATENCY, reset_less=True)
        latency = front + FromInt.LATENCY + Mul.LATENCY + Scale2.LATENCY
        for lane in range(c.lanes):
            m.submodules[f"from_int{lane}"] = from_int = FromInt(s.o_bits)
            m.submodules[f"mul{lane}"] = mul = Mul()
            m.submodules[f"scale{lane}"] = scale = Scale2(_K_BITS)
            value = Signal(signed(s.o_bits))
            with m.Switch(which):
                for p in range(s.parts):
                    with m.Case(p):
                        m.d.comb += value.eq(self.read.data[p * c.lanes + lane])
            m.d.comb += [
                from_int.i.eq(register(m, value)),
                mul.a.eq(from_int.o),
                mul.b.eq(inverse),
                scale.x.eq(mul.o),
                scale.k.eq(power),
                self.o_write.data.word_select(lane, 32).eq(scale.o),
            ]
        m.d.comb += [
            self.o_write.en.eq(delay(m, streaming, latency)),
            self.o_write.row.eq(delay(m, s_to.token, latency, reset_less=True)),
            self.o_write.word.eq(delay(m, s_to.word, latency, reset_less=True)),
            self.o_write.mask.eq((1 << c.lanes) - 1),
        ]
        return m
