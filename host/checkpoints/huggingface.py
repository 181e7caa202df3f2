"""Hugging Face folders of ternary models: config.json and safetensors files.

Two-bit packing: byte row r of a matrix holds rows r, r + out/4, r + out/2, r + 3 out/4 in bit
pairs from the lowest; a code is trit + 1. `weight_scale` multiplies where the quantisation's
`linear_class` is `autobitlinear` and divides elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from terntable.host.checkpoints.tensors import Tensors, read_json
from terntable.host.model import Layer, Model, ModelSpec, TernaryLinear, TextAssets, widen
from terntable.hw.errors import UserError

_LINEARS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_NORMS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_sub_norm": "mlp.ffn_sub_norm",
}
_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_FINAL = "model.norm.weight"


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _section(config: dict, name: str, path: Path) -> dict:
    """An object of config.json, empty where there is none."""
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {name} is no JSON object")
    return value


def read_spec(folder: Path) -> ModelSpec:
    """ModelSpec of config.json; which sub-norms exist follows from the architecture."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: not a model folder: it has no config.json")
    config = read_json(path)
    kind = config.get("model_type")
    quantisation = _section(config, "quantization_config", path)
    if kind not in ("bitnet", "llama"):
        raise UserError(f"{path}: model_type {kind!r} is not supported: bitnet or llama")
    if quantisation.get("quant_method") != "bitnet":
        raise UserError(f"{path}: not a ternary checkpoint: its quant_method is not 'bitnet'")
    rope = _section(config, "rope_parameters", path)
    for name in ("rope_parameters", "rope_scaling"):
        scaling = _section(config, name, path)
        kind_of_rope = scaling.get("rope_type", scaling.get("type", "default"))
        if kind_of_rope != "default" or "factor" in scaling:
            raise UserError(f"{path}: {name} scales rotary embeddings: that is not supported")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise UserError(f"{path}: biases are not supported")
    activation = config.get("hidden_act", "silu")
    if activation not in ("relu2", "silu"):
        raise UserError(f"{path}: hidden_act {activation!r} is not supported: relu2 or silu")
    try:
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        return ModelSpec(
            name=folder.resolve().name,
            layers=config["num_hidden_layers"],
            hidden=hidden,
            ffn=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocab=config["vocab_size"],
            context=config["max_position_embeddings"],
            rope_theta=config.get("rope_theta", rope.get("rope_theta", 10000.0)),
            eps=config.get("rms_norm_eps", 1e-5),
            activation=activation,
            attn_sub_norm=kind == "bitnet",
            ffn_sub_norm=kind == "bitnet",
            tied=config.get("tie_word_embeddings", kind == "bitnet"),
            bos_ids=_ids(config.get("bos_token_id")),
            eos_ids=_ids(config.get("eos_token_id")),
        )
    except KeyError as e:
        raise UserError(f"{path}: {e.args[0]} is missing") from None
    except (ValidationError, TypeError, ValueError, ZeroDivisionError) as e:
        text = str(e)
        if isinstance(e, ValidationError):
            first = e.errors()[0]
            text = ".".join(map(str, first["loc"][:1])) + (": " if first["loc"] else "")
            text += first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {text}") from None


def unpack(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """int8 trits [4 * rows, columns] of two-bit codes [rows, columns]."""
    parts = [((packed >> 2 * i) & 3).astype(np.int8) - 1 for i in range(4)]
    return np.concatenate(parts)


def load_checkpoint(folder: Path) -> Model:
    """The model in `folder`; every tensor's presence and shape is checked before any is read."""
    spec = read_spec(folder)
    tensors = Tensors(folder)
    multiply = (
        read_json(folder / "config.json")["quantization_config"].get("linear_class")
        == "autobitlinear"
    )
    for n in range(spec.layers):
        for name, (rows, columns) in spec.linear_shapes.items():
            at = f"model.layers.{n}.{_LINEARS[name]}"
            if rows % 4:
                raise UserError(f"{folder}: {at} has {rows} rows: a multiple of 4 is expected")
            tensors.check(f"{at}.weight", (rows // 4, columns))
            tensors.check(f"{at}.weight_scale", (1,))
            if tensors.dtype(f"{at}.weight") != "U8":
                raise UserError(f"{folder}: {at}.weight is not packed: U8 is expected")
        for name, size in spec.norm_sizes.items():
            tensors.check(f"model.layers.{n}.{_NORMS[name]}.weight", (size,))
    tensors.check(_FINAL, (spec.hidden,))
    tensors.check(_EMBEDDING, (spec.vocab, spec.hidden))
    if not spec.tied:
        tensors.check(_HEAD, (spec.vocab, spec.hidden))

    def linear(name: str) -> TernaryLinear:
        trits = unpack(tensors.raw(f"{name}.weight"))
        if trits.max() > 1:
            raise UserError(f"{folder}: {name}.weight has codes that are no trits")
        given = tensors.f32(f"{name}.weight_scale")[0]
        with np.errstate(divide="ignore", over="ignore"):
            scale = given if multiply else np.float32(1) / given
        if not np.isfinite(scale) or scale <= 0:
            raise UserError(f"{folder}: {name}.weight_scale is {given}: it gives no finite factor")
        return TernaryLinear(trits, scale)

    def layer(n: int) -> Layer:
        at = f"model.layers.{n}"
        return Layer(
            {name: linear(f"{at}.{_LINEARS[name]}") for name in spec.linear_shapes},
            {name: tensors.f32(f"{at}.{_NORMS[name]}.weight") for name in spec.norm_sizes},
        )

    def table(name: str) -> NDArray:
        raw = tensors.raw(name)
        return raw if raw.dtype == np.uint16 else widen(raw)

    embedding = table(_EMBEDDING)
    head = embedding if spec.tied else table(_HEAD)
    return Model(
        spec,
        layer,
        tensors.f32(_FINAL),
        embedding,
        head,
        source=folder,
        text=lambda: read_text_assets(folder),
    )


def read_text_assets(folder: Path) -> TextAssets:
    """Tokenizer and chat template of a checkpoint folder, those that it has."""
    file = folder / "tokenizer.json"
    try:
        return TextAssets(file.read_text(encoding="utf-8") if file.exists() else None)
    except (OSError, UnicodeError) as e:
        raise UserError(f"{file}: can't be read: {e}") from None
