"""The torch device against transformers in binary32, on checkpoints that transformers wrote."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers.integrations import bitnet  # noqa: E402

from terntable.host.compiler import outline  # noqa: E402
from terntable.host.devices import torch as torch_device  # noqa: E402
from terntable.host.devices.base import DeviceError  # noqa: E402
from terntable.host.devices.torch import TorchDevice, weight_bytes  # noqa: E402
from terntable.host.fit import derive_config  # noqa: E402
from terntable.host.model import (  # noqa: E402
    BUILT_IN,
    Model,
    ModelSpec,
    load_model,
    random_model,
    widen,
)
from terntable.host.reference.decoder import Decoder  # noqa: E402
from terntable.host.reference.operations import rope_tables  # noqa: E402
from terntable.host.session import Session  # noqa: E402
from terntable.hw.errors import UserError  # noqa: E402

torch.set_num_threads(1)  # for transformers too: the models are small
LENGTH, SEEDS = 24, 6
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 200,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
PACKED = {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]}
CONFIGS = {
    "bitnet": transformers.BitNetConfig(
        **SHAPE,
        hidden_act="relu2",
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        tie_word_embeddings=True,
        quantization_config=PACKED | {"linear_class": "autobitlinear"},
    ),
    "llama": transformers.LlamaConfig(
        **SHAPE,
        head_dim=24,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000042.0},
        tie_word_embeddings=False,
        quantization_config=PACKED,
    ),
}


def published(config: transformers.PretrainedConfig, seed: int) -> torch.nn.Module:
    """transformers' own model with random ternary weights.

    Norm gains are small: saturated attention would amplify every difference. Embedding and head
    have values of 16 bits, as in published checkpoints.
    """
    torch.manual_seed(seed)
    oracle = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    settings = transformers.BitNetQuantConfig(**config.quantization_config)
    bitnet.replace_with_bitnet_linear(oracle, ["lm_head"], settings)
    for module in oracle.modules():
        if isinstance(module, bitnet.BitLinear | bitnet.AutoBitLinear):
            trits = torch.randint(-1, 2, (module.out_features, module.in_features))
            scale = (1.5 / module.in_features) ** 0.5 * (0.8 + 0.4 * torch.rand(1))
            if isinstance(module, bitnet.BitLinear):
                module.weight.copy_(bitnet.pack_weights(trits))
                module.weight_scale.copy_(1 / scale)
            else:
                module.weight = torch.nn.Parameter(trits.float(), requires_grad=False)
                module.weight_scale = torch.nn.Buffer(scale)
        elif type(module).__name__.endswith("RMSNorm"):
            module.weight.data = 0.8 * (1 + 0.3 * torch.randn_like(module.weight))
        elif isinstance(module, torch.nn.Embedding | torch.nn.Linear):
            module.weight.data = torch.randn_like(module.weight).bfloat16().float()
    oracle.tie_weights()
    return oracle.eval()


def save(oracle: torch.nn.Module, folder: Path) -> None:
    """The folder that transformers writes; weights of linears that it keeps unpacked are packed
    by it, as in the published checkpoints, which it can't write itself."""
    oracle.save_pretrained(folder)
    unpacked = {
        f"{name}.weight": bitnet.pack_weights(module.weight.to(torch.int8))
        for name, module in oracle.named_modules()
        if isinstance(module, bitnet.AutoBitLinear)
    }
    if unpacked:
        state = {k: v for k, v in oracle.state_dict().items() if k != "lm_head.weight"}
        save_file(state | unpacked, folder / "model.safetensors")


Pair = tuple[torch.nn.Module, Model]


@pytest.fixture(scope="module", params=CONFIGS)
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """transformers' models, and the same read from the folders that transformers wrote."""
    folder, found = tmp_path_factory.mktemp(request.param), []
    for seed in range(SEEDS):
        oracle = published(CONFIGS[request.param], seed)
        save(oracle, folder / f"{seed}")
        found.append((oracle, load_model(folder / f"{seed}")))
    return found


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))


def check_errors(errors: list[float]) -> None:
    """Two correct implementations differ by roundings only, until one of these turns an int8 code
    that lay at a tie: rare in models as small as these, and a part in a thousand when it happens.
    A wrong operation is far beyond both bounds.
    """
    print("relative root mean squares: " + ", ".join(f"{e:.1e}" for e in sorted(errors)))
    assert np.median(errors) < 1e-4
    assert max(errors) < 0.03


def open_session(model: Model, dtype: str = "float32") -> Session:
    config = derive_config(model.spec)
    return Session(TorchDevice(config, model, dtype), outline(model, config))


def ids_of(model: Model, length: int = LENGTH) -> list[int]:
    return np.random.default_rng(1).integers(0, model.spec.vocab, length).tolist()


def logits_of(session: Session, calls: list[list[int]], chunk: int | None = None) -> np.ndarray:
    """Logits after each call."""
    return np.stack([session.call(ids, chunk)[0] for ids in calls])


@torch.no_grad()
def expected_logits(oracle: torch.nn.Module, ids: list[int]) -> np.ndarray:
    """Logits after each token, in one pass."""
    return oracle(torch.tensor([ids])).logits[0].float().numpy()


def test_token_by_token_with_the_cache(pairs: list[Pair]) -> None:
    errors = []
    for oracle, model in pairs:
        ids = ids_of(model)
        got = logits_of(open_session(model), [[token] for token in ids])
        errors.append(relative(got, expected_logits(oracle, ids)))
    check_errors(errors)


def test_prompts_in_turns_and_chunks(pairs: list[Pair]) -> None:
    errors = []
    for oracle, model in pairs:
        ids = ids_of(model)
        calls = [ids[:13], ids[13:14], ids[14:]]
        expected = expected_logits(oracle, ids)[[12, 13, -1]]
        for chunk in (None, 5):
            errors.append(relative(logits_of(open_session(model), calls, chunk), expected))
    check_errors(errors)


def test_residual_stream_after_each_layer(pairs: list[Pair]) -> None:
    errors = []
    for oracle, model in pairs:
        ids = ids_of(model)
        with torch.no_grad():
            states = oracle.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        after = [state[0, -1].numpy() for state in states[1:-1]]
        session = open_session(model)
        session.call(ids, 7)
        layers = session.device.layers()
        assert layers.dtype == np.float32
        assert layers.shape == (model.spec.layers, model.spec.hidden)
        # The last one that transformers gives has the final norm behind it.
        errors.append(relative(layers[:-1], np.stack(after)))
    check_errors(errors)


def test_weights_without_quantised_activations() -> None:
    """A weight-only model is a plain Llama whose matrices happen to be ternary: no code can turn,
    so all of it is close. Scales by rows and by columns."""
    config = transformers.LlamaConfig(**SHAPE, head_dim=24, tie_word_embeddings=False)
    spec = ModelSpec(
        name="weight-only", layers=3, hidden=64, ffn=96, heads=4, kv_heads=2, head_dim=24,
        vocab=200, context=64, rope_theta=1e4, eps=1e-6, activation="silu", tied=False,
        weight_only=True,
    )  # fmt: skip
    model = random_model(spec, seed=3, shards=2)
    oracle = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tensors = {
        "model.embed_tokens.weight": model.embedding,
        "model.norm.weight": model.final_gain,
        "lm_head.weight": model.head,
    }
    for n in range(spec.layers):
        layer, at = model.layer(n), f"model.layers.{n}"
        for name, linear in layer.linears.items():
            part = "mlp" if name in ("gate", "up", "down") else "self_attn"
            tensors[f"{at}.{part}.{name}_proj.weight"] = linear.dense()
        tensors[f"{at}.input_layernorm.weight"] = layer.gains["attn_norm"]
        tensors[f"{at}.post_attention_layernorm.weight"] = layer.gains["ffn_norm"]
    oracle.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
    ids = ids_of(model)
    got = logits_of(open_session(model), [[token] for token in ids])
    assert relative(got, expected_logits(oracle, ids)) < 1e-5


def test_the_built_in_model() -> None:
    """Each block on the inputs that transformers gave it, and the logits of the whole."""
    model = load_model("tiny")
    oracle, ids = built_in_oracle(), ids_of(model, 96)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for layer in oracle.model.layers:
        layer.register_forward_hook(
            lambda module, inputs, output: seen.append((inputs[0][0], output[0]))
        )
    expected = expected_logits(oracle, ids)
    decoder = Decoder(model)
    cosine, sine = rope_tables(0, len(ids), model.spec.head_dim, model.spec.rope_theta)
    cache = (2, model.spec.kv_heads, len(ids), model.spec.head_dim)
    errors = []
    with torch.no_grad():
        for block, (before, after) in zip(decoder.blocks, seen, strict=True):
            got = block(before, torch.zeros(cache), 0, cosine, sine)
            errors += [relative(a, b) for a, b in zip(got.numpy(), after.numpy(), strict=True)]
    turned = np.mean(np.array(errors) > 1e-5)
    print(f"{turned:.1%} of the rows have a code that was rounded the other way")
    assert turned < 0.1 and max(errors) < 0.03
    got = logits_of(open_session(model), [[token] for token in ids])
    assert relative(got[:4], expected[:4]) < 1e-4
    assert relative(got, expected) < 0.02


def built_in_oracle() -> torch.nn.Module:
    """transformers' model with the weights of `tiny`, unpacked by transformers."""
    folder = BUILT_IN / "tiny"
    config = transformers.AutoConfig.from_pretrained(folder)
    oracle = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    settings = transformers.BitNetQuantConfig(**config.quantization_config)
    bitnet.replace_with_bitnet_linear(oracle, ["lm_head"], settings)
    state = load_file(folder / "model.safetensors")
    for name, tensor in state.items():
        packed = tensor.dtype == torch.uint8
        state[name] = bitnet.unpack_weights(tensor, torch.float32) if packed else tensor.float()
    missing, unexpected = oracle.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    oracle.tie_weights()
    return oracle.eval()


@pytest.fixture
def small(make_spec: Callable[..., ModelSpec]) -> Model:
    return random_model(make_spec(), 9)


def test_bfloat16_is_close_to_binary32(small: Model) -> None:
    ids = ids_of(small)
    expected = logits_of(open_session(small), [ids])
    session = open_session(small, "bfloat16")
    got = logits_of(session, [ids])
    assert session.device.detail.endswith("bfloat16")
    # 8 significant bits in the residual stream: neither binary32's logits nor far from them.
    assert 1e-4 < relative(got, expected) < 0.1


def test_a_head_in_16_bits(small: Model) -> None:
    """bfloat16 kept as uint16, and binary16: values of the checkpoint, not of a quantised head."""
    ids = ids_of(small)
    bits = (small.head.view(np.uint32) >> 16).astype(np.uint16)
    for head in (bits, small.head.astype(np.float16)):
        same = replace(small, head=widen(head))
        expected = logits_of(open_session(same), [ids])
        got = logits_of(open_session(replace(small, head=head)), [ids])
        assert np.array_equal(got, expected)


def test_narrow_weights_where_memory_is_short(
    small: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ids_of(small)
    expected = logits_of(open_session(small), [[token] for token in ids])
    narrow = weight_bytes(small.spec, 1, small.head.dtype.itemsize)
    assert narrow < weight_bytes(small.spec, 4, 4)
    monkeypatch.setattr(torch_device, "free_memory", lambda place: narrow)
    notes: list[str] = []
    config = derive_config(small.spec)
    session = Session(TorchDevice(config, small, note=notes.append), outline(small, config))
    assert "int8" in notes[0] and len(notes) == 1
    assert np.array_equal(logits_of(session, [[token] for token in ids]), expected)
    monkeypatch.setattr(torch_device, "free_memory", lambda place: narrow - 1)
    with pytest.raises(UserError, match=r"model 'small' needs 0\.0 GB of memory") as refusal:
        TorchDevice(config, small)
    assert "\n" not in str(refusal.value)


def test_free_memory_of_this_machine() -> None:
    free = torch_device.free_memory("cpu")
    assert free is None or 1 << 20 < free < 1 << 50


def test_memory_that_runs_out_is_one_line(small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(small)

    def exhausted(*arguments: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")

    monkeypatch.setattr(Decoder, "forward", exhausted)
    with pytest.raises(DeviceError, match="out of memory: 3 tokens at position 0"):
        session.call([1, 2, 3])


def test_a_broken_installation_is_one_line(small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    with pytest.raises(UserError, match="PyTorch is installed but can't be loaded"):
        open_session(small)


def test_an_unknown_dtype(small: Model) -> None:
    with pytest.raises(UserError, match="unknown dtype 'float8': choose from float32, bfloat16"):
        open_session(small, "float8")
