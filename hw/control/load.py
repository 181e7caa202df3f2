"""The load unit: rows and scales from DRAM into the on-chip memories."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from .. import isa, numeric
from ..axi.width import WidthConverter
from ..config import AcceleratorConfig
from ..fp import sanitise
from ..interfaces import (
    ReadChannelSignature,
    RowWriteSignature,
    command_layout,
    op_view,
    row_words,
)
from ..skid import Skid

reference = numeric.sanitise
"""What happens to every word on its way: numeric.sanitise."""


class LoadUnit(Component):
    """Executes LOAD: rows of binary32 from DRAM to the residual, RoPE or gain memory, or a vector
    of row scales to the epilogue.

    Every word is sanitised (no infinities, NaN or subnormals get in).

    Latency: DRAM latency, then one word of `lanes` elements a cycle or the bus rate, whichever is
    lower; requests for all rows are issued ahead of their data. Back-pressure: the row memories
    always take a word; `scales` may stall. Reset drops the command in progress.

    Ports
    -----
    cmd, busy : the unit's command port.
    load : reader's channel of port 0.
    x_write, rope_write, gain_write : row memories.
    clear_x : strobe, before the residual rows of a command arrive.
    scales : row scales, binary32, in row order.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        lanes = c.lanes
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout())),
                "busy": Out(1),
                "load": Out(ReadChannelSignature(c.bus_bits)),
                "x_write": Out(RowWriteSignature(c.chunk, row_words(c, c.max_hidden), lanes, 32)),
                "rope_write": Out(
                    RowWriteSignature(c.chunk, row_words(c, c.max_head_dim), lanes, 32)
                ),
                "gain_write": Out(RowWriteSignature(1, row_words(c, c.longest_row), lanes, 32)),
                "clear_x": Out(1),
                "scales": Out(stream.Signature(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        word_bits = 32 * c.lanes

        # The bus word is cut into elementwise words, or into scales.
        m.submodules.to_word = to_word = WidthConverter(c.bus_bits, word_bits)
        m.submodules.to_scale = to_scale = WidthConverter(c.bus_bits, 32)

        fields = op_view(self.cmd.payload, isa.Op.LOAD)
        dest = Signal(isa.Dest)
        address = Signal(32)
        stride = Signal(32)
        first = Signal(32)  # row of the region that the chunk's first token takes
        rows = Signal(16)
        words = Signal(32)  # of a row, as they are stored
        beats = Signal(24)  # of a row
        requested = Signal(16)
        row = Signal(16)
        word = Signal(32)
        # What is to come of the row in words and beats, and of the rows; nothing is.
        words_left, beats_left, rows_left = Signal(32), Signal(24), Signal(16)
        words_over, beats_over, rows_over = Signal(), Signal(), Signal()

        m.submodules.data = data = Skid(c.bus_bits)
        connect(m, flipped(self.load.data), data.i)

        is_scale = dest == isa.Dest.SCALE
        row_bytes = Signal(34)
        m.d.comb += row_bytes.eq(Mux(is_scale, words << 2, words << exact_log2(word_bits // 8)))

        running = Signal()
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                scales = fields["dest"] == isa.Dest.SCALE
                per_token = (fields["dest"] == isa.Dest.RESIDUAL) | (
                    fields["dest"] == isa.Dest.ROPE
                )
                with m.If(self.cmd.valid):
                    m.d.sync += [
                        dest.eq(fields["dest"]),
                        address.eq(fields["address"]),
                        stride.eq(fields["row_bytes"]),
                        words.eq(Mux(scales, fields["count"], fields["ew"])),
                        rows.eq(Mux(per_token, self.cmd.payload.tokens, 1)),
                        first.eq(0),
                        requested.eq(0),
                        row.eq(0),
                        word.eq(0),
                    ]
                    with m.If(fields["dest"] == isa.Dest.RESIDUAL):
                        m.d.sync += first.eq(self.cmd.payload.done)
                    with m.If(fields["dest"] == isa.Dest.ROPE):
                        m.d.sync += first.eq(self.cmd.payload.position)
                    m.next = "PLACE"
            with m.State("PLACE"):
                m.d.comb += self.clear_x.eq(dest == isa.Dest.RESIDUAL)
                m.d.sync += [
                    first.eq(first * stride),
                    beats.eq((row_bytes + (c.bus_bytes - 1)) >> exact_log2(c.bus_bytes)),
                ]
                m.next = "OFFSET"
            with m.State("OFFSET"):
                m.d.sync += [
                    address.eq(address + first),
                    words_left.eq(words),
                    beats_left.eq(beats),
                    rows_left.eq(rows),
                    words_over.eq(0),
                    beats_over.eq(0),
                    rows_over.eq(0),
                    running.eq(1),
                ]
                m.next = "RUN"
            with m.State("RUN"):
                with m.If(rows_over):
                    m.d.sync += running.eq(0)
                    m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))

        # One descriptor a row, ahead of the data.
        m.d.comb += [
            self.load.req.valid.eq(running & (requested != rows)),
            self.load.req.payload.address.eq(address),
            self.load.req.payload.beats.eq(beats),
        ]
        with m.If(self.load.req.valid & self.load.req.ready):
            m.d.sync += [requested.eq(requested + 1), address.eq(address + stride)]

        # The data go to one of the two converters, which are emptied at the end of a row: a row
        # need not fill its last beat. Beats of the next row wait for that one cycle.
        row_end = Signal()
        m.d.comb += [
            to_word.clear.eq(row_end),
            to_scale.clear.eq(row_end),
            to_word.i.payload.eq(data.o.payload),
            to_scale.i.payload.eq(data.o.payload),
            to_word.i.valid.eq(data.o.valid & running & ~is_scale & ~beats_over),
            to_scale.i.valid.eq(data.o.valid & running & is_scale & ~beats_over),
            data.o.ready.eq(
                running & ~beats_over & Mux(is_scale, to_scale.i.ready, to_word.i.ready)
            ),
        ]
        with m.If(data.o.valid & data.o.ready):
            m.d.sync += [beats_left.eq(beats_left - 1), beats_over.eq(beats_left == 1)]
        with m.If(row_end):
            m.d.sync += [
                beats_left.eq(beats),
                beats_over.eq(0),
                words_left.eq(words),
                words_over.eq(0),
                rows_left.eq(rows_left - 1),
                rows_over.eq(rows_left == 1),
                word.eq(0),
                row.eq(row + 1),
            ]

        clean = Signal(word_bits)
        for i in range(c.lanes):
            m.d.comb += clean[32 * i : 32 * (i + 1)].eq(
                sanitise(to_word.o.payload[32 * i : 32 * (i + 1)])
            )
        storing = running & ~rows_over & ~words_over
        m.d.comb += [
            row_end.eq(running & ~rows_over & words_over & beats_over),
            to_word.o.ready.eq(storing & ~is_scale),
            self.scales.valid.eq(to_scale.o.valid & storing & is_scale),
            self.scales.payload.eq(sanitise(to_scale.o.payload)),
            to_scale.o.ready.eq(self.scales.ready & storing & is_scale),
        ]
        store = to_word.o.valid & to_word.o.ready
        with m.If(store | (self.scales.valid & self.scales.ready)):
            m.d.sync += [
                word.eq(word + 1),
                words_left.eq(words_left - 1),
                words_over.eq(words_left == 1),
            ]
        for port, where in (
            (self.x_write, isa.Dest.RESIDUAL),
            (self.rope_write, isa.Dest.ROPE),
            (self.gain_write, isa.Dest.GAIN),
        ):
            # Registers: the memories' addresses are sums.
            m.d.sync += [
                port.en.eq(store & (dest == where)),
                port.row.eq(row),
                port.word.eq(word),
                port.data.eq(clean),
                port.mask.eq(~0),
            ]
        return m
