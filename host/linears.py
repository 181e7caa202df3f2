"""A layer's matrices as the LINEAR commands that run them: padded rows, scales, tiles.

A LINEAR multiplies its sums by three scales at most for Q, K and V, by one pair otherwise. A matrix
with more scales, such as the shards of a model that was trained on several devices, takes several
commands, each of which makes a run of the row. Scales of columns belong to the activations: they
are multiplied into the gain of the quantisation before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.host import rope
from terntable.host.model import F32, Layer, TernaryLinear
from terntable.host.packing import TilePlan, plan_tiles
from terntable.host.shapes import Shapes
from terntable.hw import numeric
from terntable.hw.errors import UserError

NORM_OF = {"qkv": "attn_norm", "o": "attn_sub_norm", "glu": "ffn_norm", "down": "ffn_sub_norm"}
"""The gain row that is multiplied in when a matrix's input is quantised."""
_MEMBERS = {"qkv": ("q", "k", "v"), "o": ("o",), "glu": ("gate", "up"), "down": ("down",)}
_SEGMENTS = 3


@dataclass(frozen=True)
class Segment:
    """Neighbouring rows with the same scales, of even and of odd rows; `rope` rotates them."""

    rows: int
    even: np.float32
    odd: np.float32
    rope: bool = False


@dataclass(frozen=True)
class Part:
    """What one LINEAR makes: the rows of `segments`, from `first_row` of the result on."""

    first_row: int
    segments: tuple[Segment, ...]
    plan: TilePlan

    @property
    def rows(self) -> int:
        return sum(s.rows for s in self.segments)

    @property
    def starts(self) -> list[int]:
        """Where each segment begins in the result."""
        ends = self.first_row + np.cumsum([0, *(s.rows for s in self.segments)])
        return [int(n) for n in ends[:-1]]


@dataclass(frozen=True)
class Linears:
    """A layer's four matrices [rows, inputs] as the engine takes them, cut into parts."""

    trits: dict[str, NDArray[np.int8]]
    parts: dict[str, list[Part]]


def linears_of(layer: Layer, shapes: Shapes, where: str) -> Linears:
    """Pad, permute and cut a layer's matrices. Raises UserError, which begins with `where`, for
    scales that no sequence of commands gives."""
    trits = {
        "qkv": _qkv_rows(layer, shapes),
        "o": _output_rows(layer, shapes),
        "glu": _glu_rows(layer, shapes),
        "down": _fit(layer.linears["down"].trits, shapes.hidden, shapes.ffn),
    }
    return Linears(trits, parts_of(layer, shapes, where))


def parts_of(layer: Layer, shapes: Shapes, where: str) -> dict[str, list[Part]]:
    """How a layer's four matrices are cut: only shapes and scales matter, not the trits."""
    given = layer.linears
    heads, kv_heads = shapes.spec.heads, shapes.spec.kv_heads
    inputs = {"qkv": shapes.hidden, "o": shapes.attention, "glu": shapes.hidden, "down": shapes.ffn}
    try:
        segments = {
            "qkv": [
                *_head_segments(given["q"], heads, shapes.head, rope=True),
                *_head_segments(given["k"], kv_heads, shapes.head, rope=True),
                *_head_segments(given["v"], kv_heads, shapes.head),
            ],
            "o": _segments([given["o"], given["o"]], shapes.hidden, 1, shapes.config.lanes),
            "glu": _segments([given["gate"], given["up"]], shapes.ffn, 2, shapes.config.lanes),
            "down": _segments(
                [given["down"], given["down"]], shapes.hidden, 1, shapes.config.lanes
            ),
        }
    except ValueError as e:
        raise UserError(f"{where}: {e}") from None
    lanes = shapes.config.lanes
    norm_ew = {"qkv": 0, "o": shapes.hidden, "glu": shapes.ffn, "down": shapes.hidden}
    return {
        name: _parts(
            shapes, found, inputs[name], _SEGMENTS if name == "qkv" else 1, norm_ew[name] // lanes
        )
        for name, found in segments.items()
    }


def gain_rows(layer: Layer, shapes: Shapes, where: str) -> dict[str, F32]:
    """The padded gain rows of a layer by their names, scales of columns multiplied in; a sub-norm
    that the model lacks has one only where there are such scales. Raises UserError, which begins
    with `where`, when matrices that share an input differ in the scales of its columns."""
    rows = {}
    for matrix, name in NORM_OF.items():
        gain = layer.gains.get(name)
        scales = [layer.linears[member].column_scale for member in _MEMBERS[matrix]]
        if any(s is not None for s in scales):
            columns = layer.linears[_MEMBERS[matrix][0]].trits.shape[1]
            whole = [
                np.ones(columns, np.float32)
                if s is None
                else numeric.sanitise(np.repeat(s, columns // len(s)))
                for s in scales
            ]
            if any((w != whole[0]).any() for w in whole):
                members = ", ".join(_MEMBERS[matrix])
                raise UserError(f"{where}: {members} scale the columns of one input differently")
            gain = whole[0] if gain is None else numeric.mul(numeric.sanitise(gain), whole[0])
        if gain is not None:
            rows[name] = gain_row(name, gain, shapes)
    return rows


def gain_row(name: str, gain: F32, shapes: Shapes) -> F32:
    """A gain padded to whole words, that of the attention's output head by head."""
    if name == "attn_sub_norm":
        gain = rope.pad_heads(gain, shapes.spec.heads, shapes.head)
    width = -(-gain.size // shapes.config.lanes) * shapes.config.lanes
    return numeric.sanitise(np.pad(gain, (0, width - gain.size)).astype(np.float32))


def _scale(value: np.float32) -> np.float32:
    return np.float32(numeric.sanitise(value))


def _head_segments(
    linear: TernaryLinear, heads: int, padded: int, rope: bool = False
) -> list[Segment]:
    scales = linear.row_scales
    if heads % len(scales):
        raise ValueError(f"{len(scales)} scales for {heads} heads: a scale changes within a head")
    rows = heads // len(scales) * padded
    return [Segment(rows, _scale(s), _scale(s), rope) for s in scales]


def _segments(pair: list[TernaryLinear], rows: int, each: int, lanes: int) -> list[Segment]:
    """Segments of a matrix whose even rows are the one's and odd rows the other's; `rows` with
    padding, `each` rows of the result for a row of theirs."""
    even, odd = (linear.row_scales for linear in pair)
    blocks = math.lcm(len(even), len(odd))
    size = each * (pair[0].trits.shape[0] // blocks)
    if blocks > 1 and size % lanes:
        raise ValueError(f"a scale for {size} rows, which are no whole words: {lanes} lanes")
    even, odd = (np.repeat(s, blocks // len(s)) for s in (even, odd))
    counts = [size] * (blocks - 1) + [each * rows - size * (blocks - 1)]
    return [Segment(n, _scale(a), _scale(b)) for n, a, b in zip(counts, even, odd, strict=True)]


def _parts(
    shapes: Shapes, segments: list[Segment], inputs: int, most: int, norm_ew: int
) -> list[Part]:
    parts, first = [], 0
    for at in range(0, len(segments), most):
        group = tuple(segments[at : at + most])
        rows = sum(s.rows for s in group)
        parts.append(Part(first, group, plan_tiles(shapes.config, rows, inputs, norm_ew)))
        first += rows
    return parts


def _fit(trits: NDArray[np.int8], rows: int, columns: int) -> NDArray[np.int8]:
    return np.pad(trits, ((0, rows - trits.shape[0]), (0, columns - trits.shape[1])))


def _qkv_rows(layer: Layer, shapes: Shapes) -> NDArray[np.int8]:
    spec, order = shapes.spec, rope.pair_order(shapes.spec.head_dim)
    parts = [
        rope.pad_heads(layer.linears["q"].trits, spec.heads, shapes.head, order),
        rope.pad_heads(layer.linears["k"].trits, spec.kv_heads, shapes.head, order),
        rope.pad_heads(layer.linears["v"].trits, spec.kv_heads, shapes.head),
    ]
    return _fit(np.concatenate(parts), shapes.qkv, shapes.hidden)


def _output_rows(layer: Layer, shapes: Shapes) -> NDArray[np.int8]:
    columns = rope.pad_heads(layer.linears["o"].trits.T, shapes.spec.heads, shapes.head)
    return _fit(columns.T, shapes.hidden, shapes.attention)


def _glu_rows(layer: Layer, shapes: Shapes) -> NDArray[np.int8]:
    """Gate on even rows, up on odd rows."""
    gate, up = layer.linears["gate"].trits, layer.linears["up"].trits
    rows = np.stack([gate, up], axis=1).reshape(-1, gate.shape[1])
    return _fit(rows, 2 * shapes.ffn, shapes.hidden)
