"""The command list of a decoder, in the order of execution.

A gain row is loaded right after the norm that used the row before, so that the load hides behind
the linear that follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.host.image import Region, align
from terntable.host.packing import PackedStream, TilePlan
from terntable.host.program import ProgramBuilder
from terntable.host.shapes import Plans, Shapes
from terntable.hw import isa
from terntable.hw.isa import Dest, Mode, Op, Source

_NEVER = 0xFFFF
"""A segment boundary that no row reaches."""
_ROW_OF = {Source.RESIDUAL: "X", Source.ROW: "F", Source.ATTENTION: "O"}
GainKey = tuple[int, str]
"""Layer and name; the final gain is (layers, 'final')."""


@dataclass(frozen=True)
class Constants:
    """What the program needs from the weights: scales by layer and matrix, padded gain rows."""

    scales: list[dict[str, np.float32]]
    gains: dict[GainKey, NDArray[np.float32]]


class Schedule:
    """Builds the program. Without `regions` every address is 0: its length stays the same."""

    def __init__(
        self,
        shapes: Shapes,
        plans: Plans,
        constants: Constants,
        regions: dict[str, Region],
        weights: PackedStream,
        head: PackedStream,
    ) -> None:
        self._shapes, self._plans, self._constants = shapes, plans, constants
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
        self._norm_quant(Source.RESIDUAL, (spec.layers, "final"), head=True)
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
            self._plans.head,
            isa.PLANES * spec.vocab,
            [],
            writes="logits",
            single=1,
            address=self._base("logits"),
        )
        self._program.add(Op.END)
        return self._program.encode()

    # ------------------------------------------------------------ blocks

    def _attention(self, n: int) -> None:
        spec, shapes, lanes = self._shapes.spec, self._shapes, self._shapes.config.lanes
        scale = self._constants.scales[n]
        kv_fields = {
            "address": self._base("kv") + n * shapes.kv_layer_stride,
            "head_stride": shapes.kv_head_stride,
            "port_stride": shapes.kv_port_stride,
            "record_bytes": shapes.record_bytes,
        }
        self._norm_quant(Source.RESIDUAL, (n, "attn_norm"))
        if n == 0:
            self._load_rows(Dest.ROPE, "rope", self._base("rope"), shapes.rope_bytes, shapes.head)
        self._load_gain((n, "attn_sub_norm" if spec.attn_sub_norm else "ffn_norm"))
        self._linear(
            Mode.QKV,
            self._plans.qkv,
            shapes.qkv,
            [(scale[name], scale[name]) for name in ("q", "k", "v")],
            reads="rope",
            writes="F",
            segment0=shapes.attention // lanes,
            segment1=(shapes.attention + spec.kv_heads * shapes.head) // lanes,
            rope=0b011,
        )
        self._program.add(
            Op.KV_QUANT,
            reads=["F"],
            writes=["Q", ("kv", n)],
            heads=spec.heads,
            kv_heads=spec.kv_heads,
            head_ew=shapes.head // lanes,
            score_scale=math.log2(math.e) / math.sqrt(spec.head_dim),
            **kv_fields,
        )
        self._program.add(
            Op.ATTENTION,
            reads=["Q", ("kv", n)],
            writes=["O"],
            heads_per_kv=spec.heads // spec.kv_heads,
            kv_heads=spec.kv_heads,
            head_dims=shapes.head,
            **kv_fields,
        )
        self._norm_quant(Source.ATTENTION, (n, "attn_sub_norm"))
        if spec.attn_sub_norm:
            self._load_gain((n, "ffn_norm"))
        self._residual(self._plans.o, scale["o"])

    def _feed_forward(self, n: int) -> None:
        spec, shapes = self._shapes.spec, self._shapes
        scale = self._constants.scales[n]
        self._norm_quant(Source.RESIDUAL, (n, "ffn_norm"))
        # The last layer's next norm is after the CHUNK.
        following = [(n + 1, "attn_norm")] if n + 1 < spec.layers else []
        gains = [(n, "ffn_sub_norm"), *following] if spec.ffn_sub_norm else following
        for key in gains[:1]:
            self._load_gain(key)
        silu = spec.activation == "silu"
        self._linear(
            Mode.GLU_SILU if silu else Mode.GLU_RELU2,
            self._plans.glu,
            2 * shapes.ffn,
            [(scale["gate"], scale["up"])],
            writes="F",
        )
        self._norm_quant(Source.ROW, (n, "ffn_sub_norm"))
        for key in gains[1:]:
            self._load_gain(key)
        self._residual(self._plans.down, scale["down"])

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

    def _norm_quant(self, source: Source, key: GainKey, head: bool = False) -> None:
        """A sub-norm that the model lacks leaves only the quantisation."""
        spec, shapes = self._shapes.spec, self._shapes
        width, elements = {
            Source.RESIDUAL: (shapes.hidden, spec.hidden),
            Source.ROW: (shapes.ffn, spec.ffn),
            Source.ATTENTION: (shapes.attention, spec.heads * spec.head_dim),
        }[source]
        norm = int(key in self._gain_at)
        self._program.add(
            Op.NORM_QUANT,
            reads=[_ROW_OF[source], *(["gain"] if norm else [])],
            writes=["A8"],
            source=source,
            norm=norm,
            gain=norm,
            head=int(head),
            ew=width // shapes.config.lanes,
            inv_n=1 / elements,
            eps=spec.eps,
        )

    def _residual(self, plan: TilePlan, scale: np.float32) -> None:
        self._linear(
            Mode.RESIDUAL, plan, self._shapes.hidden, [(scale, scale)], reads="X", writes="X"
        )

    def _linear(
        self,
        mode: Mode,
        plan: TilePlan,
        rows: int,
        scales: list[tuple[np.float32, np.float32]],
        *,
        writes: str,
        reads: str | None = None,
        **fields: int,
    ) -> None:
        """`scales` of even and odd rows, a pair a segment."""
        defaults = {
            "segment0": _NEVER,
            "segment1": _NEVER,
            "rope": 0,
            "address": 0,
            "single": 0,
            "head_ew": self._shapes.head // self._shapes.config.lanes,
        }
        pairs = [*scales, *[(np.float32(0), np.float32(0))] * (3 - len(scales))]
        words = {
            f"scale{i}_{parity}": float(value)
            for i, pair in enumerate(pairs)
            for parity, value in zip(("even", "odd"), pair, strict=True)
        }
        self._program.add(
            Op.LINEAR,
            reads=["A8", *([reads] if reads else [])],
            writes=[writes],
            mode=mode,
            k_tiles=plan.k_tiles,
            tile_words=plan.tile_words,
            tiles=plan.tiles,
            last_words=plan.last_words,
            out_rows=rows,
            **(defaults | fields),
            **words,
        )
