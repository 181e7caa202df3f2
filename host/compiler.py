"""Compiles a model for a configuration: packs weights, lays out the image, writes the program."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from terntable.host import rope
from terntable.host.devices.base import Progress
from terntable.host.head import PLANES, QuantisedHead, plane_digits, quantise_head
from terntable.host.image import HEADER, MAGIC, MOST_BYTES, VERSION, Image, Region, align, crc32
from terntable.host.linears import Part, gain_row, gain_rows, linears_of
from terntable.host.model import Model, ModelSpec
from terntable.host.packing import PackedStream, StreamPacker, TilePlan, plan_tiles
from terntable.host.schedule import Constants, Schedule
from terntable.host.shapes import Shapes, fits
from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError

__all__ = ["compile_model", "fits", "outline"]


def compile_model(
    model: Model,
    config: AcceleratorConfig,
    context: int | None = None,
    progress: Progress | None = None,
    planes: int = PLANES,
    kv: isa.KvFormat = isa.KvFormat.INT16,
) -> Image:
    """The image of `model` for `config`, with K and V in format `kv`.

    `context` is the number of positions to provide for: by default the model's, or the
    configuration's maximum where that is less. `progress` is called with layers done and layers.
    The LM head has `planes` digit planes (isa.PLANES). Raises UserError when the model does not
    fit.
    """
    spec = model.spec
    if planes not in isa.PLANES:
        raise UserError(
            f"an LM head of {planes} planes: choose {' or '.join(map(str, isa.PLANES))}"
        )
    shapes = Shapes(config, spec, _context(spec, config, context), planes, kv)
    shapes.check()
    head_plan = plan_tiles(config, shapes.head_rows, shapes.hidden)
    weights, constants = _pack_layers(model, shapes, progress)
    quantised = quantise_head(model.head, planes)
    head_packer = StreamPacker(config)
    _append_head(head_packer, quantised, head_plan)
    head = head_packer.finish()
    rope_rows = rope.rope_rows(
        shapes.context, spec.head_dim, spec.rope_theta, shapes.rope_bytes // 4
    )

    def program(regions: dict[str, Region]) -> NDArray[np.uint8]:
        """Its length does not depend on where the regions lie."""
        schedule = Schedule(shapes, head_plan, constants, regions, weights, head)
        return np.frombuffer(schedule.encode(), np.uint8)

    contents = {
        "header": np.zeros(HEADER.size, np.uint8),
        "program": program({}),
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
    if at >= MOST_BYTES:
        raise UserError(
            f"model {spec.name!r} makes an image of {at:,} bytes: offsets reach 4 GiB; give a"
            " smaller context"
        )
    contents["program"] = program(regions)
    header = HEADER.pack(MAGIC, VERSION, config.hash, at, write_base, regions["program"].offset)
    contents["header"] = np.frombuffer(header, np.uint8)
    data = np.zeros(write_base, np.uint8)
    for name, content in contents.items():
        region = regions[name]
        data[region.offset : region.offset + content.size] = content
        regions[name] = Region(
            name, region.offset, region.size, crc32(data[region.offset : region.end])
        )
    return Image(config, spec, data, regions, model.embedding, shapes.context, quantised.error, kv)


def outline(model: Model, config: AcceleratorConfig, context: int | None = None) -> Image:
    """An image without weights and program, for devices that take the model itself: only the
    regions `input` and `logits`. Any model fits; `context` as for `compile_model`."""
    spec = model.spec
    positions = _context(spec, config, context)
    rows = positions * align(4 * align(spec.hidden, config.lanes), config.bus_bytes)
    regions = {
        "input": Region("input", 0, rows),
        "logits": Region("logits", align(rows), 4 * spec.vocab),
    }
    nothing = np.zeros(0, np.uint8)
    return Image(config, spec, nothing, regions, model.embedding, positions)


def _context(spec: ModelSpec, config: AcceleratorConfig, context: int | None) -> int:
    """The positions to provide for: as asked, else as many as model and configuration take."""
    most = min(spec.context, config.max_context)
    if context is not None and not 1 <= context <= most:
        raise UserError(f"a context of {context} positions: 1 to {most} are possible")
    return context or most


def _bytes(x: NDArray) -> NDArray[np.uint8]:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


def _pad_ports(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each port's part padded to the alignment."""
    return np.pad(data, ((0, 0), (0, align(data.shape[1]) - data.shape[1])))


def _pad_row(row: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.pad(row, (0, align(row.nbytes) // 4 - row.size))


def _pack_layers(
    model: Model, shapes: Shapes, progress: Progress | None
) -> tuple[PackedStream, Constants]:
    """All layers' weights as one stream, in the order in which the program uses them."""
    packer = StreamPacker(shapes.config)
    parts: list[dict[str, list[Part]]] = []
    gains: dict[tuple[int, str], NDArray[np.float32]] = {}
    for n in range(model.spec.layers):
        layer, where = model.layer(n), f"model {model.spec.name!r}, layer {n}"
        linears = linears_of(layer, shapes, where)
        for name, found in linears.parts.items():
            digits = (linears.trits[name] + np.int8(1)).view(np.uint8)
            for part in found:
                packer.append(digits[part.first_row : part.first_row + part.rows], part.plan)
        parts.append(linears.parts)
        for name, gain in gain_rows(layer, shapes, where).items():
            gains[n, name] = gain
        if progress:
            progress(n + 1, model.spec.layers)
    gains[model.spec.layers, "final"] = gain_row("final", model.final_gain, shapes)
    return packer.finish(), Constants(parts, gains)


def _append_head(packer: StreamPacker, head: QuantisedHead, plan: TilePlan) -> None:
    """Planes of the head, a few tiles at a time: all digits of a large head would not fit."""
    config = packer.config
    rows_of_tile = plan.tile_words * config.rows
    # Whole tiles that begin with a vocabulary entry's first plane.
    planes = head.planes
    step = math.lcm(rows_of_tile, planes)
    step *= max(1, (1 << 16) // step)
    total = planes * head.codes.shape[0]
    for at in range(0, total, step):
        rows = plane_digits(head.codes[at // planes : (at + step) // planes], planes)
        words = -(-rows.shape[0] // config.rows)
        tiles = -(-words // plan.tile_words)
        last = words - (tiles - 1) * plan.tile_words
        packer.append(rows, TilePlan(plan.k_tiles, plan.tile_words, tiles, last))
