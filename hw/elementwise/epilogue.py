"""The elementwise pipeline behind the table-lookup array: sums of a linear to rows of binary32."""

from __future__ import annotations

import numpy as np
from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from .. import isa, numeric
from ..config import AcceleratorConfig
from ..fp import Mul, delay, register
from ..interfaces import (
    ROW_READ_LATENCY,
    FactorSignature,
    RowReadSignature,
    RowWriteSignature,
    WriteChannelSignature,
    command_layout,
    op_view,
    row_words,
)
from ..isa import Mode
from ..skid import Skid
from . import head, pair
from .modulo import Modulo
from .pair import LanePair
from .rows import stats_latency

_ONE = int(np.float32(1).view(np.uint32))

_SCALES_AT = 1 + Mul.LATENCY  # factor read, then the two scale products
_START = _SCALES_AT - LanePair.SCALE_AT  # when the lane pairs get the sums
_ROTATION_AT = _START + LanePair.ROTATION_AT
_X_AT = _START + LanePair.X_AT
_LINEAR_AT = _START + LanePair.LINEAR_AT
_GLU_AT = _START + LanePair.GLU_AT
_OFFSET_AT = 2  # segments compared, then the word within the segment
_MODULO_LATENCY = _ROTATION_AT - ROW_READ_LATENCY - _OFFSET_AT


def beat_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A beat of sums: rows `word` * lanes and up of one token. HEAD: one row, in acc[0] the sum of
    the high (or only) digit, in acc[1] that of the low digit."""
    return data.StructLayout(
        {
            "token": unsigned((max(config.chunk, 2) - 1).bit_length()),
            "word": unsigned(16),
            "acc": data.ArrayLayout(signed(config.acc_bits), config.lanes),
        }
    )


def reference(
    mode: Mode,
    acc: np.ndarray,
    factor: numeric.F32,
    scales: numeric.F32,
    segments: tuple[int, int] = (0, 0),
    rope: int = 0,
    head_elements: int = 0,
    rotation: numeric.F32 | None = None,
    residual: numeric.F32 | None = None,
) -> numeric.F32:
    """What a LINEAR other than HEAD (see `head.reference`) writes.

    acc [tokens, rows] are the sums, factor [tokens], scales [3, 2] those of segment and parity;
    QKV: segments are the rows where segments 1 and 2 begin, rope has a bit a segment, rotation
    [tokens, head_elements] is pairs of cosine and sine. RESIDUAL: residual [tokens, rows].
    Returns [tokens, rows], for the GLU modes [tokens, rows / 2].
    """
    row = np.arange(acc.shape[1])
    segment = np.zeros_like(row)
    if mode is Mode.QKV:
        segment = (row >= segments[0]).astype(int) + (row >= segments[1])
    y = pair.dequantise(acc, factor[:, None], scales[segment, row % 2])
    if mode is Mode.RESIDUAL:
        assert residual is not None
        return numeric.add(residual, y)
    if mode in (Mode.GLU_RELU2, Mode.GLU_SILU):
        return pair.gated(y[:, 0::2], y[:, 1::2], silu=mode is Mode.GLU_SILU)
    if mode is Mode.QKV and rope:
        assert rotation is not None
        out = y.copy()
        begins = (0, *segments)
        for s in range(3):
            if rope >> s & 1:
                even = row[(segment == s) & (row % 2 == 0)]
                at = (even - begins[s]) % head_elements
                out[:, even], out[:, even + 1] = pair.rotate(
                    y[:, even], y[:, even + 1], rotation[:, at], rotation[:, at + 1]
                )
        return out
    return y


class Epilogue(Component):
    """Turns the sums of a LINEAR into its results, by the command's mode (isa.Mode).

    Per lane y = fl(fl(acc) * fl(d[token] * weight scale)), the weight scale by segment (QKV; else
    segment 0) and row parity. PLAIN: F <- y. RESIDUAL: X <- fl(X + y). QKV: F <- y, rotated on the
    segments that ask for it. GLU: F[n / 2] <- act(y[n]) * y[n + 1], n even: half words. HEAD: see
    `Head`; d is that of token 0.

    One beat a cycle; `i.ready` falls in HEAD mode only. Writes come LATENCY cycles after their beat
    (in the GLU modes GLU_LATENCY). A word of X must not come twice within LATENCY cycles. `start`
    is strobed before the first beat of a command; `command` stays from then until `idle`: nothing
    offered or in flight, row statistics settled, logits acknowledged (HEAD: low from the cycle
    after `start`). Reset drops what is in flight; factors stay.

    Ports
    -----
    command, start : the LINEAR command.
    i : sums, see `beat_layout`.
    factor : writes d[token]; not to change while a command that uses the token runs.
    x_read, x_write, f_write, rope_read : row memories.
    scales : HEAD: weight scale of each vocabulary entry, binary32.
    scales_left : there are some that no HEAD has taken.
    logits : HEAD: written from `address` on.
    argmax, argmax_logit : id and binary32 logit of the last HEAD's largest logit.
    """

    LATENCY = _LINEAR_AT + 1
    GLU_LATENCY = _GLU_AT + 1

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        x_words, f_words = row_words(c, c.max_hidden), row_words(c, c.longest_row)
        super().__init__(
            {
                "command": In(command_layout()),
                "start": In(1),
                "i": In(stream.Signature(beat_layout(c))),
                "factor": In(FactorSignature(c.chunk)),
                "x_read": Out(RowReadSignature(c.chunk, x_words, c.lanes * 32)),
                "x_write": Out(RowWriteSignature(c.chunk, x_words, c.lanes, 32)),
                "f_write": Out(RowWriteSignature(c.chunk, f_words, c.lanes, 32)),
                "rope_read": Out(
                    RowReadSignature(c.chunk, row_words(c, c.max_head_dim), c.lanes * 32)
                ),
                "scales": In(stream.Signature(32)),
                "scales_left": Out(1),
                "logits": Out(WriteChannelSignature(c.bus_bits)),
                "argmax": Out(32),
                "argmax_logit": Out(32),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        fields = op_view(self.command, isa.Op.LINEAR)
        mode = fields["mode"]
        # The first beat comes more than a cycle after the command.
        is_head, is_qkv = register(m, mode == Mode.HEAD), register(m, mode == Mode.QKV)
        is_residual = register(m, mode == Mode.RESIDUAL)
        is_silu = register(m, mode == Mode.GLU_SILU)
        is_glu = register(m, (mode == Mode.GLU_SILU) | (mode == Mode.GLU_RELU2))
        beat = self.i.payload

        m.submodules.factors = factors = Memory(
            shape=unsigned(32),
            depth=max(c.chunk, 2),
            init=[],
            attrs={"ram_style": "distributed"},
        )
        write, read = factors.write_port(), factors.read_port()
        m.d.comb += [
            write.en.eq(self.factor.en),
            write.addr.eq(self.factor.token),
            write.data.eq(self.factor.data),
            read.en.eq(1),
            read.addr.eq(Mux(is_head, 0, beat.token)),
        ]

        # HEAD
        m.submodules.head = unit = head.Head(c)
        m.submodules.scales = scales = Skid(32)
        connect(m, flipped(self.scales), scales.i)
        connect(m, scales.o, unit.scales)
        m.d.comb += self.scales_left.eq(scales.o.valid)
        connect(m, unit.logits, flipped(self.logits))
        m.d.comb += [
            unit.start.eq(self.start & (mode == Mode.HEAD)),
            unit.rows.eq(fields["out_rows"]),
            unit.planes.eq(fields["planes"]),
            unit.address.eq(fields["address"]),
            unit.factor.eq(read.data),
            unit.i.valid.eq(self.i.valid & is_head),
            unit.i.payload.high.eq(beat.acc[0]),
            unit.i.payload.low.eq(beat.acc[1]),
            self.i.ready.eq(Mux(is_head, unit.i.ready, 1)),
            self.argmax.eq(unit.argmax),
            self.argmax_logit.eq(unit.argmax_logit),
        ]

        # The other modes: what goes along with a beat, and when.
        valid = self.i.valid & ~is_head
        linear = delay(m, valid, _LINEAR_AT)
        gated = delay(m, linear & is_glu, _GLU_AT - _LINEAR_AT)
        flight = Signal(range(self.GLU_LATENCY + stats_latency(c.lanes) + 2))
        with m.If(valid):
            m.d.sync += flight.eq(self.GLU_LATENCY + stats_latency(c.lanes) + 1)
        with m.Elif(flight != 0):
            m.d.sync += flight.eq(flight - 1)
        m.d.comb += self.idle.eq((flight == 0) & ~unit.busy & ~self.i.valid)

        tag = data.StructLayout({"token": beat.token.shape(), "word": unsigned(16)})
        now = Signal(tag)
        m.d.comb += [now.token.eq(beat.token), now.word.eq(beat.word)]

        def later(value: data.View, cycles: int) -> data.View:
            return delay(m, value, cycles, reset_less=True)

        at_rotation = later(now, _ROTATION_AT - ROW_READ_LATENCY)
        at_x = later(at_rotation, _X_AT - _ROTATION_AT)
        at_linear = later(at_x, _LINEAR_AT - _X_AT + ROW_READ_LATENCY)
        at_glu = later(at_linear, _GLU_AT - _LINEAR_AT)

        # Scales by segment.
        second = register(m, is_qkv & (beat.word >= fields["segment0"]))
        third = register(m, is_qkv & (beat.word >= fields["segment1"]))
        products = []
        for parity in ("even", "odd"):
            m.submodules[f"scale_{parity}"] = scale = Mul()
            chosen = [fields[f"scale{s}_{parity}"] for s in range(3)]
            m.d.comb += [
                scale.a.eq(read.data),
                scale.b.eq(Mux(third, chosen[2], Mux(second, chosen[1], chosen[0]))),
            ]
            products.append(scale.o)

        # RoPE: the word within the head, by the remainder of the word within the segment.
        rope = fields["rope"]
        rotate = register(m, is_qkv & Mux(third, rope[2], Mux(second, rope[1], rope[0])))
        begin = Mux(third, fields["segment1"], Mux(second, fields["segment0"], 0))
        m.submodules.modulo = modulo = Modulo(
            (row_words(c, c.max_row) - 1).bit_length(), len(fields["head_ew"]), _MODULO_LATENCY
        )
        m.d.comb += [
            modulo.value.eq(register(m, later(now, 1).word - begin)),
            modulo.divisor.eq(fields["head_ew"]),
        ]
        rotate = delay(m, rotate, _MODULO_LATENCY, reset_less=True)
        m.d.comb += [
            self.rope_read.en.eq(delay(m, valid, _ROTATION_AT - ROW_READ_LATENCY) & rotate),
            self.rope_read.row.eq(at_rotation.token),
            self.rope_read.word.eq(modulo.o),
        ]
        rotate = delay(m, rotate, ROW_READ_LATENCY, reset_less=True)

        m.d.comb += [
            self.x_read.en.eq(delay(m, valid & is_residual, _X_AT - ROW_READ_LATENCY)),
            self.x_read.row.eq(at_x.token),
            self.x_read.word.eq(at_x.word),
        ]

        # The lanes.
        results, halves = [], []
        for n in range(c.lanes // 2):
            m.submodules[f"pair{n}"] = lane = LanePair(c.acc_bits)
            even, odd = slice(64 * n, 64 * n + 32), slice(64 * n + 32, 64 * n + 64)
            rotation, x = self.rope_read.data, self.x_read.data
            m.d.comb += [
                lane.acc_even.eq(delay(m, beat.acc[2 * n], _START, reset_less=True)),
                lane.acc_odd.eq(delay(m, beat.acc[2 * n + 1], _START, reset_less=True)),
                lane.scale_even.eq(products[0]),
                lane.scale_odd.eq(products[1]),
                lane.cosine.eq(Mux(rotate, rotation[even], _ONE)),
                lane.sine.eq(Mux(rotate, rotation[odd], 0)),
                lane.x_even.eq(x[even]),
                lane.x_odd.eq(x[odd]),
                lane.residual.eq(is_residual),
                lane.glu.eq(is_glu),
                lane.silu.eq(is_silu),
            ]
            results += [lane.even, lane.odd]
            halves.append(lane.gated)

        # Writes, a cycle later. A GLU beat fills one half of a word of F.
        half = c.lanes // 2
        upper = at_glu.word[0]
        m.d.sync += [
            self.x_write.en.eq(linear & is_residual),
            self.x_write.row.eq(at_linear.token),
            self.x_write.word.eq(at_linear.word),
            self.x_write.data.eq(Cat(results)),
            self.x_write.mask.eq(~0),
            self.f_write.en.eq(Mux(is_glu, gated, linear & ~is_residual)),
            self.f_write.row.eq(Mux(is_glu, at_glu.token, at_linear.token)),
            self.f_write.word.eq(Mux(is_glu, at_glu.word[1:], at_linear.word)),
            self.f_write.data.eq(Mux(is_glu, Cat(halves, halves), Cat(results))),
            self.f_write.mask.eq(
                Mux(is_glu, Cat((~upper).replicate(half), upper.replicate(half)), ~0)
            ),
        ]
        return m
