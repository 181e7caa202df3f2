"""GGUF files of ternary models: hyperparameters, tensors and vocabulary as a Model.

| architecture | activation | sub-norms | head | rotary pairs in the file |
| --- | --- | --- | --- | --- |
| llama | SiLU | none | `output`, else the embedding | adjacent rows |
| bitnet | SiLU, or what `hidden_activation` names | both | the embedding | half a head apart |
| bitnet-25, bitnet-b1.58 | squared ReLU, or the same | both | the embedding | half a head apart |

Arch `llama` says nothing of the activations: models trained with int8 ones (Falcon3, HF1BitLLM) and
weight-only ones (TriLM) are converted alike. One whose matrices have several scales, or that is
named TriLM, is taken for weight-only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from terntable.host.checkpoints.gguf_file import Gguf, Tensor
from terntable.host.checkpoints.gguf_metadata import Metadata
from terntable.host.checkpoints.gguf_tensors import table, ternary, vector
from terntable.host.checkpoints.gguf_vocabulary import Vocabulary
from terntable.host.checkpoints.i2s_layout import check_layout
from terntable.host.model import Layer, Model, ModelSpec, TernaryLinear
from terntable.hw.errors import UserError

EMBEDDING, HEAD, FINAL_NORM, ROPE = (
    "token_embd.weight",
    "output.weight",
    "output_norm.weight",
    "rope_freqs.weight",
)
LINEARS = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
"""A layer's matrices, between `blk.N.` and `.weight`; its gains have the names of ModelSpec."""
_NAMED = 3
"""Unused tensors that a warning names."""


@dataclass(frozen=True)
class Architecture:
    """What the name of an architecture implies."""

    activation: str
    sub_norms: bool
    tied: bool
    interleaved: bool


ARCHITECTURES = {
    "llama": Architecture("silu", sub_norms=False, tied=False, interleaved=True),
    "bitnet": Architecture("silu", sub_norms=True, tied=True, interleaved=False),
    "bitnet-25": Architecture("relu2", sub_norms=True, tied=True, interleaved=False),
    "bitnet-b1.58": Architecture("relu2", sub_norms=True, tied=True, interleaved=False),
}
"""`tied`: programs that run these never read `output`."""


def load_gguf(path: Path) -> Model:
    """The model in a GGUF file. Every tensor's presence and shape is checked, and the first layer
    read, before this returns. Raises UserError with one line that says what is wrong."""
    gguf = Gguf(path)
    name = gguf.metadata.text("general.architecture")
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{path}: architecture {name!r} is not known: {known} are")
    architecture = ARCHITECTURES[name]
    tied = architecture.tied or HEAD not in gguf.tensors
    vocabulary = Vocabulary(gguf.metadata)
    spec = _spec(gguf, name, tied, vocabulary)
    used = _check(gguf, spec)
    layers = _Layers(gguf, spec, architecture.interleaved)
    several = layers.probe()
    if name == "llama" and (several or _is_trilm(gguf.metadata)):
        spec = spec.model_copy(update={"weight_only": True})
    embedding = table(gguf[EMBEDDING])
    head = embedding if tied else table(gguf[HEAD])
    warnings = [*vocabulary.warnings]
    if line := _unused(gguf, used):
        warnings.append(line)
    return Model(
        spec,
        layers,
        vector(gguf[FINAL_NORM]),
        embedding.values,
        head.values,
        source=path,
        origin=_origin(gguf, name, spec, several),
        warnings=tuple(warnings),
        text=vocabulary.assets,
        table_error=max(embedding.error, head.error),
    )


def _origin(gguf: Gguf, architecture: str, spec: ModelSpec, several: bool) -> str:
    kinds = sorted(
        {
            gguf[f"blk.{n}.{at}.weight"].type.name
            for n in range(spec.layers)
            for at in LINEARS.values()
        }
    )
    text = f"GGUF version {gguf.version}, architecture {architecture}, {' and '.join(kinds)}"
    if spec.weight_only:
        reason = "its matrices have several scales" if several else "its name is TriLM"
        return f"{text}, taken for weight-only: {reason}"
    if architecture == "llama":
        return f"{text}, taken for a model with int8 activations: one scale a matrix"
    return text


def _is_trilm(metadata: Metadata) -> bool:
    names = (metadata.text(f"general.{key}", "") for key in ("name", "basename"))
    return any("trilm" in name.lower() for name in names)


# ------------------------------------------------------------ hyperparameters


def _spec(gguf: Gguf, name: str, tied: bool, vocabulary: Vocabulary) -> ModelSpec:
    """The model's description from the metadata, and from the embedding's shape."""
    metadata, architecture = gguf.metadata, ARCHITECTURES[name]
    heads = metadata.integer(f"{name}.attention.head_count")
    hidden = metadata.integer(f"{name}.embedding_length")
    head_dim = metadata.integer(f"{name}.attention.key_length", hidden // heads if heads > 0 else 0)
    _refuse_unsupported(metadata, name, head_dim)
    embedding = gguf[EMBEDDING]
    vocab = metadata.integer(f"{name}.vocab_size", embedding.shape[0])
    if vocabulary.size > vocab:
        raise UserError(
            f"{gguf.path}: its tokenizer has {vocabulary.size:,} tokens, its embedding"
            f" {vocab:,} rows"
        )
    fields: dict[str, Any] = {
        "name": " ".join(metadata.text("general.name", "").split()) or gguf.path.stem,
        "layers": metadata.integer(f"{name}.block_count"),
        "hidden": hidden,
        "ffn": metadata.integer(f"{name}.feed_forward_length"),
        "heads": heads,
        "kv_heads": metadata.integer(f"{name}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab": vocab,
        "context": metadata.integer(f"{name}.context_length"),
        "rope_theta": metadata.real(f"{name}.rope.freq_base", 10000.0),
        "eps": metadata.real(f"{name}.attention.layer_norm_rms_epsilon"),
        "activation": metadata.text(f"{name}.hidden_activation", architecture.activation),
        "attn_sub_norm": architecture.sub_norms,
        "ffn_sub_norm": architecture.sub_norms,
        "tied": tied,
        "bos_ids": vocabulary.bos_ids,
        "eos_ids": vocabulary.eos_ids,
    }
    try:
        return ModelSpec(**fields)
    except ValidationError as e:
        first = e.errors()[0]
        text = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            text = f"{first['loc'][0]} is {fields[str(first['loc'][0])]!r}: {text}"
        raise UserError(f"{gguf.path}: {text}") from None


def _refuse_unsupported(metadata: Metadata, name: str, head_dim: int) -> None:
    """Raise UserError for what would change the arithmetic and isn't implemented."""
    kind = metadata.text(f"{name}.rope.scaling.type", "none")
    factor = metadata.real(f"{name}.rope.scaling.factor", 1.0)
    linear = metadata.real(f"{name}.rope.scale_linear", 1.0)
    if kind not in ("none", "linear") or factor not in (0.0, 1.0) or linear != 1.0:
        raise UserError(
            f"{metadata.path}: rotary embeddings are scaled ({kind}, factor"
            f" {factor * linear:g}): that is not supported"
        )
    for key in ("rope.dimension_count", "attention.value_length"):
        if (size := metadata.integer(f"{name}.{key}", head_dim)) != head_dim:
            raise UserError(
                f"{metadata.path}: {name}.{key} is {size}: heads have {head_dim} dimensions, and"
                " others are not supported"
            )
    if experts := metadata.integer(f"{name}.expert_count", 0):
        raise UserError(f"{metadata.path}: {experts} experts: such models are not supported")


# ------------------------------------------------------------ tensors


def _check(gguf: Gguf, spec: ModelSpec) -> set[str]:
    """Check presence and shape of all tensors that the model needs and return their names."""
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (spec.vocab, spec.hidden),
        FINAL_NORM: (spec.hidden,),
    }
    if not spec.tied:
        shapes[HEAD] = (spec.vocab, spec.hidden)
    if spec.layers > len(gguf.tensors):
        raise UserError(f"{gguf.path}: {spec.layers:,} layers, {len(gguf.tensors):,} tensors")
    for n in range(spec.layers):
        for name, matrix in spec.linear_shapes.items():
            shapes[f"blk.{n}.{LINEARS[name]}.weight"] = matrix
            if (scale := f"blk.{n}.{LINEARS[name]}.scale") in gguf.tensors:
                shapes[scale] = (1,)
        for name, size in spec.norm_sizes.items():
            shapes[f"blk.{n}.{name}.weight"] = (size,)
    for name, shape in shapes.items():
        gguf[name].check(shape)
    if ROPE in gguf.tensors:
        _check_rope(gguf[ROPE], spec)
        return {*shapes, ROPE}
    return set(shapes)


def _check_rope(factors: Tensor, spec: ModelSpec) -> None:
    """Accept frequency factors of 1, and bitnet-25's tensor, which holds the plain frequencies."""
    factors.check((spec.head_dim // 2,))
    values = vector(factors)
    plain = spec.rope_theta ** (-np.arange(0, spec.head_dim, 2) / spec.head_dim)
    if not (np.all(values == 1) or np.allclose(values, plain, rtol=1e-3, atol=0)):
        raise factors.wrong("scales rotary embeddings: that is not supported")


def _unused(gguf: Gguf, used: set[str]) -> str | None:
    """A warning of tensors that the model does not use. Raises UserError for biases and norms
    among them, without which it would be another model."""
    extra = sorted(gguf.tensors.keys() - used)
    for name in extra:
        if name.endswith(".bias") or re.search(r"norm|_inp|_exps", name):
            raise UserError(f"{gguf.path}: tensor {name}: such models are not supported")
    if not extra:
        return None
    more = f" and {len(extra) - _NAMED} more" if len(extra) > _NAMED else ""
    return f"the model does not use tensor {', '.join(extra[:_NAMED])}{more}"


class _Layers:
    """Reads layers when they are asked for."""

    def __init__(self, gguf: Gguf, spec: ModelSpec, interleaved: bool) -> None:
        self._gguf, self._spec, self._interleaved = gguf, spec, interleaved

    def __call__(self, n: int) -> Layer:
        gains = {
            name: vector(self._gguf[f"blk.{n}.{name}.weight"]) for name in self._spec.norm_sizes
        }
        return Layer({name: self._linear(n, name) for name in LINEARS}, gains)

    def probe(self) -> bool:
        """Read the first layer and forget it; whether a matrix has several scales."""
        up, down = (self._gguf[f"blk.0.{LINEARS[name]}.weight"] for name in ("up", "down"))
        check_layout(up, down)
        linears = self(0).linears.values()
        return any(x.row_scales.size > 1 or x.column_scale is not None for x in linears)

    def _linear(self, n: int, name: str) -> TernaryLinear:
        at = f"blk.{n}.{LINEARS[name]}"
        spec, order, unit = self._spec, None, 1
        if name in ("q", "k", "v"):
            unit = spec.head_dim
            if self._interleaved and name != "v":
                order = _separated(spec.linear_shapes[name][0], spec.head_dim)
        linear = ternary(self._gguf[f"{at}.weight"], order, unit)
        if f"{at}.scale" not in self._gguf.tensors:
            return linear
        factor = vector(self._gguf[f"{at}.scale"])[0]
        if not factor > 0:
            raise self._gguf[f"{at}.scale"].wrong(f"is {factor}: a positive one is expected")
        scale = np.asarray(linear.scale * factor, np.float32)
        return TernaryLinear(linear.trits, scale if scale.ndim else scale[()], linear.column_scale)


def _separated(rows: int, head_dim: int) -> NDArray[np.int64]:
    """Where the rows of a matrix lie in a file that has pairs of a rotation as neighbours: element
    i of a head and i + head_dim / 2 are its rows 2i and 2i + 1."""
    heads = np.arange(rows).reshape(-1, head_dim // 2, 2)
    return heads.transpose(0, 2, 1).reshape(-1)
