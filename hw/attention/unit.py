"""Attention of one layer: the queries of a chunk on the KV cache."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from .. import isa
from ..config import AcceleratorConfig
from ..fp import delay
from ..interfaces import (
    QueryScaleSignature,
    QueryWriteSignature,
    ReadChannelSignature,
    RowWriteSignature,
    command_layout,
    op_view,
    row_words,
)
from .accumulate import Accumulator
from .issue import Issuer
from .kv_buffer import KvBuffer
from .mac import Mac
from .output import OutputUnit
from .q_buffer import QBuffer
from .reference import reference as reference
from .score import ScorePass
from .shape import READ_LATENCY, AttentionShape
from .weights import WeightPass


class AttentionUnit(Component):
    """Executes ATTENTION: prefill (many query rows) and decode (few) alike.

    Q codes and scales come through `q_write` and `q_scale` before the command; K and V of all
    positions up to that of the chunk's last token lie in DRAM. Row `token` of the outputs gets
    numeric.attention_output of each query head in turn, through `o_write`; `clear_o` is high for
    one cycle before the first of them. `reference` states the result bit for bit.

    For each KV head, passes of at most `shape.max_rows` query rows; for each, blocks of 32
    absolute positions from the newest to the oldest, each read once from DRAM and met by all rows
    that see it, `rows` of them in parallel; work on masked positions is skipped. A decode step
    reads every K and V once. An item (a row group on a block of n positions) takes the multipliers
    head_beats * (n + max(n, 8, rows)) cycles and six more, and its softmax some
    rows * (n + 2) + 40 cycles beside them.

    `cmd.ready` is low while busy; the read channels' back-pressure only delays. `moved`: products
    are made or outputs written in this cycle. Reset: idle; Q stays.
    """

    def __init__(self, config: AcceleratorConfig, max_rows: int | None = None) -> None:
        self._shape = AttentionShape.of(config, max_rows)
        c = config
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout())),
                "busy": Out(1),
                "q_write": In(QueryWriteSignature(c)),
                "q_scale": In(QueryScaleSignature(c)),
                **{f"kv{p}": Out(ReadChannelSignature(c.bus_bits)) for p in range(c.ports)},
                "o_write": Out(
                    RowWriteSignature(c.chunk, row_words(c, c.longest_row), c.lanes, 32)
                ),
                "clear_o": Out(1),
                "moved": Out(1),
            }
        )

    @property
    def shape(self) -> AttentionShape:
        return self._shape

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s = self._shape
        m.submodules.queries = queries = QBuffer(s)
        m.submodules.blocks = blocks = KvBuffer(s)
        m.submodules.mac = mac = Mac(s)
        m.submodules.scores = scores = ScorePass(s)
        m.submodules.weights = weights = WeightPass(s)
        m.submodules.accumulator = accumulator = Accumulator(s)
        m.submodules.output = output = OutputUnit(s)
        m.submodules.issuer = issuer = Issuer(s, accumulator.min_period, queries.info_layout)

        job, start, closing = self._command(m, issuer.done, output.done)
        for part in (queries, blocks, issuer, output):
            m.d.comb += part.job.eq(job)
        for part in (queries, blocks, issuer):
            m.d.comb += part.start.eq(start)

        # Inputs and outputs of the unit.
        connect(m, flipped(self.q_write), queries.q_write)
        connect(m, flipped(self.q_scale), queries.q_scale)
        connect(m, flipped(self.o_write), output.o_write)
        for p in range(s.config.ports):
            connect(m, getattr(blocks, f"kv{p}"), flipped(getattr(self, f"kv{p}")))

        # Issue: items and steps.
        connect(m, issuer.info, queries.info)
        m.d.comb += [
            issuer.queries_valid.eq(queries.valid),
            issuer.query_pass.eq(queries.query_pass),
            issuer.blocks_valid.eq(blocks.valid),
            issuer.weights_ready.eq(weights.ready),
            blocks.release.eq(issuer.free_block),
            queries.release.eq(issuer.closed),
        ]
        for part in (scores, weights):
            m.d.comb += [
                part.items.eq(issuer.items),
                part.begin.eq(issuer.begin),
                part.begin_half.eq(issuer.begin_half),
            ]

        # Operands: addresses with the step, multipliers READ_LATENCY later.
        step = issuer.step
        item = issuer.items[step.half]
        m.d.comb += [
            blocks.code.slot.eq(item.slot),
            blocks.code.j.eq(step.j),
            blocks.code.v.eq(step.v),
            blocks.code.beat.eq(step.beat),
            queries.code.half.eq(item.queries),
            queries.code.group.eq(item.group),
            queries.code.beat.eq(step.beat),
            weights.weight.half.eq(step.half),
            weights.weight.j.eq(step.j),
            mac.en.eq(delay(m, step.en, READ_LATENCY)),
            mac.v.eq(delay(m, step.v, READ_LATENCY)),
            mac.first.eq(delay(m, step.first, READ_LATENCY)),
            mac.q.eq(queries.code.data),
            mac.weight.eq(weights.weight.data),
            mac.b.eq(blocks.code.data),
        ]

        # Dot products to scores, scores to weights, sums to outputs.
        ends = step.en & step.last
        m.d.comb += self.moved.eq(step.en | self.o_write.en)
        dot_latency = READ_LATENCY + mac.dot_latency
        m.d.comb += [
            scores.dot.en.eq(delay(m, ends & ~step.v, dot_latency)),
            scores.dot.half.eq(delay(m, step.half, dot_latency)),
            scores.dot.j.eq(delay(m, step.j, dot_latency)),
            scores.dot.data.eq(mac.dot),
            weights.done.eq(scores.done),
            weights.max_p.eq(scores.max_p),
            weights.max_w.eq(scores.max_w),
            weights.closed.eq(output.done),
        ]
        connect(m, scores.scale, blocks.scale)
        connect(m, weights.entry, scores.entry)

        tag = Signal(accumulator.tag_layout(s))
        sum_latency = READ_LATENCY + mac.SUM_LATENCY
        m.d.comb += [
            tag.group.eq(item.group),
            tag.beat.eq(step.beat),
            tag.active.eq(item.active),
            tag.first.eq(item.first),
            tag.rise.eq(weights.rise[step.half]),
            accumulator.add.en.eq(delay(m, ends & step.v, sum_latency)),
            accumulator.add.tag.eq(delay(m, tag, sum_latency, reset_less=True)),
            accumulator.add.sums.eq(mac.sums),
        ]

        # A pass is written once its last sums have reached the accumulator.
        connect(m, output.state, weights.state)
        connect(m, output.read, accumulator.read)
        settle = sum_latency + accumulator.LATENCY + s.rows + 1
        left = Signal(range(settle + 1))
        query_pass = Signal(s.query_pass())
        m.d.comb += [output.start.eq(closing & (left == 1)), output.query_pass.eq(query_pass)]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(issuer.closed):
            m.d.sync += [left.eq(settle), query_pass.eq(queries.query_pass[issuer.closed_half])]
        return m

    def _command(
        self, m: Module, issued: Signal, written: Signal
    ) -> tuple[data.View, Signal, Signal]:
        """The command port: the job of the running command, the strobe that starts the parts, and
        whether a command runs."""
        s, c = self._shape, self._shape.config
        job = Signal(s.job())
        fields = op_view(self.cmd.payload, isa.Op.ATTENTION)
        dim_bits = s.dims.bit_length() - 1
        start = Signal()
        running = Signal()
        m.d.comb += self.clear_o.eq(start)
        with m.FSM(name="command") as fsm:
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                with m.If(self.cmd.valid):
                    m.d.sync += [
                        job.position.eq(self.cmd.payload.position),
                        job.tokens.eq(self.cmd.payload.tokens),
                        job.heads_per_kv.eq(fields["heads_per_kv"]),
                        job.kv_heads.eq(fields["kv_heads"]),
                        job.format.eq(fields["format"]),
                        job.head_beats.eq(fields["head_dims"] >> dim_bits),
                        job.address.eq(fields["address"]),
                        job.head_stride.eq(fields["head_stride"]),
                        job.port_stride.eq(fields["port_stride"]),
                        job.record_bytes.eq(fields["record_bytes"]),
                    ]
                    m.next = "SPLIT"
            with m.State("SPLIT"):
                with m.Switch(job.heads_per_kv):
                    for heads in range(1, c.max_heads + 1):
                        with m.Case(heads):
                            m.d.sync += job.pass_tokens.eq(min(c.chunk, s.max_rows // heads))
                m.next = "SETTLE"
            with m.State("SETTLE"):
                m.next = "START"
            with m.State("START"):
                m.d.comb += start.eq(1)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += running.eq(1)
                with m.If(issued):
                    m.next = "LAST"
            with m.State("LAST"):
                m.d.comb += running.eq(1)
                with m.If(written):
                    m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return job, start, running
