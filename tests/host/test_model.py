"""Checkpoint folders, good and bad."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from terntable.host.model import ModelSpec, load_model, random_model
from terntable.hw.errors import UserError

CONFIG = {
    "model_type": "bitnet",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "vocab_size": 10,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "hidden_act": "relu2",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
}
ROWS = {
    "self_attn.q_proj": (8, 8),
    "self_attn.k_proj": (4, 8),
    "self_attn.v_proj": (4, 8),
    "self_attn.o_proj": (8, 8),
    "mlp.gate_proj": (12, 8),
    "mlp.up_proj": (12, 8),
    "mlp.down_proj": (8, 12),
}
NORMS = {
    "input_layernorm": 8,
    "post_attention_layernorm": 8,
    "self_attn.attn_sub_norm": 8,
    "mlp.ffn_sub_norm": 12,
}


def pack(trits: np.ndarray) -> np.ndarray:
    """Row r and those a quarter, a half and three quarters further in one byte."""
    quarter = len(trits) // 4
    packed = np.zeros((quarter, trits.shape[1]), np.uint8)
    for row, values in enumerate(trits):
        packed[row % quarter] |= ((values + 1) << 2 * (row // quarter)).astype(np.uint8)
    return packed


def tensors(trits: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {
        "model.embed_tokens.weight": rng.standard_normal((10, 8)).astype(np.float32),
        "model.norm.weight": np.ones(8, np.float32),
    }
    for n in range(2):
        for name, shape in ROWS.items():
            matrix = rng.integers(-1, 2, shape)
            if trits is not None:
                trits[f"{n}.{name}"] = matrix
            out[f"model.layers.{n}.{name}.weight"] = pack(matrix)
            out[f"model.layers.{n}.{name}.weight_scale"] = np.array([0.5 + n], np.float32)
        for name, size in NORMS.items():
            out[f"model.layers.{n}.{name}.weight"] = rng.standard_normal(size).astype(np.float32)
    return out


def write(folder: Path, config: dict, data: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(data, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("linear_class", ["autobitlinear", "bitlinear", None])
def test_a_checkpoint_is_read(tmp_path: Path, linear_class: str | None) -> None:
    trits: dict[str, np.ndarray] = {}
    data = tensors(trits)
    quantisation = {"quant_method": "bitnet"}
    if linear_class:
        quantisation["linear_class"] = linear_class
    model = load_model(write(tmp_path / "m", CONFIG | {"quantization_config": quantisation}, data))
    assert model.spec == ModelSpec(
        name="m",
        layers=2,
        hidden=8,
        ffn=12,
        heads=2,
        kv_heads=1,
        head_dim=4,
        vocab=10,
        context=32,
        rope_theta=5e5,
        eps=1e-5,
        activation="relu2",
        attn_sub_norm=True,
        ffn_sub_norm=True,
        tied=True,
        bos_ids=(1,),
        eos_ids=(2, 3),
    )
    layer = model.layer(1)
    assert np.array_equal(layer.linears["up"].trits, trits["1.mlp.up_proj"])
    assert np.array_equal(layer.linears["k"].trits, trits["1.self_attn.k_proj"])
    assert layer.linears["q"].scale == np.float32(
        1.5 if linear_class == "autobitlinear" else 1 / 1.5
    )
    gain = data["model.layers.1.mlp.ffn_sub_norm.weight"]
    assert np.array_equal(layer.gains["ffn_sub_norm"], gain)
    assert np.array_equal(model.head, data["model.embed_tokens.weight"])


def test_llama_layout_without_sub_norms_and_with_its_own_head(tmp_path: Path) -> None:
    data = {k: v for k, v in tensors().items() if "sub_norm" not in k}
    data["lm_head.weight"] = np.full((10, 8), 2, np.float32)
    config = CONFIG | {"model_type": "llama", "hidden_act": "silu", "tie_word_embeddings": False}
    spec = load_model(write(tmp_path / "m", config, data)).spec
    assert not (spec.attn_sub_norm or spec.ffn_sub_norm or spec.tied)
    assert spec.activation == "silu"


def test_bfloat16_and_several_files(tmp_path: Path) -> None:
    """bfloat16 is not a NumPy type: the file is written by hand."""
    data = tensors()
    folder = write(tmp_path / "m", CONFIG, data)
    name = "model.norm.weight"
    values = np.arange(1, 9, dtype=np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    entry = {name: {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}}
    header = json.dumps(entry).encode()
    (folder / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bits)
    del data[name]
    (folder / "model.safetensors").unlink()
    save_file(data, folder / "a.safetensors")
    index = {"weight_map": dict.fromkeys(data, "a.safetensors") | {name: "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert np.array_equal(load_model(folder).final_gain, values)
    (folder / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b\.safetensors is missing"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({"quantization_config": None}, "not a ternary checkpoint"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"attention_bias": True}, "biases"),
        ({"num_key_value_heads": 3}, "can't share"),
        ({"hidden_size": "wide"}, "valid integer"),
        ({"num_hidden_layers": 0}, "greater than or equal to 1"),
        ({"num_hidden_layers": 3}, "model.layers.2.self_attn.q_proj.weight is missing"),
        ({"vocab_size": 11}, r"embed_tokens.weight has shape \(10, 8\), not \(11, 8\)"),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
    ],
)
def test_a_wrong_config_is_explained(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_model(write(tmp_path / "m", CONFIG | change, tensors()))


def test_wrong_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model 'nowhere/at-all'"):
        load_model("nowhere/at-all")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="this is a file"):
        load_model(tmp_path / "file")
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_model(tmp_path)
    folder = write(tmp_path / "m", CONFIG, tensors())
    config, weights = folder / "config.json", folder / "model.safetensors"
    good = weights.read_bytes()
    for data, message in (
        (good[:-1], "cut short"),
        (good[:100], "cut short"),
        (b"", "cut short"),
        (good[:8] + b"?" + good[9:], "header is damaged"),
    ):
        weights.write_bytes(data)
        with pytest.raises(UserError, match=message):
            load_model(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_model(folder)
    config.write_text("{")
    with pytest.raises(UserError, match="can't be read as JSON"):
        load_model(folder)
    config.write_text(json.dumps({k: v for k, v in CONFIG.items() if k != "vocab_size"}))
    with pytest.raises(UserError, match="vocab_size is missing"):
        load_model(folder)


def test_wrong_tensors_are_explained(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    for value, message in (
        (np.full((3, 8), 255, np.uint8), "codes that are no trits"),
        (np.zeros((3, 8), np.float32), "is not packed"),
        (np.zeros((12, 8), np.float32), "has shape"),
    ):
        model = write(tmp_path / "m", CONFIG, tensors() | {name: value})
        with pytest.raises(UserError, match=message):
            load_model(model).layer(0)
    for scale in (0, -1, np.inf, np.nan):
        data = tensors() | {f"{name}_scale": np.array([scale], np.float32)}
        with pytest.raises(UserError, match="weight_scale is"):
            load_model(write(tmp_path / "m", CONFIG, data)).layer(0)


def test_random_models_repeat(make_spec) -> None:
    a, b, c = (random_model(make_spec(), seed) for seed in (1, 1, 2))
    assert np.array_equal(a.layer(1).linears["q"].trits, b.layer(1).linears["q"].trits)
    assert not np.array_equal(a.layer(1).linears["q"].trits, c.layer(1).linears["q"].trits)
    assert not np.array_equal(a.layer(0).linears["q"].trits, a.layer(1).linears["q"].trits)
