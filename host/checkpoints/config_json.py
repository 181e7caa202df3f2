"""config.json of a Hugging Face folder: which model it is, and how its matrices are stored."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from terntable.host.checkpoints.tensors import read_json
from terntable.host.model import ModelSpec
from terntable.hw.errors import UserError

Storage = Literal["packed", "masters", "values"]
"""Two-bit codes with a scale; floats to be rounded to ternary; floats that are ternary already."""

LINEARS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
"""A layer's matrices, below `model.layers.N.`."""
NORMS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_sub_norm": "mlp.ffn_sub_norm",
}
"""A layer's gains, below `model.layers.N.`."""


@dataclass(frozen=True)
class Architecture:
    """A class of the published code: what config.json leaves to it (None: it must be there)."""

    model_type: str
    sub_norms: bool
    activation: str
    rope_theta: float
    eps: float | None
    norms: dict[str, str] = field(default_factory=lambda: NORMS)


ARCHITECTURES = {
    "BitNetForCausalLM": Architecture("bitnet", True, "relu2", 500000.0, 1e-5),
    "BitnetForCausalLM": Architecture(
        "llama",
        True,
        "silu",
        10000.0,
        None,
        NORMS | {"attn_sub_norm": "self_attn.inner_attn_ln", "ffn_sub_norm": "mlp.ffn_layernorm"},
    ),
    "LlamaForCausalLM": Architecture("llama", False, "silu", 10000.0, 1e-6),
}
"""The second, of 1bitLLM, differs from the first by a letter, by names and by the activation."""

_KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab": "vocab_size",
    "context": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "eps": "rms_norm_eps",
    "bos_ids": "bos_token_id",
    "eos_ids": "eos_token_id",
}
"""Fields of ModelSpec by their names here."""

_UNTOUCHED = {"lm_head", "lm_head.weight", "embed_tokens", "model.embed_tokens"}
"""Modules that no quantisation touches, so that excepting them changes nothing."""


@dataclass(frozen=True)
class Checkpoint:
    """What config.json says. `multiply`: packed weights are multiplied by their scale, not divided.

    `tied` is None where config.json does not say.
    """

    path: Path
    architecture: str
    storage: Storage
    multiply: bool
    tied: bool | None
    fields: dict[str, Any]

    @property
    def norms(self) -> dict[str, str]:
        return ARCHITECTURES[self.architecture].norms

    def origin(self, packed: bool) -> str:
        """A line for people; `packed`: the ternary weights are in two-bit codes."""
        codes = "two-bit codes" if packed else "-1, 0 and 1 in floating point"
        stored = {
            "packed": f"{codes}, {'multiplied' if self.multiply else 'divided'} by weight_scale",
            "masters": "weights in floating point, rounded to ternary here",
            "values": "weights in floating point that are ternary already",
        }
        return f"{self.architecture}, {stored[self.storage]}"

    def spec(self, tied: bool) -> ModelSpec:
        """The model's description. Raises UserError for values that are missing or impossible."""
        try:
            return ModelSpec(**self.fields, tied=tied)
        except ValidationError as e:
            first = e.errors()[0]
            text = first["msg"].removeprefix("Value error, ")
            if first["loc"]:
                key = _KEYS.get(str(first["loc"][0]), first["loc"][0])
                text = f"{key} is {reprlib.repr(first['input'])}: {text}"
            raise UserError(f"{self.path}: {text}") from None


def read_config(folder: Path) -> Checkpoint:
    """Read and judge config.json (and generation_config.json, which may name more ends)."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: not a model folder: it has no config.json")
    config = read_json(path)
    name = _architecture(config, path)
    architecture = ARCHITECTURES[name]
    _refuse_unsupported(config, path)
    storage, multiply = _storage(config, name, path)
    tied = config.get("tie_word_embeddings")
    if tied is not None and not isinstance(tied, bool):
        raise UserError(f"{path}: tie_word_embeddings is {tied!r}: true or false is expected")
    activation = _value(config, "hidden_act", architecture.activation)
    if activation not in ("relu2", "silu"):
        raise UserError(f"{path}: hidden_act {activation!r} is not supported: relu2 or silu")
    fields = {
        "name": folder.resolve().name,
        "rope_theta": _rope_theta(config, path, architecture.rope_theta),
        "activation": activation,
        "attn_sub_norm": architecture.sub_norms,
        "ffn_sub_norm": architecture.sub_norms,
        "weight_only": storage == "values",
        "bos_ids": _ids(config.get("bos_token_id")),
        "eos_ids": _end_ids(config, folder),
    }
    defaults = {"eps": architecture.eps}
    for key in ("layers", "hidden", "ffn", "heads", "vocab", "context", "eps"):
        fields[key] = _value(config, _KEYS[key], defaults.get(key))
        if fields[key] is None:
            raise UserError(f"{path}: {_KEYS[key]} is missing")
    heads, hidden = fields["heads"], fields["hidden"]
    fields["kv_heads"] = _value(config, "num_key_value_heads", heads)
    whole = type(heads) is type(hidden) is int and heads > 0
    fields["head_dim"] = _value(config, "head_dim", hidden // heads if whole else 0)
    return Checkpoint(path, name, storage, multiply, tied, fields)


def _architecture(config: dict, path: Path) -> str:
    """A key of ARCHITECTURES: what `architectures` names, else what `model_type` means."""
    kind, named = config.get("model_type"), config.get("architectures")
    if named is None:
        name = {"bitnet": "BitNetForCausalLM", "llama": "LlamaForCausalLM"}.get(str(kind))
        if name == "LlamaForCausalLM" and "weight_bits" in config:
            name = "BitnetForCausalLM"
        found = f"model_type {kind!r}"
    else:
        name = named[0] if isinstance(named, list) and named else named
        found = f"architecture {name!r}"
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UserError(f"{path}: {found} is not known: {known} are")
    expected = ARCHITECTURES[name].model_type
    if kind not in (None, expected):
        raise UserError(
            f"{path}: model_type {kind!r} is not known for {name}: {expected!r} is expected"
        )
    return name


def _storage(config: dict, architecture: str, path: Path) -> tuple[Storage, bool]:
    """How matrices are stored, and whether packed weights are multiplied by their scale."""
    if architecture == "BitnetForCausalLM":
        for key, bits in (("weight_bits", 1), ("input_bits", 8)):
            if _value(config, key, bits) != bits:
                raise UserError(f"{path}: {key} is {config[key]!r}: {bits} is supported")
    quantisation = _section(config, "quantization_config", path)
    if not quantisation:
        return ("masters" if architecture == "BitnetForCausalLM" else "values"), True
    method = quantisation.get("quant_method")
    if method != "bitnet":
        raise UserError(f"{path}: quant_method {method!r} is not known: 'bitnet' is")
    kind = _value(quantisation, "linear_class", "bitlinear")
    mode = _value(quantisation, "quantization_mode", "offline")
    if kind not in ("bitlinear", "autobitlinear"):
        raise UserError(
            f"{path}: linear_class {kind!r} is not known: bitlinear and autobitlinear are"
        )
    if mode not in ("offline", "online"):
        raise UserError(f"{path}: quantization_mode {mode!r} is not known: offline and online are")
    if quantisation.get("use_rms_norm"):
        raise UserError(
            f"{path}: use_rms_norm is true: a norm in front of every matrix is not supported"
        )
    kept = _value(quantisation, "modules_to_not_convert", [])
    if not isinstance(kept, list):
        raise UserError(f"{path}: modules_to_not_convert is no list")
    for module in kept:
        if str(module) not in _UNTOUCHED:
            raise UserError(
                f"{path}: modules_to_not_convert has {module!r}: matrices that are not ternary are"
                " not supported, but for lm_head"
            )
    multiply = kind == "autobitlinear"
    return ("masters" if multiply and mode == "online" else "packed"), multiply


def _refuse_unsupported(config: dict, path: Path) -> None:
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise UserError(f"{path}: {key} is {config[key]!r}: biases are not supported")
    for name in ("rope_parameters", "rope_scaling"):
        scaling = _section(config, name, path)
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default" or "factor" in scaling:
            raise UserError(
                f"{path}: {name} of type {kind!r} scales rotary embeddings: that is not supported"
            )
    for part in (config, _section(config, "rope_parameters", path)):
        if _value(part, "partial_rotary_factor", 1) != 1:
            raise UserError(
                f"{path}: partial_rotary_factor is {part['partial_rotary_factor']!r}: heads that"
                " are rotated in part are not supported"
            )


def _rope_theta(config: dict, path: Path, default: float) -> Any:
    """Published files have it at top level, transformers 5 writes it in `rope_parameters`."""
    inner = _section(config, "rope_parameters", path).get("rope_theta")
    return _value(config, "rope_theta", default if inner is None else inner)


def _end_ids(config: dict, folder: Path) -> tuple:
    """Ids that end a sequence, those of config.json first."""
    ids = _ids(config.get("eos_token_id"))
    generation = folder / "generation_config.json"
    if generation.is_file():
        more = _ids(read_json(generation).get("eos_token_id"))
        ids += tuple(i for i in more if i not in ids)
    return ids


def _ids(value: Any) -> tuple:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _value(config: dict, key: str, default: Any) -> Any:
    """A value; null is as good as none."""
    value = config.get(key)
    return default if value is None else value


def _section(config: dict, name: str, path: Path) -> dict:
    """An object of config.json, empty where there is none."""
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {name} is no JSON object")
    return value
