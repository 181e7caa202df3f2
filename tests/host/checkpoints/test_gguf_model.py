"""GGUF files as models: against what was written, against transformers, and refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from terntable.host.checkpoints.gguf_file import Gguf
from terntable.host.checkpoints.i2s_layout import ORDERS, correlation
from terntable.host.compiler import compile_model
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.fit import derive_config
from terntable.host.head import quantise_head
from terntable.host.model import Model, TernaryLinear, load_model, widen
from terntable.host.session import Session
from terntable.hw.errors import UserError

from .gguf_cases import (
    Writer,
    gguf,
    pack_i2s,
    pack_rows,
    small_model,
    spec_of,
    write_gguf,
)

CASES = {"llama": "TQ2_0", "bitnet": "TQ1_0", "bitnet-b1.58": "I2_S"}
EXACT = [*CASES.items(), ("bitnet-25", "I2_S"), ("llama", "F16"), ("bitnet", "F32")]


@pytest.mark.parametrize(("architecture", "kind"), EXACT)
def test_what_was_written_is_read(tmp_path: Path, architecture: str, kind: str) -> None:
    model = small_model(spec_of(architecture))
    read = load_model(write_gguf(tmp_path / "m.gguf", model, architecture, kind))
    assert read.spec == model.spec
    assert read.warnings == () and architecture in read.origin and kind in read.origin
    for n in range(model.spec.layers):
        expected, got = model.layer(n), read.layer(n)
        for name, linear in expected.linears.items():
            assert np.array_equal(got.linears[name].trits, linear.trits)
            assert got.linears[name].scale == linear.scale
            assert got.linears[name].column_scale is None
        for name, gain in expected.gains.items():
            assert np.array_equal(got.gains[name], gain)
    assert np.array_equal(read.final_gain, model.final_gain)
    for table, written in ((read.embedding, model.embedding), (read.head, model.head)):
        assert table.dtype == np.float16 and np.array_equal(table, written)
    assert (read.head is read.embedding) == model.spec.tied


def test_ternary_values_in_bfloat16(tmp_path: Path) -> None:
    """Scales have what bfloat16 leaves of them."""
    model = small_model(spec_of("llama", tied=True))
    read = load_model(write_gguf(tmp_path / "m.gguf", model, "llama", "BF16", table="BF16"))
    linear, written = read.layer(1).linears["k"], model.layer(1).linears["k"]
    assert np.array_equal(linear.trits, written.trits)
    assert linear.scale == pytest.approx(written.scale, rel=2**-7)
    assert read.embedding.dtype == np.uint16 and read.spec.tied


# ------------------------------------------------------------ against transformers


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A model read from a file, and transformers' with the weights that went into the file."""
    architecture, kind = request.param, CASES[request.param]
    model = small_model(spec_of(architecture), seed=4)
    file = tmp_path_factory.mktemp("gguf") / "m.gguf"
    return load_model(write_gguf(file, model, architecture, kind)), published(model)


def published(model: Model):
    """transformers' own class in binary32, its matrices replaced by its BitNet linears."""
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.integrations import bitnet

    spec = model.spec
    kind = transformers.BitNetConfig if spec.attn_sub_norm else transformers.LlamaConfig
    config = kind(
        hidden_size=spec.hidden,
        intermediate_size=spec.ffn,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        vocab_size=spec.vocab,
        max_position_embeddings=spec.context,
        rms_norm_eps=spec.eps,
        hidden_act=spec.activation,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        tie_word_embeddings=spec.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    oracle = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    settings = transformers.BitNetQuantConfig(linear_class="bitlinear")
    bitnet.replace_with_bitnet_linear(oracle, ["lm_head"], settings)
    state = {
        "model.embed_tokens.weight": model.embedding,
        "model.norm.weight": model.final_gain,
        "lm_head.weight": model.head,
    }
    state = {name: torch.from_numpy(x.astype(np.float32)) for name, x in state.items()}
    norms = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    subs = {"attn_sub_norm": "self_attn.attn_sub_norm", "ffn_sub_norm": "mlp.ffn_sub_norm"}
    for n in range(spec.layers):
        layer, at = model.layer(n), f"model.layers.{n}"
        for name, linear in layer.linears.items():
            part = "mlp" if name in ("gate", "up", "down") else "self_attn"
            weight = f"{at}.{part}.{name}_proj.weight"
            state[weight] = bitnet.pack_weights(torch.from_numpy(linear.trits))
            state[f"{weight}_scale"] = torch.tensor([1 / linear.scale])  # this class divides
        for name, gain in layer.gains.items():
            state[f"{at}.{(norms | subs)[name]}.weight"] = torch.from_numpy(gain)
    oracle.load_state_dict(state)
    return oracle.eval()


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))


def test_the_emulator_says_what_transformers_says(pair) -> None:
    import torch

    model, oracle = pair
    config = derive_config(model.spec)
    prompt = np.random.default_rng(2).integers(0, model.spec.vocab, 24).tolist()
    with EmulatorDevice(config) as device:
        session = Session(device, compile_model(model, config))
        generation = session.generate(prompt, 24)
    got = generation.logits_array(model.spec.vocab)
    ids = torch.tensor([prompt + generation.tokens])
    with torch.no_grad():
        expected = oracle(ids).logits[0, len(prompt) - 1 : -1].numpy()
        head = quantise_head(model.head)
        oracle.lm_head.weight = torch.nn.Parameter(
            torch.from_numpy(head.codes * head.scales[:, None])
        )
        same_head = oracle(ids).logits[0, len(prompt) - 1 : -1].numpy()
    print(f"{relative(got, expected):.2%}, {relative(got, same_head):.2%} with the same head")
    assert relative(got, expected) < 0.02
    assert relative(got, same_head) < 0.01
    top = np.sort(expected, axis=1)
    spread = top[:, -1] - top[:, 0]
    clear = top[:, -1] - top[:, -2] > 0.02 * spread
    assert clear.sum() > len(clear) // 2
    assert np.array_equal(got.argmax(1)[clear], expected.argmax(1)[clear])


# ------------------------------------------------------------ variants


def sharded(model: Model, rows: int, columns: int) -> Model:
    """The model with its matrices' scales by runs of rows, those of o and down by columns."""

    def layer(n: int):
        found = model.layer(n)
        for name, linear in found.linears.items():
            count = columns if name in ("o", "down") else rows
            sizes = (2.0 ** -np.arange(1, count + 1)).astype(np.float32)
            if name in ("o", "down"):
                found.linears[name] = TernaryLinear(linear.trits, np.float32(1), sizes)
            else:
                found.linears[name] = TernaryLinear(linear.trits, sizes)
        return found

    return Model(model.spec, layer, model.final_gain, model.embedding, model.head)


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0", "F16"])
@pytest.mark.parametrize("rows", [2, 16])
def test_scales_of_shards(tmp_path: Path, kind: str, rows: int) -> None:
    """Scales move with the rows of q and k: 16 shards hold a part of a head each."""
    spec = spec_of("llama", hidden=512, heads=8, kv_heads=2)
    model = sharded(small_model(spec), rows=rows, columns=2)
    read = load_model(write_gguf(tmp_path / "m.gguf", model, "llama", kind))
    assert read.spec.weight_only and "several scales" in read.origin
    for name, linear in model.layer(1).linears.items():
        assert np.array_equal(read.layer(1).linears[name].dense(), linear.dense()), name
        assert read.layer(1).linears[name].row_scales.size == linear.row_scales.size


def test_a_name_says_that_a_model_is_weight_only(tmp_path: Path) -> None:
    model = small_model(spec_of("llama", name="TriLM 99M"))
    read = load_model(write_gguf(tmp_path / "m.gguf", model, "llama", "TQ2_0"))
    assert read.spec.weight_only and "its name is TriLM" in read.origin


def test_scales_in_tensors_of_their_own(tmp_path: Path) -> None:
    model = small_model(spec_of("bitnet"))

    def add(writer: Writer) -> None:
        writer.add_tensor("blk.1.ffn_up.scale", np.array([0.25], np.float32))

    read = load_model(write_gguf(tmp_path / "m.gguf", model, "bitnet", "TQ2_0", change=add))
    for n, factor in ((0, 1), (1, 0.25)):
        scale = model.layer(n).linears["up"].scale * np.float32(factor)
        assert read.layer(n).linears["up"].scale == scale
    assert read.warnings == ()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F32"])
def test_embeddings_in_other_types(tmp_path: Path, kind: str) -> None:
    model = small_model(spec_of("llama"))
    file = write_gguf(tmp_path / "m.gguf", model, "llama", "TQ2_0", table=kind)
    read = load_model(file)
    number = gguf.GGMLQuantizationType[kind]
    for table, given in ((read.embedding, model.embedding), (read.head, model.head)):
        expected = gguf.dequantize(gguf.quantize(given.astype(np.float32), number), number)
        assert table.dtype == np.float16
        assert np.array_equal(table, expected.astype(np.float16))
    assert read.table_error < 3e-4


def test_embeddings_that_only_the_package_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(
        tmp_path / "m.gguf", small_model(spec_of("bitnet")), "bitnet", "TQ1_0", table="Q8_0"
    )
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"token_embd.weight is Q8_0, .* 'terntable\[import\]'"):
        load_model(file)


def test_an_activation_that_the_file_names(tmp_path: Path) -> None:
    def add(writer: Writer) -> None:
        writer.add_string("bitnet.hidden_activation", "relu2")

    model = small_model(spec_of("bitnet"))
    read = load_model(write_gguf(tmp_path / "m.gguf", model, "bitnet", "TQ2_0", change=add))
    assert read.spec.activation == "relu2"


def test_what_leaves_rotary_embeddings_as_they_are(tmp_path: Path) -> None:
    """A factor of 1, factors of 1, and the plain frequencies, which one converter writes."""
    spec = spec_of("bitnet-25")
    plain = (spec.rope_theta ** -(np.arange(0, 64, 2) / 64)).astype(np.float32)
    for factors in (np.ones(32, np.float32), plain):

        def add(writer: Writer, factors: np.ndarray = factors) -> None:
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(1.0)
            writer.add_rope_dimension_count(64)
            writer.add_tensor("rope_freqs.weight", factors)

        file = write_gguf(tmp_path / "m.gguf", small_model(spec), "bitnet-25", "I2_S", change=add)
        assert load_model(file).spec == spec


def test_unused_tensors_are_named(tmp_path: Path) -> None:
    def add(writer: Writer) -> None:
        for i in range(4):
            writer.add_tensor(f"other.{i}", np.ones(3, np.float32))

    model = small_model(spec_of("bitnet"))
    file = write_gguf(tmp_path / "m.gguf", model, "bitnet", "TQ2_0", change=add)
    assert load_model(file).warnings == (
        "the model does not use tensor other.0, other.1, other.2 and 1 more",
    )


def test_folders(tmp_path: Path) -> None:
    model = small_model(spec_of("bitnet"))
    file = write_gguf(tmp_path / "one.gguf", model, "bitnet", "TQ2_0")
    assert load_model(tmp_path).source == file
    (tmp_path / "two.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="holds 2 GGUF models: name one"):
        load_model(tmp_path)
    with pytest.raises(UserError, match=r"two\.gguf: not a GGUF file, or cut short"):
        load_model(tmp_path / "two.gguf")


# ------------------------------------------------------------ mistakes


def fails(tmp_path: Path, message: str, architecture: str = "bitnet", **how: object) -> None:
    """Opening such a file says this in one line that names it."""
    kind = how.pop("kind", "TQ2_0")
    spec = how.pop("spec", None) or spec_of(architecture if architecture != "gpt2" else "llama")
    file = write_gguf(tmp_path / "m.gguf", small_model(spec), architecture, kind, **how)
    with pytest.raises(UserError, match=message) as error:
        load_model(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def key(name: str, value: object) -> Callable[[Writer], None]:
    """Adds a key whose type is that of the value."""

    def add(writer: Writer) -> None:
        kinds = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
        kinds.get(type(value), writer.add_float32)(name, value)

    return add


def tensor(name: str, value: np.ndarray) -> Callable[[Writer], None]:
    return lambda writer: writer.add_tensor(name, value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"architecture": "gpt2"}, "architecture 'gpt2' is not known: llama, bitnet, bitnet-25"),
        ({"kind": "Q8_0"}, "attn_q.weight is Q8_0: not a ternary checkpoint"),
        ({"change": key("bitnet.rope.scaling.factor", 2.0)}, "rotary embeddings are scaled"),
        ({"change": key("bitnet.rope.scaling.type", "yarn")}, r"are scaled \(yarn, factor 1\)"),
        (
            {"change": tensor("rope_freqs.weight", np.full(32, 8, np.float32))},
            "rope_freqs.weight scales rotary embeddings",
        ),
        ({"change": key("bitnet.rope.dimension_count", 32)}, "rope.dimension_count is 32"),
        ({"change": key("bitnet.attention.value_length", 32)}, "value_length is 32"),
        ({"change": key("bitnet.expert_count", 8)}, "8 experts"),
        ({"change": key("bitnet.hidden_activation", "gelu")}, "activation is 'gelu'"),
        ({"change": tensor("blk.0.attn_q.bias", np.ones(4, np.float32))}, "attn_q.bias: such"),
        ({"change": tensor("blk.0.attn_q_norm.weight", np.ones(64, np.float32))}, "q_norm.weight"),
        ({"without": ("blk.1.ffn_down.weight",)}, "tensor blk.1.ffn_down.weight is missing"),
        ({"without": ("blk.1.ffn_sub_norm.weight",)}, "blk.1.ffn_sub_norm.weight is missing"),
        ({"without": ("token_embd.weight",)}, "tensor token_embd.weight is missing"),
        (
            {
                "without": ("blk.1.attn_norm.weight",),
                "change": tensor("blk.1.attn_norm.weight", np.ones(255, np.float32)),
            },
            r"attn_norm.weight has shape \(255,\): \(256,\) is expected",
        ),
        (
            {
                "without": ("output_norm.weight",),
                "change": tensor("output_norm.weight", np.full(256, np.nan, np.float32)),
            },
            "output_norm.weight has values that aren't finite",
        ),
        (
            {
                "without": ("token_embd.weight",),
                "change": tensor("token_embd.weight", np.full((96, 256), np.inf, np.float16)),
            },
            "token_embd.weight has values that aren't finite",
        ),
        (
            {"change": tensor("blk.0.ffn_up.scale", np.array([-1], np.float32))},
            "ffn_up.scale is -1.0: a positive one",
        ),
    ],
)
def test_a_mistake_is_explained(tmp_path: Path, how: dict, message: str) -> None:
    fails(tmp_path, message, **how)


def test_weights_that_are_not_ternary(tmp_path: Path) -> None:
    """Two magnitudes in one row; block scales that follow neither rows nor columns."""
    rng = np.random.default_rng(0)
    values = rng.choice([-0.5, 0, 0.5], (256, 256)).astype(np.float32)
    values[7, 9] = 0.75
    name = "blk.0.attn_q.weight"
    fails(
        tmp_path,
        "attn_q.weight is not ternary: row 7 has magnitudes from 0.5 to 0.75",
        without=(name,),
        change=lambda writer: writer.table(name, values, "F16"),
    )
    name = "blk.0.ffn_down.weight"
    fails(
        tmp_path,
        "ffn_down.weight is not ternary",
        without=(name,),
        change=lambda writer: writer.table(name, rng.standard_normal((256, 512)), "TQ2_0"),
    )


def test_shapes_that_the_metadata_denies(tmp_path: Path) -> None:
    model = small_model(spec_of("bitnet", kv_heads=1))
    other = model.spec.model_copy(update={"kv_heads": 2})
    wrong = Model(other, model.layer, model.final_gain, model.embedding, model.head)
    file = write_gguf(tmp_path / "m.gguf", wrong, "bitnet", "TQ2_0")
    with pytest.raises(UserError, match=r"attn_k.weight has shape \(64, 256\): \(128, 256\)"):
        load_model(file)


@pytest.fixture(scope="module")
def trained() -> Model:
    """The built-in model, its MLP cut to whole blocks of I2_S."""
    tiny = load_model("tiny")
    ffn = tiny.spec.ffn // 128 * 128
    spec = tiny.spec.model_copy(update={"ffn": ffn, "bos_ids": (), "eos_ids": ()})

    def layer(n: int):
        found = tiny.layer(n)
        for name in ("gate", "up", "down"):
            linear = found.linears[name]
            trits = linear.trits[:, :ffn] if name == "down" else linear.trits[:ffn]
            found.linears[name] = TernaryLinear(np.ascontiguousarray(trits), linear.scale)
        found.gains["ffn_sub_norm"] = found.gains["ffn_sub_norm"][:ffn]
        return found

    table = widen(tiny.embedding)
    return Model(spec, layer, tiny.final_gain, table, table)


def pack_arm(trits: np.ndarray, scale: float) -> np.ndarray:
    return pack_i2s(trits, scale, group=16)


@pytest.mark.parametrize(
    ("pack", "order", "words"),
    [(pack_i2s, "published", ""), (pack_arm, "arm", "on ARM"), (pack_rows, "rows", "four rows")],
)
def test_orders_of_i2s_show_in_trained_weights(
    tmp_path: Path, trained: Model, pack: Callable[..., np.ndarray], order: str, words: str
) -> None:
    file = write_gguf(tmp_path / "m.gguf", trained, "bitnet-b1.58", "I2_S", pack=pack)
    tensors = Gguf(file)
    found = {
        each: [
            correlation(*(tensors[f"blk.{n}.ffn_{name}.weight"] for name in ("up", "down")), each)
            for n in range(trained.spec.layers)
        ]
        for each in ORDERS
    }
    print({each: [round(x, 3) for x in values] for each, values in found.items()})
    assert all((min(x) > 0.9) if each == order else (max(x) < 0.4) for each, x in found.items())
    if not words:
        assert load_model(file).layer(3).linears["down"].trits.any()
        return
    with pytest.raises(UserError, match=f"ffn_up.weight is I2_S in an order .*{words}"):
        load_model(file)


def test_random_weights_show_no_order(tmp_path: Path) -> None:
    """No evidence is no reason to refuse."""
    for seed in range(8):
        model = small_model(spec_of("bitnet-b1.58", layers=1), seed)
        load_model(write_gguf(tmp_path / "m.gguf", model, "bitnet-b1.58", "I2_S"))


def test_a_damaged_i2s_tensor(tmp_path: Path) -> None:
    """Codes of 3, a scale that is none, a tail that is missing."""
    name = "blk.0.ffn_down.weight"

    def pack(codes: int, scale: float, tail: int) -> Callable[[Writer], None]:
        data = np.full(256 * 512 // 4, codes, np.uint8).tobytes() + np.float32(scale).tobytes()
        array = np.frombuffer(data + bytes(tail - 4), np.int8)
        return lambda writer: writer.add_tensor(name, array, (256, 512), 36)

    for codes, scale, tail, message in (
        (0xFF, 1.0, 32, "codes that are no trits"),
        (0, np.inf, 32, "aren't finite"),
        (0, -1.0, 32, "has the scale -1.0"),
        (0, 0.0, 32, "has the scale 0"),
        (0, 1.0, 128, "has 96 bytes more"),
    ):
        how = {"without": (name,), "change": pack(codes, scale, tail)}
        fails(tmp_path, message, "bitnet-b1.58", kind="I2_S", **how)
