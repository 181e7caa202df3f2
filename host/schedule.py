"""The command list of a decoder, in the order of execution.

A gain row is loaded while the linear runs that comes after the norm that used the row before. A
norm follows the linear that makes its rows, a linear the norm that makes its activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terntable.host.image import Region, align
from terntable.host.linears import Part
from terntable.host.packing import PackedStream, TilePlan
from terntable.host.program import ProgramBuilder
from terntable.host.shapes import Shapes
from terntable.hw import numeric
from terntable.hw.isa import Dest, Mode, Op, Source

_NEVER = 0xFFFF
"""A segment boundary that no row reaches."""
_ROW_OF = {Source.RESIDUAL: "X", Source.ROW: "F"}
GainKey = tuple[int, str]
"""Layer and name; the final gain is (layers, 'final')."""


@dataclass(frozen=True)
class Constants:
    """What the program needs from the weights: parts by layer and matrix, padded gain rows."""

    parts: list[dict[str, list[Part]]]
    gains: dict[GainKey, NDArray[np.float32]]


class Schedule:
    """Builds the program. Without `regions` every address is 0: its length stays the same."""

    def __init__(
        self,
        shapes: Shapes,
        head_plan: TilePlan,
        constants: Constants,
        regions: dict[str, Region],
        weights: PackedStream,
        head: PackedStream,
    ) -> None:
        self._shapes, self._head_plan, self._constants = shapes, head_plan, constants
        self._regions, self._weights, self._head = regions, weights, head
        self._program = ProgramBuilder()
        self._gain_at: dict[GainKey, int] = {}
        at = self._base("gains")
        for key, row in constants.gains.items():
            self._gain_at[key] = at
            at += align(row.nbytes)

    def encode(self) -> bytes:
        """The program's bytes: the layers for each chunk, then the head once."""
        spec, shapes = self._shapes.spec, self._shapes
        self._fetch("weights", self._weights)
        row_bytes = align(4 * shapes.hidden, shapes.config.bus_bytes)
        self._load_rows(Dest.RESIDUAL, "X", self._base("input"), row_bytes, shapes.hidden)
        self._load_gain((0, "attn_norm"))
        for n in range(spec.layers):
            self._attention(n)
            self._feed_forward(n)
        self._program.add(Op.CHUNK)
        self._load_gain((spec.layers, "final"))
        self._fetch("head", self._head)
        hidden = (shapes.hidden, spec.hidden)
        self._norm_quant(Source.RESIDUAL, hidden, (spec.layers, "final"), head=True)
        # The head takes its scales from this LOAD while it runs: it must not wait for it.
        self._program.add(
            Op.LOAD,
            dest=Dest.SCALE,
            address=self._base("head_scales"),
            row_bytes=0,
            ew=0,
            count=spec.vocab,
        )
        self._linear(
            Mode.HEAD,
            self._head_plan,
            self._shapes.head_rows,
            writes="logits",
            single=1,
            planes=self._shapes.planes,
            address=self._base("logits"),
        )
        self._program.add(Op.END)
        return self._program.encode()

    # ------------------------------------------------------------ blocks

    def _attention(self, n: int) -> None:
        spec, shapes, lanes = self._shapes.spec, self._shapes, self._shapes.config.lanes
        kv_fields: dict[str, Any] = {
            "format": shapes.kv,
            "address": self._base("kv") + n * shapes.kv_layer_stride,
            "head_stride": shapes.kv_head_stride,
            "port_stride": shapes.kv_port_stride,
            "record_bytes": shapes.record_bytes,
        }
        self._norm_quant(Source.RESIDUAL, (shapes.hidden, spec.hidden), (n, "attn_norm"))
        if n == 0:
            self._load_rows(Dest.ROPE, "rope", self._base("rope"), shapes.rope_bytes, shapes.head)
        sub_gain = (n, "attn_sub_norm")
        self._parts(Mode.QKV, n, "qkv", reads="rope", writes="F")
        self._load_gain(sub_gain if sub_gain in self._gain_at else (n, "ffn_norm"))
        self._program.add(
            Op.KV_QUANT,
            reads=["F"],
            writes=["Q", ("kv", n)],
            heads_per_kv=spec.heads // spec.kv_heads,
            kv_heads=spec.kv_heads,
            head_ew=shapes.head // lanes,
            score_scale=math.log2(math.e) / math.sqrt(spec.head_dim),
            **kv_fields,
        )
        self._program.add(
            Op.ATTENTION,
            reads=["Q", ("kv", n)],
            writes=["F"],
            # The outputs of a KV head go where its queries were.
            follows={Op.KV_QUANT: ["Q", ("kv", n), "F"]},
            heads_per_kv=spec.heads // spec.kv_heads,
            kv_heads=spec.kv_heads,
            head_dims=shapes.head,
            **kv_fields,
        )
        elements = (shapes.attention, spec.heads * spec.head_dim)
        self._norm_quant(Source.ROW, elements, sub_gain, norm=spec.attn_sub_norm)
        self._parts(Mode.RESIDUAL, n, "o", reads="X", writes="X")
        if sub_gain in self._gain_at:
            self._load_gain((n, "ffn_norm"))

    def _feed_forward(self, n: int) -> None:
        spec, shapes, sub_gain = self._shapes.spec, self._shapes, (n, "ffn_sub_norm")
        hidden = (shapes.hidden, spec.hidden)
        self._norm_quant(Source.RESIDUAL, hidden, (n, "ffn_norm"))
        # The last layer's next norm is after the CHUNK.
        following = [(n + 1, "attn_norm")] if n + 1 < spec.layers else []
        gains = [sub_gain, *following] if sub_gain in self._gain_at else following
        mode = Mode.GLU_SILU if spec.activation == "silu" else Mode.GLU_RELU2
        self._parts(mode, n, "glu", writes="F")
        for key in gains[:1]:
            self._load_gain(key)
        self._norm_quant(Source.ROW, (shapes.ffn, spec.ffn), sub_gain, norm=spec.ffn_sub_norm)
        self._parts(Mode.RESIDUAL, n, "down", reads="X", writes="X")
        for key in gains[1:]:
            self._load_gain(key)

    # ------------------------------------------------------------ commands

    def _base(self, region: str) -> int:
        return self._regions[region].offset if self._regions else 0

    def _fetch(self, region: str, stream: PackedStream) -> None:
        self._program.add(
            Op.FETCH,
            address=self._base(region),
            port_stride=align(stream.data.shape[1]),
            beats=stream.beats,
            words=stream.words,
        )

    def _load_rows(
        self, dest: Dest, resource: str, address: int, row_bytes: int, width: int
    ) -> None:
        self._program.add(
            Op.LOAD,
            writes=[resource],
            dest=dest,
            address=address,
            row_bytes=row_bytes,
            ew=width // self._shapes.config.lanes,
            count=0,
        )

    def _load_gain(self, key: GainKey) -> None:
        row = self._constants.gains[key]
        self._load_rows(Dest.GAIN, "gain", self._gain_at[key], 0, row.size)

    def _norm_quant(
        self,
        source: Source,
        elements: tuple[int, int],
        key: GainKey,
        head: bool = False,
        norm: bool = True,
    ) -> None:
        """`elements` of a row with and without padding. A sub-norm that the model lacks leaves the
        quantisation, and a gain if there is one."""
        gain, row = int(key in self._gain_at), _ROW_OF[source]
        self._program.add(
            Op.NORM_QUANT,
            reads=[row, *(["gain"] if gain else [])],
            writes=["A8"],
            # A linear has read the activations of a token when its rows are complete.
            follows=None if head else {Op.LINEAR: [row, "A8"]},
            source=source,
            norm=int(norm),
            gain=gain,
            head=int(head),
            ew=elements[0] // self._shapes.config.lanes,
            inv_n=1 / elements[1],
            eps=float(numeric.finish(self._shapes.spec.eps)),
        )

    def _parts(
        self, mode: Mode, n: int, name: str, *, writes: str, reads: str | None = None
    ) -> None:
        """The LINEARs of a layer's matrix."""
        lanes = self._shapes.config.lanes
        for part in self._constants.parts[n][name]:
            fields: dict[str, int | float] = {
                f"segment{i}": start // lanes for i, start in enumerate(part.starts[1:])
            }
            for i, segment in enumerate(part.segments):
                fields[f"scale{i}_even"] = float(segment.even)
                fields[f"scale{i}_odd"] = float(segment.odd)
            fields["rope"] = sum(s.rope << i for i, s in enumerate(part.segments))
            fields["first_row"] = part.first_row
            self._linear(mode, part.plan, part.rows, writes=writes, reads=reads, **fields)

    def _linear(
        self,
        mode: Mode,
        plan: TilePlan,
        rows: int,
        *,
        writes: str,
        reads: str | None = None,
        **fields: int | float,
    ) -> None:
        """Fields that are not given stay neutral: one segment, no rotation, no address."""
        neutral: dict[str, int | float] = {
            "segment0": _NEVER,
            "segment1": _NEVER,
            "rope": 0,
            "address": 0,
            "single": 0,
            "planes": 0,
            "first_row": 0,
            "head_ew": self._shapes.head // self._shapes.config.lanes,
            **{f"scale{i}_{parity}": 0.0 for i in range(3) for parity in ("even", "odd")},
        }
        self._program.add(
            Op.LINEAR,
            reads=["A8", *([reads] if reads else [])],
            writes=[writes],
            follows=None if mode is Mode.HEAD else {Op.NORM_QUANT: ["A8"]},
            mode=mode,
            k_tiles=plan.k_tiles,
            tile_words=plan.tile_words,
            tiles=plan.tiles,
            last_words=plan.last_words,
            out_rows=rows,
            **(neutral | fields),
        )
