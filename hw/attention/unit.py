"""Attention of one layer: the queries of a chunk on the KV cache."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from .. import isa
from ..config import AcceleratorConfig
from ..interfaces import (
    QueryScaleSignature,
    QueryWriteSignature,
    ReadChannelSignature,
    RowWriteSignature,
    command_layout,
    op_view,
    row_words,
)
from ..modules import ModuleLibrary
from .accumulate import Accumulator
from .dots import DotStage
from .geometry import ITEMS
from .inverses import Inverses
from .kv_buffer import KvBuffer
from .output import OutputUnit
from .plan import Planner
from .q_buffer import QBuffer
from .reference import reference as reference
from .shape import AttentionShape
from .softmax import SoftmaxStage
from .sums import SumStage


class AttentionUnit(Component):
    """Executes ATTENTION: prefill (many query rows) and decode (few) alike.

    Q codes and scales come through `q_write` and `q_scale`; K and V of all positions up to that of
    the chunk's last token lie in DRAM: those of KV head h, and Q of its query heads, by the time
    that `heads_ready` exceeds h (all ones: they always do). Row `token` of the outputs gets
    numeric.attention_output of each query head in turn, through `o_write`; `clear_o` is high for
    one cycle before the first of them. `reference` states the result bit for bit.

    For each KV head, passes of at most `shape.max_rows` query rows; for each, blocks of 32
    absolute positions from the newest to the oldest, each read once from DRAM and met by all rows
    that see it, in tiles of `shape.rows` rows. An item, a tile on a block, goes through dot
    products on `ports` positions a cycle, softmax, and sums on as many positions; the three work
    on different items at once, across passes and KV heads. `attention_cycles` gives the cycles.

    `cmd.ready` is low while busy; the read channels' back-pressure only delays. `moved`: products
    are made or outputs written in this cycle. Reset: idle; Q stays.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        library: ModuleLibrary | None = None,
        max_rows: int | None = None,
    ) -> None:
        self._shape = AttentionShape.of(config, max_rows)
        self._library = library
        c = config
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout())),
                "busy": Out(1),
                "q_write": In(QueryWriteSignature(c)),
                "q_scale": In(QueryScaleSignature(c)),
                "heads_ready": In(range(c.max_heads + 1)),
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
        m.submodules.plan = plan = Planner(s)
        m.submodules.dots = dots = DotStage(s, self._library)
        m.submodules.softmax = softmax = SoftmaxStage(s)
        m.submodules.inverses = inverses = Inverses(s)
        m.submodules.sums = sums = SumStage(s, self._library)
        m.submodules.accumulator = accumulator = Accumulator(s)
        m.submodules.output = output = OutputUnit(s)

        # Inputs and outputs of the unit.
        connect(m, flipped(self.q_write), queries.q_write)
        connect(m, flipped(self.q_scale), queries.q_scale)
        connect(m, flipped(self.o_write), output.o_write)
        for p in range(s.config.ports):
            connect(m, getattr(blocks, f"kv{p}"), flipped(getattr(self, f"kv{p}")))
        m.d.comb += [
            blocks.heads_ready.eq(self.heads_ready),
            self.moved.eq(dots.moved | sums.moved | self.o_write.en),
        ]

        # Items: described, their dot products, weights, sums and outputs made; counts of each.
        finished = Signal(range(2 * ITEMS))
        with m.If(output.finished):
            m.d.sync += finished.eq(finished + 1)
        job, start = self._command(m, plan.busy | (plan.described != finished))
        m.d.comb += [
            plan.summed.eq(finished),
            dots.described.eq(plan.described),
            dots.read.eq(softmax.read),
            softmax.dots.eq(dots.dots),
            softmax.weighed_out.eq(sums.weighed_out),
            sums.weights.eq(softmax.weights),
            sums.inverses.eq(inverses.inverses),
            dots.valid.eq(blocks.valid),
            blocks.release.eq(sums.free_block),
        ]
        for part in (blocks, plan):
            m.d.comb += [part.job.eq(job), part.start.eq(start)]
        for part in (dots, sums):
            m.d.comb += part.head_beats.eq(job.head_beats)

        # Operands.
        connect(m, dots.item, plan.items0)
        connect(m, softmax.item, plan.items1)
        connect(m, sums.item, plan.items2)
        connect(m, dots.row, plan.q_rows)
        connect(m, softmax.row, plan.rows)
        connect(m, output.place, plan.places)
        connect(m, dots.q, queries.code)
        connect(m, softmax.q_scale, queries.scale)
        connect(m, dots.k, blocks.k)
        connect(m, sums.v, blocks.v)
        connect(m, softmax.k_scale, blocks.k_scale)
        connect(m, softmax.v_scale, blocks.v_scale)

        # From stage to stage.
        connect(m, softmax.dot, dots.dot)
        connect(m, softmax.denominator, inverses.denominator)
        connect(m, sums.weight, softmax.weight)
        connect(m, accumulator.rise, softmax.rise)
        connect(m, output.factor, inverses.factor)
        for part in (accumulator, output):
            m.d.comb += [part.coming.eq(sums.coming), part.word.eq(sums.word)]
        m.d.comb += [accumulator.sums.eq(sums.sums), output.o.eq(accumulator.o)]
        return m

    def _command(self, m: Module, working: Signal) -> tuple[data.View, Signal]:
        """The command port: the job of the running command, and the strobe that starts it."""
        s, c = self._shape, self._shape.config
        job = Signal(s.job())
        fields = op_view(self.cmd.payload, isa.Op.ATTENTION)
        dim_bits = s.dims.bit_length() - 1
        start = Signal()
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
                m.next = "STARTED"
            with m.State("STARTED"):
                m.next = "RUN"
            with m.State("RUN"):
                with m.If(~working):
                    m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return job, start
