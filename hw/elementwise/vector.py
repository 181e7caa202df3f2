"""The vector unit: NORM_QUANT and KV_QUANT on one set of binary32 lanes."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..config import AcceleratorConfig
from ..interfaces import (
    FactorSignature,
    QueryScaleSignature,
    QueryWriteSignature,
    RowReadSignature,
    WriteChannelSignature,
    command_layout,
    op_view,
    row_words,
)
from ..isa import Op, Source
from ..skid import Skid
from .cycles import dividers
from .head_scales import HeadScales
from .kv_quant import KvQuant
from .lanes import Lanes
from .norm_quant import NormQuant, a8_signature
from .passes import SEGMENTS, Passes, segment_layout
from .rows import stats_latency
from .scalar import Scalar, measured_layout


class VectorUnit(Component):
    """Executes NORM_QUANT (row memory to int8 activations) and KV_QUANT (row memory to the
    attention unit and the KV cache). The numbers are those of `numeric.norm_quant` and
    `numeric.kv_quant`; `norm_quant.reference` and `kv_quant.reference` say where they go.

    A row (head) is read once, `lanes` elements a cycle: z = x * gain is measured and kept in a
    ring. Once the row's scale is known z is quantised, while the next rows are measured.

    Latency and throughput: `norm_quant_cycles` and `kv_quant_cycles` (cycles.py). A row takes ew
    cycles, or the time of the scalar unit if that is more; a head takes head_ew cycles, or a
    division's share.
    Back-pressure: the KV write channel; all else is taken at once. Reset drops the command in hand.

    Ports
    -----
    cmd, busy : the unit's command port.
    making, made : the linear unit is at work; the rows of its command that are complete, for a
        NORM_QUANT with `follow`.
    done : rows of the NORM_QUANT in progress whose codes and factor are stored.
    x_read, f_read, gain_read : row memories. x_taken: another reader has X in this cycle.
    x_max_row, x_max, f_max_row, f_max : their statistics.
    a8_write : activation memory; factor : factor of a token's sums, to the epilogue.
    q_write, q_scale : codes and scales of query heads, to the attention unit.
    kv : write channel of the KV cache.
    heads_done : KV heads of the KV_QUANT in hand, or the last one, that attention may begin on:
        their queries are with the attention unit, their K and V acknowledged by the memory. Zero
        from the cycle after a KV_QUANT is taken.
    moved : codes go to the activation memory or to the attention unit in this cycle.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        row_bits = range(max(c.chunk, 2))
        hidden, row = row_words(c, c.max_hidden), row_words(c, c.longest_row)
        width = 32 * c.lanes
        ports: dict = {
            "cmd": In(stream.Signature(command_layout())),
            "busy": Out(1),
            "making": In(1),
            "made": In(range(c.chunk + 1)),
            "done": Out(range(c.chunk + 1)),
            "x_read": Out(RowReadSignature(c.chunk, hidden, width)),
            "x_taken": In(1),
            "f_read": Out(RowReadSignature(c.chunk, row, width)),
            "gain_read": Out(RowReadSignature(1, row, width)),
            "a8_write": Out(a8_signature(c)),
            "factor": Out(FactorSignature(c.chunk)),
            "q_write": Out(QueryWriteSignature(c)),
            "q_scale": Out(QueryScaleSignature(c)),
            "kv": Out(WriteChannelSignature(c.bus_bits)),
            "heads_done": Out(range(c.max_heads + 1)),
            "moved": Out(1),
        }
        for name in "xf":
            ports |= {f"{name}_max_row": Out(row_bits), f"{name}_max": In(8)}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        m.submodules.norm_quant = norm = NormQuant(c)
        m.submodules.kv_quant = kv = KvQuant(c)
        m.submodules.passes = passes = Passes(c)
        m.submodules.lanes = lanes = Lanes(c)
        m.submodules.scalar = scalar = Scalar()
        m.submodules.heads = heads = HeadScales(dividers(c.lanes))

        command = Signal(command_layout())
        is_kv = Signal()
        fields = op_view(command, Op.NORM_QUANT)
        kv_fields = op_view(command, Op.KV_QUANT)
        settle = Signal(range(stats_latency(c.lanes) + 1))
        start = Signal()
        taken = self.cmd.valid & self.cmd.ready
        unfinished = Signal()  # from RUN's end on
        m.d.sync += unfinished.eq(Mux(is_kv, kv.busy, norm.busy))
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [command.eq(self.cmd.payload), settle.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                # The last writes of the row's producer reach the statistics.
                m.d.sync += settle.eq(settle + 1)
                m.d.sync += is_kv.eq(fields["op"] == Op.KV_QUANT)
                with m.If(settle == stats_latency(c.lanes)):
                    m.d.comb += start.eq(1)
                    m.next = "RUN"
            with m.State("RUN"):
                m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(~unfinished):
                    m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        m.d.sync += self.moved.eq(self.a8_write.en | self.q_write.en)
        # From when on the command is here: the linear unit's next one waits for this one's rows.
        complete = Signal()
        with m.If(self.cmd.valid & self.cmd.ready):
            m.d.sync += complete.eq(~op_view(self.cmd.payload, Op.NORM_QUANT)["follow"])
        with m.Elif(~self.making):
            m.d.sync += complete.eq(1)
        m.d.comb += [norm.complete.eq(complete), norm.made.eq(self.made)]
        # Not those of the command before.
        m.d.sync += self.done.eq(Mux(fsm.ongoing("WAIT") & ~is_kv, norm.done, 0))

        # Row memories. Only the one that is read sees `en`: others have readers of their own.
        source = Signal(Source)
        m.d.sync += source.eq(Mux(is_kv, Source.ROW, fields["source"]))
        m.d.comb += passes.stall.eq(self.x_taken & (source == Source.RESIDUAL))
        rows = {Source.RESIDUAL: "x", Source.ROW: "f"}
        for which, name in rows.items():
            read = getattr(self, f"{name}_read")
            m.d.comb += [
                read.en.eq(passes.en & (source == which)),
                read.row.eq(passes.row),
                read.word.eq(passes.word),
                getattr(self, f"{name}_max_row").eq(passes.max_row),
            ]
            with m.If(source == which):
                m.d.comb += [
                    lanes.x.eq(read.data),
                    passes.max.eq(getattr(self, f"{name}_max")),
                ]
        m.d.comb += [
            lanes.use_gain.eq(fields["gain"] & ~is_kv),
            self.gain_read.en.eq(passes.en & lanes.use_gain),
            self.gain_read.word.eq(passes.word),
            lanes.gain.eq(self.gain_read.data),
        ]

        # Segments come from the unit that executes the command.
        norm_turn = ~is_kv
        m.submodules.segments = segments = Skid(segment_layout(c))
        connect(m, segments.o, passes.segments)
        m.d.comb += [
            norm.start.eq(start & norm_turn),
            kv.start.eq(start & is_kv),
            kv.clear.eq(taken & (op_view(self.cmd.payload, Op.KV_QUANT)["op"] == Op.KV_QUANT)),
            self.heads_done.eq(kv.heads_done),
            norm.command.eq(command),
            kv.command.eq(command),
            passes.words.eq(Mux(is_kv, kv_fields["head_ew"], fields["ew"])),
            segments.i.payload.eq(
                Mux(is_kv, kv.segments.payload.as_value(), norm.segments.payload.as_value())
            ),
            segments.i.valid.eq(Mux(is_kv, kv.segments.valid, norm.segments.valid)),
            kv.segments.ready.eq(segments.i.ready & is_kv),
            norm.segments.ready.eq(segments.i.ready & norm_turn),
            passes.hold.eq(kv.hold),
            kv.begin.eq(passes.begin),
            kv.tag.eq(passes.tag),
            kv.scalar_factor.eq(passes.factor),
        ]

        # Lanes, and what makes scales of what they measure.
        m.submodules.measured = measured = SyncFIFO(width=measured_layout().size, depth=SEGMENTS)
        m.d.comb += [
            lanes.measure.eq(passes.measure),
            lanes.quantise.eq(passes.quantise),
            measured.w_en.eq(lanes.measured),
            measured.w_data.eq(lanes.result),
            scalar.i.payload.eq(measured.r_data),
            heads.i.payload.eq(measured.r_data),
            scalar.i.valid.eq(measured.r_rdy & ~is_kv),
            heads.i.valid.eq(measured.r_rdy & is_kv),
            measured.r_en.eq(Mux(is_kv, heads.i.ready, scalar.i.ready)),
            passes.scaled.eq(scalar.scaled | heads.scaled),
            passes.scales.scale.eq(Mux(is_kv, heads.scale, scalar.scale)),
            passes.scales.factor.eq(heads.factor),
            scalar.parameters.head.eq(fields["head"] & (c.head_digits == 2)),
            scalar.parameters.norm.eq(fields["norm"]),
            scalar.parameters.inv_n.eq(fields["inv_n"]),
            scalar.parameters.eps.eq(fields["eps"]),
            heads.format.eq(kv_fields["format"]),
            heads.score_scale.eq(kv_fields["score_scale"]),
            norm.codes.eq(lanes.codes),
            kv.codes.eq(lanes.codes),
            norm.scalar_factor.eq(scalar.factor),
            norm.factor_valid.eq(scalar.factor_valid),
        ]
        connect(m, norm.factor, flipped(self.factor))
        connect(m, kv.q_write, flipped(self.q_write))
        connect(m, kv.q_scale, flipped(self.q_scale))
        connect(m, norm.a8_write, flipped(self.a8_write))
        connect(m, kv.kv, flipped(self.kv))
        return m
