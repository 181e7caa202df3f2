"""KV_QUANT: int16 quantisation of Q, K and V heads; K and V go to the KV cache in DRAM."""

from __future__ import annotations

import numpy as np
from amaranth import Cat, Module, Mux, Signal
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
from ..isa import Op
from ..numeric import F32, I64
from . import records
from .lanes import codes_layout
from .passes import Kind, segment_layout, tag_layout


def reference(
    q: F32, k: F32, v: F32, score_scale: np.float32, record_bytes: int
) -> tuple[I64, F32, np.ndarray]:
    """(Q codes, Q scales, records) of heads [tokens, heads, head_dim].

    Records are bytes [tokens, kv_heads, record_bytes]: K codes, V codes, K scale, V scale, zeros.
    """
    q_codes, q_scales = numeric.kv_quant(q)
    (k_codes, k_scales), (v_codes, v_scales) = numeric.kv_quant(k), numeric.kv_quant(v)
    packed = records.reference(k_codes, v_codes, k_scales, v_scales, record_bytes)
    return q_codes, numeric.mul(q_scales, score_scale), packed


class KvQuant(Component):
    """Executes KV_QUANT on the shared lanes: hands out the heads, stores Q, writes K and V.

    Heads of a token go in the order q0, q1, ..., k0, v0, k1, v1, ...; a row holds all q heads, then
    all k heads, then all v heads.

    Latency: a word of Q is written one cycle after its codes. Throughput: `lanes` codes a cycle.
    Back-pressure: the record writer's `hold`. Reset drops the command.

    Ports
    -----
    start, command : strobe, and the command held while `busy`.
    segments : the heads, in order.
    begin, tag, scalar_factor, hold : from and to the Passes unit.
    codes : from the lanes.
    q_write, q_scale : to the attention unit, each token's before its K and V.
    kv : write channel of the KV cache.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
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
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        fields = op_view(self.command, Op.KV_QUANT)
        m.submodules.records = writer = records.RecordWriter(c)
        connect(m, writer.kv, flipped(self.kv))
        m.d.comb += [
            writer.start.eq(self.start),
            writer.command.eq(self.command),
            writer.begin.eq(self.begin),
            writer.tag.eq(self.tag),
            writer.factor.eq(self.scalar_factor),
            writer.codes.eq(self.codes),
            self.hold.eq(writer.hold),
            # The last record is behind everything else.
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
        """Rows and heads in order."""
        c = self._config
        segment = self.segments.payload
        row = Signal(range(max(c.chunk, 2)))
        to_send = Signal(16)  # tokens, this one included
        head = Signal(8)
        base = Signal.like(segment.base)  # of the Q or K head
        span = Signal.like(segment.base)  # words of all K heads
        kind = Signal(Kind)
        m.d.comb += [
            segment.row.eq(row),
            segment.base.eq(Mux(kind == Kind.VALUE, base + span, base)),
            segment.tag.kind.eq(kind),
            segment.tag.row.eq(row),
            segment.tag.head.eq(head),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    to_send.eq(self.command.tokens),
                    row.eq(0),
                    head.eq(0),
                    base.eq(0),
                    kind.eq(Kind.QUERY),
                    span.eq(fields["kv_heads"] * fields["head_ew"]),
                ]
                with m.If(self.start):
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.segments.valid.eq(1)
                with m.If(self.segments.ready):
                    with m.If(kind == Kind.KEY):
                        m.d.sync += kind.eq(Kind.VALUE)
                    with m.Else():
                        m.d.sync += [base.eq(base + fields["head_ew"]), head.eq(head + 1)]
                    with m.If((kind == Kind.QUERY) & (head + 1 == fields["heads"])):
                        m.d.sync += [kind.eq(Kind.KEY), head.eq(0)]
                    with m.If(kind == Kind.VALUE):
                        m.d.sync += kind.eq(Kind.KEY)
                        with m.If(head + 1 == fields["kv_heads"]):
                            m.d.sync += [
                                kind.eq(Kind.QUERY),
                                head.eq(0),
                                base.eq(0),
                                row.eq(row + 1),
                                to_send.eq(to_send - 1),
                            ]
                            with m.If(to_send == 1):
                                m.next = "IDLE"
