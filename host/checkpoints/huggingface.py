"""Hugging Face folders of ternary models: config.json, safetensors files, tokenizer.

Every tensor's presence, type and shape is checked when a folder is opened; matrices are read and
made ternary a layer at a time, when they are asked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terntable.host.checkpoints import ternarise
from terntable.host.checkpoints.config_json import LINEARS, Checkpoint, read_config
from terntable.host.checkpoints.tables import Table, sixteen_bits
from terntable.host.checkpoints.tensors import FLOATS, Tensors
from terntable.host.checkpoints.text_assets import read_text_assets
from terntable.host.model import Layer, Model, ModelSpec, TernaryLinear
from terntable.hw.errors import UserError

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FINAL_NORM = "model.norm.weight"
_DERIVED = ".rotary_emb.inv_freq"
"""Ends the names of tensors that older code wrote and that follow from the RoPE base."""
_NAMED = 3
"""Unused tensors that a warning names."""


def load_checkpoint(folder: Path) -> Model:
    """The model in `folder`. Raises UserError with one line that says what is wrong."""
    checkpoint, tensors = read_config(folder), Tensors(folder)
    tied = checkpoint.tied
    if tied is None:
        tied = HEAD not in tensors
    spec = checkpoint.spec(tied)
    used = _check(checkpoint, spec, tensors)
    warnings = []

    embedding = _table(tensors, EMBEDDING, spec)
    head = embedding
    if HEAD in tensors:
        tensors.check(HEAD, (spec.vocab, spec.hidden))
        used.add(HEAD)
        head = _table(tensors, HEAD, spec)
        if tied and np.array_equal(head.values, embedding.values):
            head = embedding
        elif tied:
            warnings.append(
                f"{HEAD} differs from the embedding it is said to be tied to: it is kept"
            )
            spec = spec.model_copy(update={"tied": False})
    if line := _unused(tensors, used):
        warnings.append(line)
    return Model(
        spec,
        lambda n: _layer(checkpoint, spec, tensors, n),
        tensors.f32(FINAL_NORM),
        embedding.values,
        head.values,
        source=folder,
        origin=checkpoint.origin(tensors.dtype(f"model.layers.0.{LINEARS['q']}.weight") == "U8"),
        warnings=tuple(warnings),
        text=lambda: read_text_assets(folder),
        table_error=max(embedding.error, head.error),
    )


def _check(checkpoint: Checkpoint, spec: ModelSpec, tensors: Tensors) -> set[str]:
    """Check all tensors that the model needs and return their names."""
    used = {EMBEDDING, FINAL_NORM}
    for n in range(spec.layers):
        for name, shape in spec.linear_shapes.items():
            used |= _check_linear(checkpoint, tensors, f"model.layers.{n}.{LINEARS[name]}", shape)
        for name, size in spec.norm_sizes.items():
            at = f"model.layers.{n}.{checkpoint.norms[name]}.weight"
            tensors.check(at, (size,))
            used.add(at)
    tensors.check(FINAL_NORM, (spec.hidden,))
    tensors.check(EMBEDDING, (spec.vocab, spec.hidden))
    if not spec.tied:
        tensors.check(HEAD, (spec.vocab, spec.hidden))
    return used


def _check_linear(
    checkpoint: Checkpoint, tensors: Tensors, at: str, shape: tuple[int, int]
) -> set[str]:
    weight, scale = f"{at}.weight", f"{at}.weight_scale"
    if checkpoint.storage != "packed":
        tensors.check(weight, shape)
        return {weight}
    if checkpoint.multiply and tensors.dtype(weight) in FLOATS:
        tensors.check(weight, shape)  # as training code writes it before it is packed
    else:
        tensors.check(weight, (-(-shape[0] // 4), shape[1]), ("U8",))
    tensors.check(scale, () if tensors.shape(scale) == () else (1,))
    return {weight, scale}


def _unused(tensors: Tensors, used: set[str]) -> str | None:
    """A warning of tensors that the model does not use. Raises UserError for biases among them."""
    extra = sorted(n for n in tensors.names() - used if not n.endswith(_DERIVED))
    if not extra:
        return None
    if biases := [n for n in extra if n.endswith(".bias")]:
        raise UserError(f"{tensors.folder}: tensor {biases[0]}: biases are not supported")
    more = f" and {len(extra) - _NAMED} more" if len(extra) > _NAMED else ""
    return f"the model does not use tensor {', '.join(extra[:_NAMED])}{more}"


def _layer(checkpoint: Checkpoint, spec: ModelSpec, tensors: Tensors, n: int) -> Layer:
    at = f"model.layers.{n}"
    linears = {}
    for name, shape in spec.linear_shapes.items():
        weight = f"{at}.{LINEARS[name]}.weight"
        read = _reader(tensors, weight)
        try:
            if checkpoint.storage == "masters":
                linears[name] = ternarise.from_masters(read, *shape)
            elif checkpoint.storage == "values":
                # Scales change between shards, and these hold whole heads.
                row_unit = spec.head_dim if name in ("q", "k", "v") else 1
                column_unit = spec.head_dim if name == "o" else 1
                linears[name] = ternarise.from_values(read, *shape, row_unit, column_unit)
            else:
                linears[name] = _with_scale(checkpoint, tensors, weight, shape)
        except ValueError as e:
            raise UserError(f"{tensors.folder}: tensor {weight} {e}") from None
    gains = {name: tensors.f32(f"{at}.{checkpoint.norms[name]}.weight") for name in spec.norm_sizes}
    return Layer(linears, gains)


def _with_scale(
    checkpoint: Checkpoint, tensors: Tensors, weight: str, shape: tuple[int, int]
) -> TernaryLinear:
    """A matrix of two-bit codes, or of -1, 0 and 1 in floating point, and its scale."""
    if tensors.dtype(weight) == "U8":
        trits = ternarise.unpack(tensors.raw(weight), shape[0])
    else:
        whole = ternarise.from_values(_reader(tensors, weight), *shape)
        sizes = whole.row_scales if whole.column_scale is None else whole.column_scale
        if (other := sizes[sizes != 1]).size:
            raise ValueError(f"has weights of {other[0]:.6g}: -1, 0 and 1 are expected")
        trits = whole.trits
    given = tensors.f32(f"{weight}_scale").reshape(())[()]
    with np.errstate(divide="ignore", over="ignore"):
        scale = given if checkpoint.multiply else np.float32(1) / given
    if not np.isfinite(scale) or scale <= 0:
        raise UserError(
            f"{tensors.folder}: tensor {weight}_scale is {given}: it gives no finite factor"
        )
    return TernaryLinear(trits, scale)


def _reader(tensors: Tensors, name: str) -> ternarise.ReadPart:
    return lambda first, count: tensors.raw_part(name, first, count)


def _table(tensors: Tensors, name: str, spec: ModelSpec) -> Table:
    hidden = spec.hidden
    try:
        return sixteen_bits(
            lambda first, count: tensors.raw_part(name, first * hidden, count * hidden).reshape(
                count, hidden
            ),
            spec.vocab,
            hidden,
        )
    except ValueError as e:
        raise UserError(f"{tensors.folder}: tensor {name} {e}") from None
