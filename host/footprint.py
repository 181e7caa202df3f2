"""The bytes of a model's DRAM image, without its weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from terntable.host.image import HEADER, align
from terntable.host.linears import Part, gain_row, gain_rows, parts_of
from terntable.host.model import F32, Layer, ModelSpec
from terntable.host.packing import PackedStream, plan_tiles
from terntable.host.schedule import Constants, GainKey, Schedule
from terntable.host.shapes import Shapes
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import KvFormat
from terntable.hw.linear.trits import TRITS_PER_BYTE


def region_bytes(
    spec: ModelSpec,
    layers: Sequence[Layer],
    final_gain: F32,
    config: AcceleratorConfig,
    context: int,
    kv: KvFormat = KvFormat.INT16,
) -> dict[str, int]:
    """Bytes of each region of the image that `compile_model` makes for `context` positions, with
    K and V in format `kv`.

    Only shapes, scales and gains of `layers` matter: the trits may be stand-ins. Raises UserError
    when the model does not fit the configuration.
    """
    shapes = Shapes(config, spec, context, kv=kv)
    shapes.check()
    parts: list[dict[str, list[Part]]] = []
    gains: dict[GainKey, F32] = {}
    for n, layer in enumerate(layers):
        where = f"model {spec.name!r}, layer {n}"
        parts.append(parts_of(layer, shapes, where))
        gains |= {(n, name): row for name, row in gain_rows(layer, shapes, where).items()}
    gains[spec.layers, "final"] = gain_row("final", final_gain, shapes)
    words = sum(part.plan.words for cut in parts for run in cut.values() for part in run)
    head_plan = plan_tiles(config, shapes.head_rows, shapes.hidden)
    weights, head = _stream(config, words), _stream(config, head_plan.words)
    program = Schedule(shapes, head_plan, Constants(parts, gains), {}, weights, head).encode()
    sizes = {
        "header": HEADER.size,
        "program": len(program),
        "rope": context * shapes.rope_bytes,
        "gains": sum(align(row.nbytes) for row in gains.values()),
        "head_scales": 4 * spec.vocab,
        "weights": config.ports * align(weights.data.shape[1]),
        "head": config.ports * align(head.data.shape[1]),
        "input": context * align(4 * shapes.hidden, config.bus_bytes),
        "logits": 4 * spec.vocab,
        "kv": spec.layers * shapes.kv_layer_stride,
    }
    return {name: align(size) for name, size in sizes.items()}


def _stream(config: AcceleratorConfig, words: int) -> PackedStream:
    """The stream of so many weight words, of zeros that take no memory."""
    beats = -(-words * config.word_trits // (TRITS_PER_BYTE * config.beat_bytes))
    data = np.broadcast_to(np.uint8(0), (config.ports, beats * config.bus_bytes))
    return PackedStream(data, beats, words)
