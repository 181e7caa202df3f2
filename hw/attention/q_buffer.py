"""Queries on chip: as they are written, and the rows of a pass as the multipliers read them."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ..fp import delay, register
from ..interfaces import QueryScaleSignature, QueryWriteSignature
from .shape import AttentionShape

_COPY_LATENCY = 3


class QBuffer(Component):
    """Takes Q of a chunk through `q_write` and `q_scale`, then hands it out pass by pass.

    A pass is `job.pass_tokens` tokens (fewer at the end of the chunk) of one KV head; its rows are
    (token, query head), row = token * heads_per_kv + head, and lie in groups of `rows`. After
    `start` (one cycle, `job` stable from then on) passes are copied into one of two halves,
    0 first, alternating; `valid` has a bit a half, `release` frees the older one, and `query_pass`
    describes what is in each.

    `code` gives word `beat` of all rows of a group, row 0 lowest, READ_LATENCY cycles after the
    address; `info` the token and the scale of each row, one cycle after. A copy takes rows *
    head_beats cycles and some 10 more. Writes are never refused, and reach the copy two cycles
    later. Reset: no pass is valid; codes are kept.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        self.info_layout = data.StructLayout({"token": shape.token, "scale": unsigned(32)})
        at = {"half": Out(1), "group": Out(shape.group)}
        super().__init__(
            {
                "q_write": In(QueryWriteSignature(shape.config)),
                "q_scale": In(QueryScaleSignature(shape.config)),
                "job": In(shape.job()),
                "start": In(1),
                "valid": Out(2),
                "query_pass": Out(data.ArrayLayout(shape.query_pass(), 2)),
                "release": In(1),
                "code": In(
                    Signature(
                        at | {"beat": Out(shape.beat), "data": In(shape.rows * shape.word_bits)}
                    )
                ),
                "info": In(
                    Signature(at | {"data": In(data.ArrayLayout(self.info_layout, shape.rows))})
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, c, job = self._shape, self._shape.config, self.job
        heads = c.chunk * c.max_heads

        # All of Q, as written: [token][head][word].
        m.submodules.codes = codes = memory.Memory(
            shape=s.word_bits, depth=heads * s.beats, init=[]
        )
        write = codes.write_port(granularity=16 * c.lanes)
        part_bits = s.parts.bit_length() - 1
        head_at = self.q_write.token * c.max_heads + self.q_write.head
        m.d.sync += [
            write.addr.eq(head_at * s.beats + (self.q_write.word >> part_bits)),
            write.data.eq(self.q_write.data.replicate(s.parts)),
            write.en.eq(self.q_write.en << self.q_write.word[:part_bits]),
        ]
        m.submodules.scales = scales = memory.Memory(shape=32, depth=heads, init=[])
        write = scales.write_port()
        m.d.comb += [
            write.addr.eq(self.q_scale.token * c.max_heads + self.q_scale.head),
            write.data.eq(self.q_scale.data),
            write.en.eq(self.q_scale.en),
        ]

        # Walk the rows of a pass.
        kv_head = Signal.like(job.kv_heads)
        first_head = Signal(range(c.max_heads + 1))
        first_token = Signal.like(job.tokens)
        first_word = Signal(s.out_word)
        end = Signal(len(job.tokens) + 1)
        token = Signal.like(job.tokens)
        head = Signal.like(first_head)
        head_left = Signal.like(job.heads_per_kv)
        beat = Signal(s.beat)
        word = Signal(s.out_word)
        bank = Signal(range(max(s.rows, 2)))
        group = Signal(s.group)
        rows = Signal(range(s.max_rows + 1))
        half = Signal()
        flush = Signal(range(_COPY_LATENCY + 1))
        copying = Signal()
        oldest = Signal()
        last_pass = (end == job.tokens) & (kv_head == job.kv_heads - 1)
        with m.FSM(name="copier"):
            with m.State("IDLE"):
                m.d.sync += [
                    kv_head.eq(0),
                    first_head.eq(0),
                    first_token.eq(0),
                    first_word.eq(0),
                    half.eq(0),
                ]
                with m.If(self.start):
                    m.d.sync += oldest.eq(0)
                    m.next = "PASS"
            with m.State("PASS"):
                m.d.sync += [
                    end.eq(first_token + job.pass_tokens),
                    token.eq(first_token),
                    head.eq(first_head),
                    head_left.eq(job.heads_per_kv),
                    word.eq(first_word),
                    beat.eq(0),
                    bank.eq(0),
                    group.eq(0),
                    rows.eq(0),
                    flush.eq(_COPY_LATENCY),
                ]
                with m.If(~self.valid.bit_select(half, 1)):
                    m.next = "LIMIT"
            with m.State("LIMIT"):
                with m.If(end > job.tokens):
                    m.d.sync += end.eq(job.tokens)
                m.next = "COPY"
            with m.State("COPY"):
                m.d.comb += copying.eq(1)
                m.d.sync += beat.eq(beat + 1)
                with m.If(beat == job.head_beats - 1):
                    m.d.sync += [
                        beat.eq(0),
                        rows.eq(rows + 1),
                        bank.eq(bank + 1),
                        head.eq(head + 1),
                        head_left.eq(head_left - 1),
                        word.eq(word + (job.head_beats << part_bits)),
                    ]
                    with m.If(bank == s.rows - 1):
                        m.d.sync += [bank.eq(0), group.eq(group + 1)]
                    with m.If(head_left == 1):
                        m.d.sync += token.eq(token + 1)
                        with m.If(token == end - 1):
                            m.next = "FLUSH"
                        with m.Else():
                            m.d.sync += [
                                head.eq(first_head),
                                head_left.eq(job.heads_per_kv),
                                word.eq(first_word),
                            ]
            with m.State("FLUSH"):
                m.d.sync += flush.eq(flush - 1)
                with m.If(flush == 0):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.sync += [
                    self.query_pass[half].rows.eq(rows),
                    self.query_pass[half].token.eq(first_token),
                    self.query_pass[half].newest.eq(job.position + end - 1),
                    self.query_pass[half].word.eq(first_word),
                    self.query_pass[half].last.eq(last_pass),
                    self.valid.bit_select(half, 1).eq(1),
                    half.eq(~half),
                    first_token.eq(end),
                ]
                with m.If(end == job.tokens):
                    # Head and word have come to the next KV head's first.
                    m.d.sync += [
                        first_token.eq(0),
                        kv_head.eq(kv_head + 1),
                        first_head.eq(head),
                        first_word.eq(word),
                    ]
                m.next = "PASS"
                with m.If(last_pass):
                    m.next = "IDLE"

        # Copy: address, memory, its output register, then the bank of the row.
        row_at = register(m, token * c.max_heads + head)
        code_read, scale_read = codes.read_port(), scales.read_port()
        m.d.comb += [
            code_read.addr.eq(row_at * s.beats + register(m, beat)),
            scale_read.addr.eq(row_at),
            code_read.en.eq(1),
            scale_read.en.eq(1),
        ]
        code = register(m, code_read.data)
        scale = register(m, scale_read.data)
        to = Signal(
            data.StructLayout(
                {
                    "en": 1,
                    "info": 1,
                    "bank": bank.shape(),
                    "half": 1,
                    "group": s.group,
                    "beat": s.beat,
                    "token": s.token,
                }
            )
        )
        m.d.comb += [
            to.en.eq(copying),
            to.info.eq(copying & (beat == 0)),
            to.bank.eq(bank),
            to.half.eq(half),
            to.group.eq(group),
            to.beat.eq(beat),
            to.token.eq(token),
        ]
        to = delay(m, to, _COPY_LATENCY)

        # Banks: one a row of a group.
        at = register(m, Cat(self.code.beat, self.code.group, self.code.half))
        groups = 1 << len(self.code.group)
        words = []
        for a in range(s.rows):
            m.submodules[f"row{a}"] = row = memory.Memory(
                shape=s.word_bits, depth=2 * groups << len(self.code.beat), init=[]
            )
            write, read = row.write_port(), row.read_port()
            m.d.comb += [
                write.addr.eq(Cat(to.beat, to.group, to.half)),
                write.data.eq(code),
                write.en.eq(to.en & (to.bank == a)),
                read.addr.eq(at),
                read.en.eq(1),
            ]
            words.append(register(m, read.data))

            m.submodules[f"info{a}"] = info = memory.Memory(
                shape=self.info_layout, depth=2 * groups, init=[]
            )
            write, read = info.write_port(), info.read_port()
            m.d.comb += [
                write.addr.eq(Cat(to.group, to.half)),
                write.data.token.eq(to.token),
                write.data.scale.eq(scale),
                write.en.eq(to.info & (to.bank == a)),
                read.addr.eq(Cat(self.info.group, self.info.half)),
                read.en.eq(1),
                self.info.data[a].eq(read.data),
            ]
        m.d.comb += self.code.data.eq(Cat(words))

        with m.If(self.release):
            m.d.sync += [self.valid.bit_select(oldest, 1).eq(0), oldest.eq(~oldest)]
        return m
