"""Compiles a model for a configuration: packs weights, lays out the image, writes the program."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.host import rope
from terntable.host.devices.base import Progress
from terntable.host.head import plane_digits, quantise_head
from terntable.host.image import HEADER, MAGIC, VERSION, Image, Region, align, crc32
from terntable.host.model import Layer, Model, ModelSpec
from terntable.host.packing import PackedStream, StreamPacker, TilePlan, plan_tiles
from terntable.host.program import ProgramBuilder
from terntable.hw import isa, numeric
from terntable.hw.config import KV_BLOCK, AcceleratorConfig
from terntable.hw.errors import UserError
from terntable.hw.isa import Dest, Mode, Op, Source

_ALL = 0xFFFF
"""A segment boundary that no row reaches."""


@dataclass(frozen=True)
class Shapes:
    """A model's dimensions padded for a configuration."""

    config: AcceleratorConfig
    spec: ModelSpec
    context: int

    @property
    def hidden(self) -> int:
        return align(self.spec.hidden, self.config.lanes)

    @property
    def ffn(self) -> int:
        return align(self.spec.ffn, self.config.lanes)

    @property
    def head(self) -> int:
        """Dimensions of a padded head."""
        return align(self.spec.head_dim, self.config.head_pad)

    @property
    def attention(self) -> int:
        """Elements of an attention output row."""
        return self.spec.heads * self.head

    @property
    def qkv(self) -> int:
        return (self.spec.heads + 2 * self.spec.kv_heads) * self.head

    @property
    def rope_bytes(self) -> int:
        return align(4 * self.head, self.config.bus_bytes)

    @property
    def record_bytes(self) -> int:
        return self.config.record_bytes(self.head)

    @property
    def kv_head_stride(self) -> int:
        """Bytes of a KV head's records on one port, whole attention blocks."""
        return align(self.context, KV_BLOCK) // self.config.ports * self.record_bytes

    @property
    def kv_port_stride(self) -> int:
        return align(self.spec.kv_heads * self.kv_head_stride)

    @property
    def kv_layer_stride(self) -> int:
        return self.config.ports * self.kv_port_stride

    def check(self) -> None:
        """Raise UserError that names the first dimension that does not fit."""
        spec, config = self.spec, self.config
        for what, size, limit in (
            ("hidden size", self.hidden, "max_hidden"),
            ("feed-forward size", self.ffn, "max_row"),
            ("row of query, key and value heads", self.qkv, "max_row"),
            ("head size", self.head, "max_head_dim"),
            ("number of heads", spec.heads, "max_heads"),
        ):
            most = getattr(config, limit)
            if size > most:
                raise UserError(
                    f"model {spec.name!r} does not fit configuration {config.name!r}: its {what}"
                    f" is {size}, {limit} is {most}: choose a larger configuration"
                )


@dataclass
class _Plans:
    """Tiles of a layer's four matrices and of the head."""

    qkv: TilePlan
    o: TilePlan
    glu: TilePlan
    down: TilePlan
    head: TilePlan

    @classmethod
    def of(cls, shapes: Shapes) -> _Plans:
        config, hidden = shapes.config, shapes.hidden
        return cls(
            qkv=plan_tiles(config, shapes.qkv, hidden),
            o=plan_tiles(config, hidden, shapes.attention),
            glu=plan_tiles(config, 2 * shapes.ffn, hidden),
            down=plan_tiles(config, hidden, shapes.ffn),
            head=plan_tiles(config, isa.PLANES * shapes.spec.vocab, hidden),
        )


@dataclass(frozen=True)
class _Constants:
    """What the program needs from the weights: scales by layer, gain rows by layer and name."""

    scales: list[dict[str, np.float32]]
    gains: dict[tuple[int, str], NDArray[np.float32]]
    """Padded rows; the final gain is (layers, 'final')."""


def fits(spec: ModelSpec, config: AcceleratorConfig) -> bool:
    """Whether a model of this shape can be compiled for `config`."""
    try:
        Shapes(config, spec, 1).check()
    except UserError:
        return False
    return True


def compile_model(
    model: Model,
    config: AcceleratorConfig,
    context: int | None = None,
    progress: Progress | None = None,
) -> Image:
    """The image of `model` for `config`.

    `context` is the number of positions to provide for: by default the model's, or the
    configuration's maximum where that is less. `progress` is called with layers done and layers.
    Raises UserError when the model does not fit.
    """
    spec = model.spec
    most = min(spec.context, config.max_context)
    if context is not None and not 1 <= context <= most:
        raise UserError(f"a context of {context} positions: 1 to {most} are possible")
    shapes = Shapes(config, spec, context or most)
    shapes.check()
    plans = _Plans.of(shapes)
    weights, constants = _pack_layers(model, shapes, plans, progress)
    quantised = quantise_head(model.head)
    head_packer = StreamPacker(config)
    _append_head(head_packer, quantised.codes, plans.head)
    head = head_packer.finish()
    rope_rows = rope.rope_rows(
        shapes.context, spec.head_dim, spec.rope_theta, shapes.rope_bytes // 4
    )

    contents = {
        "header": np.zeros(HEADER.size, np.uint8),
        "program": np.zeros(len(_program(shapes, plans, constants, {}, weights, head)), np.uint8),
        "rope": _bytes(rope_rows),
        "gains": _bytes(np.concatenate([_pad_row(g) for g in constants.gains.values()])),
        "head_scales": _bytes(quantised.scales),
        "weights": _bytes(_pad_ports(weights.data)),
        "head": _bytes(_pad_ports(head.data)),
    }
    regions, at = {}, 0
    for name, data in contents.items():
        regions[name] = Region(name, at, align(data.size), 0)
        at += align(data.size)
    runtime = {
        "input": shapes.context * align(4 * shapes.hidden, config.bus_bytes),
        "logits": 4 * spec.vocab,
        "kv": spec.layers * shapes.kv_layer_stride,
    }
    write_base = at
    for name, size in runtime.items():
        regions[name] = Region(name, at, align(size))
        at += align(size)
    if at > 1 << 32:
        raise UserError(
            f"model {spec.name!r} makes an image of {at:,} bytes: offsets reach 4 GiB; give a"
            " smaller context"
        )
    contents["program"] = _bytes(
        np.frombuffer(_program(shapes, plans, constants, regions, weights, head), np.uint8)
    )
    contents["header"] = _bytes(
        np.frombuffer(
            HEADER.pack(MAGIC, VERSION, config.hash, at, write_base, regions["program"].offset),
            np.uint8,
        )
    )
    data = np.zeros(write_base, np.uint8)
    for name, content in contents.items():
        region = regions[name]
        data[region.offset : region.offset + content.size] = content
        regions[name] = Region(
            name, region.offset, region.size, crc32(data[region.offset : region.end])
        )
    return Image(config, spec, data, regions, model.embedding, shapes.context, quantised.error)


def _bytes(x: NDArray) -> NDArray[np.uint8]:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


def _pad_ports(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each port's part padded to the alignment."""
    return np.pad(data, ((0, 0), (0, align(data.shape[1]) - data.shape[1])))


def _pad_row(row: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.pad(row, (0, align(row.nbytes) // 4 - row.size))


def _pack_layers(
    model: Model, shapes: Shapes, plans: _Plans, progress: Progress | None
) -> tuple[PackedStream, _Constants]:
    """All layers' weights as one stream, in the order in which the program uses them."""
    packer = StreamPacker(shapes.config)
    scales: list[dict[str, np.float32]] = []
    gains: dict[tuple[int, str], NDArray[np.float32]] = {}
    for n in range(model.spec.layers):
        layer = model.layer(n)
        for plan, trits in (
            (plans.qkv, _qkv_rows(layer, shapes)),
            (plans.o, _output_rows(layer, shapes)),
            (plans.glu, _glu_rows(layer, shapes)),
            (plans.down, _fit(layer.linears["down"].trits, shapes.hidden, shapes.ffn)),
        ):
            packer.append((trits + np.int8(1)).view(np.uint8), plan)
        scales.append({k: numeric.sanitise(v.scale)[()] for k, v in layer.linears.items()})
        for name, gain in layer.gains.items():
            gains[n, name] = _gain_row(name, gain, shapes)
        if progress:
            progress(n + 1, model.spec.layers)
    gains[model.spec.layers, "final"] = _gain_row("final", model.final_gain, shapes)
    return packer.finish(), _Constants(scales, gains)


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


def _append_head(packer: StreamPacker, codes: NDArray[np.int8], plan: TilePlan) -> None:
    """Planes of the head, a few tiles at a time: all digits of a large head would not fit."""
    config = packer.config
    rows_of_tile = plan.tile_words * config.rows
    # Whole tiles that begin with a vocabulary entry's first plane.
    step = math.lcm(rows_of_tile, isa.PLANES)
    step *= max(1, (1 << 16) // step)
    total = isa.PLANES * codes.shape[0]
    for at in range(0, total, step):
        rows = plane_digits(codes[at // isa.PLANES : (at + step) // isa.PLANES])
        words = -(-rows.shape[0] // config.rows)
        tiles = -(-words // plan.tile_words)
        last = words - (tiles - 1) * plan.tile_words
        packer.append(rows, TilePlan(plan.k_tiles, plan.tile_words, tiles, last))


def _gain_row(name: str, gain: NDArray[np.float32], shapes: Shapes) -> NDArray[np.float32]:
    if name == "attn_sub_norm":
        gain = rope.pad_heads(gain, shapes.spec.heads, shapes.head)
    width = align(gain.size, shapes.config.lanes)
    return numeric.sanitise(np.pad(gain, (0, width - gain.size)).astype(np.float32))


def _program(
    shapes: Shapes,
    plans: _Plans,
    constants: _Constants,
    regions: dict[str, Region],
    weights: PackedStream,
    head: PackedStream,
) -> bytes:
    """The command list; with no `regions` every address is 0, which gives its length."""
    spec, config = shapes.spec, shapes.config
    lanes = config.lanes
    program = ProgramBuilder()

    def base(region: str) -> int:
        return regions[region].offset if regions else 0

    gain_at, at = {}, base("gains")
    for key, row in constants.gains.items():
        gain_at[key] = at
        at += align(row.nbytes)

    def fetch(region: str, stream: PackedStream) -> None:
        program.add(
            Op.FETCH, address=base(region), port_stride=align(stream.data.shape[1]),
            beats=stream.beats, words=stream.words,
        )

    def load_gain(key: tuple[int, str]) -> None:
        if key in gain_at:
            program.add(
                Op.LOAD, writes=["gain"], dest=Dest.GAIN, address=gain_at[key], row_bytes=0,
                ew=constants.gains[key].size // lanes, count=0,
            )

    def norm_quant(
        source: Source, width: int, elements: int, key: tuple[int, str], sub: bool, head: bool
    ) -> None:
        """A sub-norm that the model lacks leaves quantisation alone."""
        norm = not sub or key in gain_at
        row = {Source.RESIDUAL: "X", Source.ROW: "F", Source.ATTENTION: "O"}[source]
        program.add(
            Op.NORM_QUANT, reads=[row, "gain"] if norm else [row], writes=["A8"], source=source,
            norm=int(norm), gain=int(norm), head=int(head), ew=width // lanes,
            inv_n=float(np.float32(1 / elements)), eps=spec.eps,
        )

    def linear(
        mode: Mode, plan: TilePlan, rows: int, scales: list[float], writes: list[str],
        reads: list[str], **fields: int,
    ) -> None:
        names = [f"scale{s}_{p}" for s in range(3) for p in ("even", "odd")]
        defaults = {
            "segment0": _ALL, "segment1": _ALL, "rope": 0, "head_ew": shapes.head // lanes,
            "address": 0, "single": 0,
        }
        program.add(
            Op.LINEAR, reads=["A8", *reads], writes=writes, mode=mode, k_tiles=plan.k_tiles,
            tile_words=plan.tile_words, tiles=plan.tiles, last_words=plan.last_words,
            out_rows=rows, **(defaults | fields), **dict(zip(names, scales, strict=True)),
        )

    def kv_fields(n: int) -> dict[str, int]:
        return {
            "address": base("kv") + n * shapes.kv_layer_stride,
            "head_stride": shapes.kv_head_stride,
            "port_stride": shapes.kv_port_stride,
            "record_bytes": shapes.record_bytes,
        }

    # Gains are loaded right after the norm that used the row before, so that they hide behind
    # the linear that follows.
    fetch("weights", weights)
    program.add(
        Op.LOAD, writes=["X"], dest=Dest.RESIDUAL, address=base("input"),
        row_bytes=align(4 * shapes.hidden, config.bus_bytes), ew=shapes.hidden // lanes, count=0,
    )
    load_gain((0, "attn_norm"))
    for n in range(spec.layers):
        scale = {k: float(v) for k, v in constants.scales[n].items()}
        norm_quant(
            Source.RESIDUAL, shapes.hidden, spec.hidden, (n, "attn_norm"), sub=False, head=False
        )
        if n == 0:
            program.add(
                Op.LOAD, writes=["rope"], dest=Dest.ROPE, address=base("rope"),
                row_bytes=shapes.rope_bytes, ew=shapes.head // lanes, count=0,
            )
        after_attention = (n, "attn_sub_norm" if spec.attn_sub_norm else "ffn_norm")
        load_gain(after_attention)
        linear(
            Mode.QKV, plans.qkv, shapes.qkv, _pairs(scale["q"], scale["k"], scale["v"]),
            writes=["F"], reads=["rope"], segment0=shapes.attention // lanes,
            segment1=(shapes.attention + spec.kv_heads * shapes.head) // lanes, rope=0b011,
        )
        program.add(
            Op.KV_QUANT, reads=["F"], writes=["Q", ("kv", n)], heads=spec.heads,
            kv_heads=spec.kv_heads, head_ew=shapes.head // lanes,
            score_scale=math.log2(math.e) / math.sqrt(spec.head_dim), **kv_fields(n),
        )
        program.add(
            Op.ATTENTION, reads=["Q", ("kv", n)], writes=["O"],
            heads_per_kv=spec.heads // spec.kv_heads, kv_heads=spec.kv_heads,
            head_dims=shapes.head, **kv_fields(n),
        )
        norm_quant(
            Source.ATTENTION, shapes.attention, spec.heads * spec.head_dim, (n, "attn_sub_norm"),
            sub=True, head=False,
        )
        if spec.attn_sub_norm:
            load_gain((n, "ffn_norm"))
        linear(
            Mode.RESIDUAL, plans.o, shapes.hidden, _pairs(scale["o"]), writes=["X"], reads=["X"]
        )
        norm_quant(
            Source.RESIDUAL, shapes.hidden, spec.hidden, (n, "ffn_norm"), sub=False, head=False
        )
        last = n + 1 == spec.layers
        following = (n + 1, "final" if last else "attn_norm")
        if spec.ffn_sub_norm:
            load_gain((n, "ffn_sub_norm"))
        elif not last:
            load_gain(following)
        silu = spec.activation == "silu"
        linear(
            Mode.GLU_SILU if silu else Mode.GLU_RELU2, plans.glu, 2 * shapes.ffn,
            [scale["gate"], scale["up"], 0, 0, 0, 0], writes=["F"], reads=[],
        )
        norm_quant(Source.ROW, shapes.ffn, spec.ffn, (n, "ffn_sub_norm"), sub=True, head=False)
        if spec.ffn_sub_norm and not last:
            load_gain(following)
        linear(
            Mode.RESIDUAL, plans.down, shapes.hidden, _pairs(scale["down"]), writes=["X"],
            reads=["X"],
        )
    program.add(Op.CHUNK)
    load_gain((spec.layers, "final"))
    fetch("head", head)
    norm_quant(
        Source.RESIDUAL, shapes.hidden, spec.hidden, (spec.layers, "final"), sub=False, head=True
    )
    # The head takes its scales from this LOAD while it runs: it must not wait for it.
    program.add(
        Op.LOAD, dest=Dest.SCALE, address=base("head_scales"), row_bytes=0, ew=0, count=spec.vocab
    )
    linear(
        Mode.HEAD, plans.head, isa.PLANES * spec.vocab, _pairs(0), writes=["logits"], reads=[],
        address=base("logits"), single=1,
    )
    program.add(Op.END)
    return program.encode()


def _pairs(*segments: float) -> list[float]:
    """Scales of up to three segments, the same on even and odd rows."""
    full = [*segments, 0.0, 0.0][:3]
    return [s for s in full for _ in range(2)]
