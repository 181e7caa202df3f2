"""NORM_QUANT: RMSNorm and int8 quantisation of rows, into the activation memory."""

from __future__ import annotations

import numpy as np
from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from .. import numeric
from ..config import AcceleratorConfig
from ..interfaces import FactorSignature, RowWriteSignature, command_layout, op_view
from ..isa import Op
from ..numeric import F32, I64
from .lanes import codes_layout
from .passes import Kind, segment_layout


def a8_signature(config: AcceleratorConfig) -> RowWriteSignature:
    """Write port of the activation memory: a K tile of int8 a word."""
    tiles = config.k_tiles(config.longest_row)
    return RowWriteSignature(config.chunk, tiles, 1, 8 * config.tile_inputs)


def reference(
    config: AcceleratorConfig,
    x: F32,
    gain: F32 | None,
    norm: bool,
    inv_n: np.float32,
    eps: np.float32,
    head: bool,
) -> tuple[I64, F32]:
    """int8 rows [rows, k_tiles, tile_inputs] and factors [tokens] for rows `x` [tokens, n].

    With `head` the rows are the digits of the last token, high first, and there is one factor.
    """
    if head:
        x = x[-1:]
    digits = 2 if head and config.head_digits == 2 else 1
    codes, factors = numeric.norm_quant(x, gain, norm, inv_n, eps, digits == 2)
    if digits == 2:
        codes = np.concatenate(numeric.head_digits(codes))
    tiles = config.k_tiles(x.shape[-1])
    padded = np.zeros((len(codes), tiles * config.tile_inputs), np.int64)
    padded[:, : x.shape[-1]] = codes
    return padded.reshape(len(codes), tiles, config.tile_inputs), factors


class NormQuant(Component):
    """Executes NORM_QUANT on the shared lanes: hands out the rows, stores codes and factors.

    A row is one segment. With `head` and two head digits the last token's row is quantised twice:
    the high digit, (code + 128) >> 8, goes to row 0 and the low byte to row 1. Elements of the last
    K tile beyond the row are zero. A row is not handed out before it is there.

    Latency: a word of the activation memory is written one cycle after its last codes. Throughput:
    `lanes` codes a cycle. No back-pressure. Reset drops the command.

    Ports
    -----
    start, command : strobe, and the command held while `busy`.
    complete, made : all rows can be read; as many rows can be read.
    done : rows whose codes and factor are stored; counted from `start`.
    segments : the rows, in order.
    codes, scalar_factor, factor_valid : from the lanes and the scalar unit.
    a8_write, factor : activation memory, and the epilogue's factor memory.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "command": In(command_layout()),
                "busy": Out(1),
                "complete": In(1),
                "made": In(range(config.chunk + 1)),
                "done": Out(range(config.chunk + 1)),
                "segments": Out(stream.Signature(segment_layout(config))),
                "codes": In(codes_layout(config)),
                "scalar_factor": In(32),
                "factor_valid": In(1),
                "a8_write": Out(a8_signature(config)),
                "factor": Out(FactorSignature(config.chunk)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        head = op_view(self.command, Op.NORM_QUANT)["head"]
        digits = c.head_digits
        tokens = self.command.tokens

        # Segments; what is still to come of codes (rows written) and factors.
        to_send = Signal(16)
        row = Signal(range(max(c.chunk, 2)))
        to_write = Signal(16)
        to_factor = Signal(16)
        token = Signal.like(row)
        segment = self.segments.payload
        left = Mux(to_write > to_factor, to_write, to_factor)
        m.d.comb += [
            self.done.eq(Mux(head, 0, tokens - left)),
            self.segments.valid.eq((to_send != 0) & (self.complete | (row < self.made))),
            segment.row.eq(row),
            segment.base.eq(0),
            segment.tag.kind.eq(Kind.INT8),
            segment.tag.row.eq(Mux(head, 0, row)),
            segment.tag.high.eq(head & (digits == 2)),
        ]
        with m.If(self.segments.valid & self.segments.ready):
            m.d.sync += [to_send.eq(to_send - 1), row.eq(row + 1)]
        with m.If(self.start):
            m.d.sync += [
                to_send.eq(Mux(head, 1, tokens)),
                row.eq(Mux(head, tokens - 1, 0)),
                to_write.eq(Mux(head, digits, tokens)),
                to_factor.eq(Mux(head, 1, tokens)),
                token.eq(0),
            ]

        m.d.sync += [
            self.factor.en.eq(self.factor_valid & (to_factor != 0)),
            self.factor.data.eq(self.scalar_factor),
            self.factor.token.eq(token),
        ]
        with m.If(self.factor_valid & (to_factor != 0)):
            m.d.sync += [to_factor.eq(to_factor - 1), token.eq(token + 1)]

        # Words of codes fill a K tile from its low end; the first one clears the rest.
        words = c.tile_inputs // c.lanes
        tag = self.codes.tag
        valid = self.codes.valid & (tag.kind == Kind.INT8)
        part = Signal(range(max(words, 2)))
        tile = Signal(8 * c.tile_inputs, reset_less=True)
        m.d.comb += [self.a8_write.data.eq(tile), self.a8_write.mask.eq(1)]
        digit = []
        for i in range(c.lanes):
            code = self.codes.codes[i]
            digit.append(Mux(tag.high, (code[8:] + code[7])[:8], code[:8]))
        with m.If(valid):
            for w in range(words):
                here = tile[8 * c.lanes * w : 8 * c.lanes * (w + 1)]
                with m.If(part == w):
                    m.d.sync += here.eq(Cat(digit))
                with m.Elif(part == 0):
                    m.d.sync += here.eq(0)
        full = valid & ((part == words - 1) | self.codes.last)
        with m.If(valid):
            m.d.sync += part.eq(Mux(full, 0, part + 1))
        m.d.sync += self.a8_write.en.eq(full)
        second = (digits == 2) & head & ~tag.high
        ended = Signal()
        m.d.sync += ended.eq(valid & self.codes.last)
        with m.If(valid):
            m.d.sync += self.a8_write.row.eq(tag.row | second)
        with m.If(self.a8_write.en):
            m.d.sync += self.a8_write.word.eq(Mux(ended, 0, self.a8_write.word + 1))
        with m.If(ended):
            m.d.sync += to_write.eq(to_write - 1)
        m.d.comb += self.busy.eq(
            (to_write != 0) | (to_factor != 0) | self.factor.en | self.a8_write.en
        )
        return m
