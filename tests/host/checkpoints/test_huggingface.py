"""Hugging Face folders: what is read from them, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from terntable.host.model import ModelSpec, load_model
from terntable.hw.errors import UserError

UP = "model.layers.0.mlp.up_proj.weight"
SPEC = ModelSpec(
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


def fails(folder, message: str) -> None:
    """Opening it, or reading its layers, says this in one line that names the folder."""
    with pytest.raises(UserError, match=message) as error:
        model = load_model(folder.write())
        for n in range(model.spec.layers):
            model.layer(n)
    assert str(folder.path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("linear_class", ["autobitlinear", "bitlinear", None])
def test_a_packed_folder_is_read(folder, linear_class: str | None) -> None:
    folder.config["quantization_config"]["linear_class"] = linear_class
    model = load_model(folder.write())
    assert model.spec == SPEC
    layer = model.layer(1)
    for name, trits in (("up", "1.mlp.up_proj"), ("k", "1.self_attn.k_proj")):
        assert np.array_equal(layer.linears[name].trits, folder.trits[trits])
    # The one class multiplies by the scale and the other divides.
    expected = 1.5 if linear_class == "autobitlinear" else 1 / 1.5
    assert layer.linears["q"].scale == np.float32(expected)
    gain = folder.tensors["model.layers.1.mlp.ffn_sub_norm.weight"]
    assert np.array_equal(layer.gains["ffn_sub_norm"], gain)
    assert np.array_equal(model.embedding, folder.tensors["model.embed_tokens.weight"])
    assert model.embedding.dtype == np.float16
    assert model.head is model.embedding
    assert model.warnings == () and model.table_error == 0


def test_weights_that_are_not_packed_yet(folder) -> None:
    for name, trits in folder.trits.items():
        n, matrix = name.split(".", 1)
        folder.tensors[f"model.layers.{n}.{matrix}.weight"] = trits.astype(np.float16)
    linear = load_model(folder.write()).layer(1).linears["up"]
    assert np.array_equal(linear.trits, folder.trits["1.mlp.up_proj"])
    assert linear.scale == np.float32(1.5)
    folder.tensors[UP] = 2 * folder.tensors[UP]
    fails(folder, "up_proj.weight has weights of 2: -1, 0 and 1 are expected")


def test_rows_that_are_no_multiple_of_four(folder) -> None:
    """The published packing pads the rows of its last quarter."""
    trits = np.random.default_rng(1).integers(-1, 2, (10, 8))
    padded = np.concatenate([trits, np.full((2, 8), -1)])
    quarters = (padded + 1).astype(np.uint8).reshape(4, 3, 8)
    packed = sum(q << 2 * i for i, q in enumerate(quarters))
    for n in range(2):
        for name in ("gate_proj", "up_proj"):
            folder.tensors[f"model.layers.{n}.mlp.{name}.weight"] = packed
        folder.tensors[f"model.layers.{n}.mlp.ffn_sub_norm.weight"] = np.ones(10, np.float32)
        down = folder.tensors[f"model.layers.{n}.mlp.down_proj.weight"]
        folder.tensors[f"model.layers.{n}.mlp.down_proj.weight"] = down[:, :10].copy()
    folder.config["intermediate_size"] = 10
    assert np.array_equal(load_model(folder.write()).layer(0).linears["up"].trits, trits)


def test_masters_are_rounded_to_ternary(folder) -> None:
    folder.dense().config["quantization_config"]["quantization_mode"] = "online"
    weights = np.zeros((12, 8), np.float32)
    weights[0, :6] = [8, 4, -4, 3.999, 4.001, -8]
    weights[2, :4] = [0.168, 0.175, -0.168, -0.175]
    folder.tensors[UP] = weights
    linear = load_model(folder.write()).layer(0).linears["up"]
    mean = np.abs(weights).mean(dtype=np.float64)
    assert linear.trits[0].tolist() == [1, 1, -1, 1, 1, -1, 0, 0]
    assert 0.168 < mean / 2 < 0.175  # as far as 0 reaches
    assert linear.trits[2].tolist() == [0, 1, 0, -1, 0, 0, 0, 0]
    assert linear.scale == pytest.approx(mean, rel=1e-6)
    folder.tensors[UP] = np.zeros((12, 8), np.float32)
    assert load_model(folder.write()).layer(0).linears["up"].scale == np.float32(1e-5)


def test_old_names_of_sub_norms(folder) -> None:
    """1bitLLM's class differs by a letter; its model_type is llama."""
    folder.dense()
    for n in range(2):
        at = f"model.layers.{n}"
        for old, new in (
            ("self_attn.attn_sub_norm", "self_attn.inner_attn_ln"),
            ("mlp.ffn_sub_norm", "mlp.ffn_layernorm"),
        ):
            folder.tensors[f"{at}.{new}.weight"] = folder.tensors.pop(f"{at}.{old}.weight")
        folder.tensors[f"{at}.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    del folder.config["quantization_config"]
    folder.config |= {
        "architectures": ["BitnetForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "weight_bits": 1,
        "input_bits": 8,
    }
    model = load_model(folder.write())
    assert model.spec == SPEC.model_copy(update={"activation": "silu"})
    gain = folder.tensors["model.layers.1.mlp.ffn_layernorm.weight"]
    assert np.array_equal(model.layer(1).gains["ffn_sub_norm"], gain)
    assert model.warnings == ()
    del folder.config["rms_norm_eps"]
    fails(folder, "rms_norm_eps is missing")
    folder.config["weight_bits"] = 2
    fails(folder, "weight_bits is 2: 1 is supported")


def test_llama_layout_without_sub_norms_and_with_its_own_head(folder) -> None:
    for name in [name for name in folder.tensors if "sub_norm" in name]:
        del folder.tensors[name]
    folder.tensors["lm_head.weight"] = np.full((10, 8), 2, np.float16)
    folder.config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    folder.config |= {"hidden_act": "silu", "tie_word_embeddings": False}
    model = load_model(folder.write())
    assert not (model.spec.attn_sub_norm or model.spec.ffn_sub_norm or model.spec.tied)
    assert not model.spec.weight_only
    assert (model.head == 2).all()


def test_what_config_json_leaves_out(folder) -> None:
    """Defaults are those of the published code."""
    for key in ("rope_theta", "rms_norm_eps", "hidden_act", "head_dim", "tie_word_embeddings"):
        del folder.config[key]
    del folder.config["architectures"]
    spec = load_model(folder.write()).spec
    assert spec == SPEC
    folder.config["rope_parameters"] = {"rope_type": "default", "rope_theta": 123.0}
    assert load_model(folder.write()).spec.rope_theta == 123.0
    folder.config["tie_word_embeddings"] = False
    fails(folder, "lm_head.weight is missing")


def test_ends_of_both_files(folder) -> None:
    path = folder.write()
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 7]}))
    assert load_model(path).spec.eos_ids == (2, 3, 7)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": None}))
    assert load_model(path).spec.eos_ids == (2, 3)


@pytest.mark.parametrize("tied", [True, None])
def test_a_head_beside_tied_embeddings(folder, tied: bool | None) -> None:
    folder.config["tie_word_embeddings"] = tied
    folder.tensors["lm_head.weight"] = folder.tensors["model.embed_tokens.weight"].copy()
    model = load_model(folder.write())
    assert model.spec.tied is bool(tied) and model.warnings == ()
    folder.tensors["lm_head.weight"][3, 4] += 1
    model = load_model(folder.write())
    assert not model.spec.tied
    assert np.array_equal(model.head, folder.tensors["lm_head.weight"])
    assert bool(model.warnings) is bool(tied)


def test_unused_tensors_are_named(folder) -> None:
    for i in range(5):
        folder.tensors[f"model.layers.2.extra{i}"] = np.zeros(3, np.int64)
    assert load_model(folder.write()).warnings == (
        "the model does not use tensor model.layers.2.extra0, model.layers.2.extra1,"
        " model.layers.2.extra2 and 2 more",
    )


def test_tokenizer_and_chat_template(folder) -> None:
    path = folder.write()
    text = load_model(path).text()
    assert text.tokenizer is None and text.chat_template is None
    (path / "tokenizer.json").write_bytes(b'{"a": "b\r\n"}')
    config = path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "{{ one }}"}))
    text = load_model(path).text()
    assert text.tokenizer == '{"a": "b\r\n"}' and text.chat_template == "{{ one }}"
    named = [{"name": "tool", "template": "t"}, {"name": "default", "template": "{{ two }}"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert load_model(path).text().chat_template == "{{ two }}"
    (path / "chat_template.jinja").write_text("{{ three }}")
    assert load_model(path).text().chat_template == "{{ three }}"
    (path / "chat_template.jinja").unlink()
    config.write_text(json.dumps({"chat_template": 3}))
    with pytest.raises(UserError, match="chat_template is no text"):
        load_model(path).text()
    (path / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"tokenizer\.json: can't be read"):
        load_model(path).text()


def test_bfloat16_and_several_files(folder) -> None:
    """bfloat16 is not a NumPy type: the file is written by hand."""
    path, name = folder.write(), "model.norm.weight"
    values = np.arange(1, 9, dtype=np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    entry = {name: {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}}
    header = json.dumps(entry).encode()
    (path / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bits)
    del folder.tensors[name]
    (path / "model.safetensors").unlink()
    save_file(folder.tensors, path / "a.safetensors")
    assert np.array_equal(load_model(path).final_gain, values)
    # An index says which files count.
    save_file({name: np.zeros(8, np.float32)}, path / "c.safetensors")
    with pytest.raises(UserError, match=r"norm\.weight is in b\.safetensors and in c\.safe"):
        load_model(path)
    named = dict.fromkeys(folder.tensors, "a.safetensors") | {name: "b.safetensors"}
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": named}))
    assert np.array_equal(load_model(path).final_gain, values)
    (path / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b\.safetensors is missing"):
        load_model(path)
    index.write_text(json.dumps({"weight_map": {name: "../b.safetensors"}}))
    with pytest.raises(UserError, match="weight_map"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architectures": ["Qwen3ForCausalLM"]},
            "'Qwen3ForCausalLM' is not known: BitNetForCausalLM, BitnetForCausalLM, Llama",
        ),
        ({"architectures": None, "model_type": "gpt2"}, "model_type 'gpt2' is not known: BitNet"),
        ({"architectures": []}, r"architecture \[\] is not known"),
        ({"model_type": "llama"}, "model_type 'llama' is not known for BitNetForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported: relu2 or silu"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling of type 'linear' scales"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
            "rope_parameters of type 'llama3' scales",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"attention_bias": True}, "attention_bias is True: biases are not supported"),
        ({"num_key_value_heads": 3}, "2 heads can't share 3 KV heads"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide': Input should be a valid integer"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0: Input should be greater than or eq"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"rope_theta": float("inf")}, "rope_theta is inf"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
        ({"num_hidden_layers": 3}, "tensor model.layers.2.self_attn.q_proj.weight is missing"),
        ({"vocab_size": 11}, r"embed_tokens.weight has shape \(10, 8\): \(11, 8\) is expected"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"quantization_config": None}, "q_proj.weight has type U8: F32 or F16 or BF16"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quant_method 'gptq' is not known"),
        ({"quantization_config": 3}, "quantization_config is no JSON object"),
    ],
)
def test_a_wrong_config_is_explained(folder, change: dict, message: str) -> None:
    folder.config |= change
    fails(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_rms_norm": True}, "use_rms_norm is true: a norm in front of every matrix"),
        ({"linear_class": "other"}, "linear_class 'other' is not known"),
        ({"quantization_mode": "later"}, "quantization_mode 'later' is not known"),
        ({"modules_to_not_convert": ["lm_head", "down_proj"]}, "has 'down_proj'"),
        ({"modules_to_not_convert": "lm_head"}, "modules_to_not_convert is no list"),
    ],
)
def test_a_wrong_quantisation_is_explained(folder, change: dict, message: str) -> None:
    folder.config["quantization_config"] |= change
    fails(folder, message)


def test_modules_that_are_not_converted_anyway(folder) -> None:
    folder.config["quantization_config"]["modules_to_not_convert"] = ["lm_head"]
    assert load_model(folder.write()).spec == SPEC


def test_wrong_files_are_explained(folder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model 'nowhere/at-all'"):
        load_model("nowhere/at-all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_model(tmp_path / "empty")
    path = folder.write()
    config, weights = path / "config.json", path / "model.safetensors"
    good = weights.read_bytes()
    for data, message in (
        (good[:-1], "cut short"),
        (good[:100], "cut short"),
        (b"", "cut short"),
        (good[:8] + b"?" + good[9:], "header is damaged"),
        ((9 << 20).to_bytes(8, "little") + bytes(10 << 20), "header has 9,437,184 bytes: damaged"),
    ):
        weights.write_bytes(data)
        with pytest.raises(UserError, match=message):
            load_model(path)
    weights.unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_model(path)
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a pickle file.*convert it to safe"):
        load_model(path)
    config.write_text("{")
    with pytest.raises(UserError, match="can't be read as JSON"):
        load_model(path)
    config.write_text(" " * (9 << 20))
    with pytest.raises(UserError, match="over 8,388,608 bytes"):
        load_model(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((3, 8), 255, np.uint8), "up_proj.weight has codes that are no trits"),
        (np.zeros((3, 8), np.int8), "type I8: U8 is expected"),
        (np.zeros((12, 8), np.uint8), r"shape \(12, 8\): \(3, 8\) is expected"),
        (np.zeros((3, 8), np.float32), r"shape \(3, 8\): \(12, 8\) is expected"),
        (np.full((12, 8), 0.25, np.float32), "weights of 0.25: -1, 0 and 1 are expected"),
        (None, "up_proj.weight is missing"),
    ],
)
def test_a_wrong_packed_matrix_is_explained(folder, value, message: str) -> None:
    folder.tensors[UP] = value
    if value is None:
        del folder.tensors[UP]
    fails(folder, message)


def test_bitlinear_is_always_packed(folder) -> None:
    del folder.config["quantization_config"]["linear_class"]
    folder.tensors[UP] = np.zeros((12, 8), np.float32)
    fails(folder, "up_proj.weight has type F32: U8 is expected")


@pytest.mark.parametrize("scale", [0, -1, np.inf, np.nan, 1e-42])
def test_a_wrong_scale_is_explained(folder, scale: float) -> None:
    folder.config["quantization_config"]["linear_class"] = "bitlinear"
    folder.tensors[f"{UP}_scale"] = np.array([scale], np.float32)
    fails(folder, "up_proj.weight_scale (is|has)")


@pytest.mark.parametrize(
    "name",
    [
        "model.norm.weight",
        "model.embed_tokens.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.mlp.down_proj.weight",
    ],
)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_values_that_are_not_finite(folder, name: str, value: float, dtype: type) -> None:
    folder.dense().config["quantization_config"]["quantization_mode"] = "online"
    folder.tensors[name] = folder.tensors[name].astype(dtype)
    folder.tensors[name].reshape(-1)[3] = value
    fails(folder, f"tensor {name} has values that aren't finite")


def test_biases_are_refused(folder) -> None:
    folder.tensors["model.layers.0.mlp.up_proj.bias"] = np.zeros(12, np.float32)
    fails(folder, "up_proj.bias: biases are not supported")


def test_weights_that_are_not_ternary(folder) -> None:
    del folder.dense().config["quantization_config"]
    assert load_model(folder.write()).spec.weight_only
    folder.tensors[UP][5, 2:4] = 0.5, 0.75
    fails(folder, f"{UP} is not ternary: row 5 has magnitudes from 0.5 to 0.75")
