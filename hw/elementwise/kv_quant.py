"""KV_QUANT: quantisation of Q, K and V heads; K and V go to the KV cache in DRAM."""

from __future__ import annotations

import numpy as np
from amaranth import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from .. import numeric
from ..config import AcceleratorConfig
from ..interfaces import (
    QueryScaleSignature,
    QueryWriteSignature,
    WriteChannelSignature,
    command_layout,
    op_view,
)
from ..isa import KvFormat, Op
from ..kv_records import pack_records
from ..numeric import F32, I64
from .lanes import codes_layout
from .passes import Kind, segment_layout, tag_layout
from .records import RecordWriter


def reference(
    config: AcceleratorConfig,
    kv: KvFormat,
    q: F32,
    k: F32,
    v: F32,
    score_scale: np.float32,
    record_bytes: int,
) -> tuple[I64, F32, np.ndarray]:
    """(Q codes, Q scales, records) of heads [tokens, heads, head_dim], K and V in format `kv`.

    Records are bytes [tokens, kv_heads, record_bytes].
    """
    q_codes, q_scales = numeric.kv_quant(q, KvFormat.INT16)
    heads = numeric.kv_quant(k, kv), numeric.kv_quant(v, kv)
    packed = pack_records(config, kv, *heads, record_bytes)
    return q_codes, numeric.mul(q_scales, score_scale), packed


class KvQuant(Component):
    """Executes KV_QUANT on the shared lanes: hands out the heads, stores Q, writes K and V.

    For each KV head and each port: for each token whose record lies on it: the KV head's queries,
    K, V. So a head is complete early, and its records are in the order of their places. A row
    holds all q heads, then all k heads, then all v heads.

    Latency: a word of Q is written one cycle after its codes. Throughput: `lanes` codes a cycle.
    Back-pressure: the record writer's `hold`. Reset drops the command, no head is done.

    Ports
    -----
    clear : strobe, sets `heads_done` to zero.
    start, command : strobe, and the command held while `busy` and two cycles before.
    segments : the heads, in order.
    begin, tag, scalar_factor, hold : from and to the Passes unit.
    codes : from the lanes.
    q_write, q_scale : to the attention unit, each token's before its K and V.
    kv : write channel of the KV cache.
    heads_done : KV heads whose queries are with the attention unit and whose K and V are
        acknowledged by the memory; stays until `clear`.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "clear": In(1),
                "start": In(1),
                "command": In(command_layout()),
                "busy": Out(1),
                "segments": Out(stream.Signature(segment_layout(config))),
                "begin": In(1),
                "tag": In(tag_layout(config)),
                "scalar_factor": In(32),
                "hold": Out(1),
                "codes": In(codes_layout(config)),
                "q_write": Out(QueryWriteSignature(config)),
                "q_scale": Out(QueryScaleSignature(config)),
                "kv": Out(WriteChannelSignature(config.bus_bits)),
                "heads_done": Out(range(config.max_heads + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        fields = op_view(self.command, Op.KV_QUANT)
        m.submodules.records = writer = RecordWriter(c)
        connect(m, writer.kv, flipped(self.kv))
        m.d.comb += [
            writer.clear.eq(self.clear),
            writer.start.eq(self.start),
            writer.command.eq(self.command),
            writer.begin.eq(self.begin),
            writer.tag.eq(self.tag),
            writer.factor.eq(self.scalar_factor),
            writer.codes.eq(self.codes),
            self.hold.eq(writer.hold),
            # A head's last record is behind everything else of it.
            self.heads_done.eq(writer.heads_done),
            self.busy.eq(writer.busy),
        ]
        self._elaborate_segments(m, fields)

        tag = self.codes.tag
        word = Signal.like(self.q_write.word)
        valid = self.codes.valid & (tag.kind == Kind.QUERY)
        with m.If(valid):
            m.d.sync += word.eq(Mux(self.codes.last, 0, word + 1))
        m.d.sync += [
            self.q_write.en.eq(valid),
            self.q_write.token.eq(tag.row),
            self.q_write.head.eq(tag.head),
            self.q_write.word.eq(word),
            self.q_write.data.eq(Cat(self.codes.codes[i] for i in range(c.lanes))),
            self.q_scale.en.eq(self.begin & (self.tag.kind == Kind.QUERY)),
            self.q_scale.token.eq(self.tag.row),
            self.q_scale.head.eq(self.tag.head),
            self.q_scale.data.eq(self.scalar_factor),
        ]
        return m

    def _elaborate_segments(self, m: Module, fields: dict) -> None:
        """Heads in order: KV head by KV head, port by port, token by token."""
        c = self._config
        segment = self.segments.payload
        row_index, base_index = segment.row.shape(), segment.base.shape()
        tokens = self.command.tokens
        kind = Signal(Kind)
        row = Signal(row_index)
        first = Signal(row_index)  # of the tokens of a port
        kv_head = Signal(8)
        query = Signal(8)  # of the KV head's
        first_head, head = Signal(8), Signal(8)  # query heads: the KV head's first, the one in turn
        base = Signal(base_index)
        # First words: of the KV head's first query, of the query in turn, of K and V.
        queries, at, key, value = (Signal(base_index, name=n) for n in ("queries", "at", "k", "v"))
        # Words of the queries of a KV head, of all queries, of all K heads.
        group, all_queries, all_keys = (Signal(16, name=n) for n in ("group", "all_q", "all_k"))
        next_row = row + c.ports
        step = fields["head_ew"]
        m.d.sync += [
            group.eq(fields["heads_per_kv"] * step),
            all_queries.eq(group * fields["kv_heads"]),
            all_keys.eq(fields["kv_heads"] * step),
        ]
        m.d.comb += [
            segment.row.eq(row),
            segment.base.eq(base),
            segment.tag.kind.eq(kind),
            segment.tag.row.eq(row),
            segment.tag.head.eq(Mux(kind == Kind.QUERY, head, kv_head)),
            segment.tag.high.eq(0),
        ]
        with m.Switch(kind):
            with m.Case(Kind.KEY):
                m.d.comb += base.eq(key)
            with m.Case(Kind.VALUE):
                m.d.comb += base.eq(value)
            with m.Default():
                m.d.comb += base.eq(at)

        def begin_token(token: Value) -> None:
            m.d.sync += [row.eq(token), kind.eq(Kind.QUERY), query.eq(0)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [first_head.eq(0), head.eq(0), kv_head.eq(0), queries.eq(0), at.eq(0)]
                m.d.sync += first.eq(0)
                begin_token(C(0))
                with m.If(self.start):
                    m.next = "SPANS"
            with m.State("SPANS"):
                # The products of the command's fields, two deep, are there.
                m.d.sync += [key.eq(all_queries), value.eq(all_queries + all_keys)]
                m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.segments.valid.eq(1)
                with m.If(self.segments.ready):
                    with m.Switch(kind):
                        with m.Case(Kind.QUERY):
                            m.d.sync += [query.eq(query + 1), head.eq(head + 1), at.eq(at + step)]
                            with m.If(query + 1 == fields["heads_per_kv"]):
                                m.d.sync += kind.eq(Kind.KEY)
                        with m.Case(Kind.KEY):
                            m.d.sync += kind.eq(Kind.VALUE)
                        with m.Case(Kind.VALUE):
                            m.d.sync += [head.eq(first_head), at.eq(queries)]
                            with m.If(next_row < tokens):
                                begin_token(next_row)
                            with m.Elif((first + 1 < c.ports) & (first + 1 < tokens)):
                                m.d.sync += first.eq(first + 1)
                                begin_token(first + 1)
                            with m.Else():
                                # Query and its word stand at the next KV head's first.
                                m.d.sync += [
                                    kv_head.eq(kv_head + 1),
                                    first_head.eq(head),
                                    head.eq(head),
                                    queries.eq(at),
                                    at.eq(at),
                                    key.eq(key + step),
                                    value.eq(value + step),
                                    first.eq(0),
                                ]
                                begin_token(C(0))
                                with m.If(kv_head + 1 == fields["kv_heads"]):
                                    m.next = "IDLE"
