"""Every family of Hugging Face folders, as its own writer writes it, against transformers.

transformers computes in binary32. The models are small and random, with gains so small that a
code which is rounded the other way does not grow into another answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402
from transformers.integrations import bitnet  # noqa: E402

from terntable.host.checkpoints.bundle_writer import write_bundle  # noqa: E402
from terntable.host.checkpoints.ternarise import unpack  # noqa: E402
from terntable.host.compiler import compile_model, outline  # noqa: E402
from terntable.host.devices.emulator import EmulatorDevice  # noqa: E402
from terntable.host.devices.sim import SimDevice  # noqa: E402
from terntable.host.devices.torch import TorchDevice  # noqa: E402
from terntable.host.head import quantise_head  # noqa: E402
from terntable.host.model import Model, load_model  # noqa: E402
from terntable.host.session import Session  # noqa: E402
from terntable.hw.config import load_config  # noqa: E402

pytestmark = pytest.mark.xdist_group("families")  # transformers takes long to import

torch.set_num_threads(1)  # the models are small
CONFIG = load_config("tiny")
TOKENS = np.random.default_rng(3).integers(0, 160, 48).tolist()
NEW = 10
GAIN = 0.3
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 96,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def rope(theta: float) -> dict:
    return {"rope_type": "default", "rope_theta": theta}


def settings(kind: str, mode: str = "offline") -> dict:
    return {"quant_method": "bitnet", "linear_class": kind, "quantization_mode": mode}


def bitnet_config(**changes) -> transformers.BitNetConfig:
    shape = SHAPE | {"rms_norm_eps": 1e-5, "tie_word_embeddings": True}
    return transformers.BitNetConfig(**shape | {"rope_parameters": rope(5e5)} | changes)


def llama_config(**changes) -> transformers.LlamaConfig:
    shape = SHAPE | {"rms_norm_eps": 1e-6, "tie_word_embeddings": False}
    return transformers.LlamaConfig(**shape | {"rope_parameters": rope(1000042.0)} | changes)


def oracle_of(config: transformers.PretrainedConfig, dtype: torch.dtype) -> torch.nn.Module:
    """A random model of the published code in binary32 whose numbers are exact in `dtype`."""

    def exact(x: torch.Tensor) -> torch.Tensor:
        return x.to(dtype).float()

    torch.manual_seed(5)
    oracle = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    given = getattr(config, "quantization_config", None)
    if given is not None:
        quantisation = transformers.BitNetQuantConfig(**given)
        bitnet.replace_with_bitnet_linear(oracle, ["lm_head"], quantisation)
    for name, module in oracle.named_modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.weight.data = exact(GAIN * (1 + 0.3 * torch.randn_like(module.weight)))
            if name == "model.norm":  # else a tied model would repeat its input
                module.weight.data *= torch.randn_like(module.weight).sign()
        elif isinstance(module, torch.nn.Embedding) or name == "lm_head":
            module.weight.data = exact(torch.randn_like(module.weight))
        elif isinstance(module, torch.nn.Linear | bitnet.BitLinear):
            fill(name, module, exact)
    oracle.tie_weights()
    return oracle.eval()


def fill(name: str, module: torch.nn.Module, exact: Callable) -> None:
    """Random weights as the module's class holds them."""
    rows, columns = module.out_features, module.in_features
    size = (1.5 / columns) ** 0.5
    trits = torch.randint(-1, 2, (rows, columns))
    if isinstance(module, bitnet.BitLinear):
        module.weight = torch.nn.Buffer(bitnet.pack_weights(trits))
        module.weight_scale = torch.nn.Buffer(exact(torch.tensor([1 / size])))
    elif not isinstance(module, bitnet.AutoBitLinear):  # two shards of a ternary Llama
        shards = size * torch.tensor([0.7, 1.3])
        down = name.endswith(("o_proj", "down_proj"))
        scale = shards.repeat_interleave((columns if down else rows) // 2)
        module.weight.data = exact(trits * (scale if down else scale[:, None]))
    elif module.online_quant:
        module.weight = torch.nn.Parameter(exact(1.5 * columns**-0.5 * torch.randn(rows, columns)))
    else:
        module.weight = torch.nn.Parameter(trits.float(), requires_grad=False)
        module.weight_scale = torch.nn.Buffer(exact(torch.tensor([size])))


def save(oracle: torch.nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """transformers' own folder in `dtype`; weights of a packed family stay bytes."""
    folder.mkdir()
    oracle.config.save_pretrained(folder)
    state = {k: v for k, v in oracle.state_dict().items() if keep(oracle, k)}
    state = {k: v if v.dtype is torch.uint8 else v.to(dtype) for k, v in state.items()}
    save_file(state, folder / "model.safetensors")


def keep(oracle: torch.nn.Module, name: str) -> bool:
    return name != "lm_head.weight" or not oracle.config.tie_word_embeddings


def packed(oracle: torch.nn.Module, folder: Path) -> None:
    """BitNetForCausalLM, packed by transformers' `pack_weights`."""
    save(oracle, folder, torch.bfloat16)
    state = {k: v.bfloat16() for k, v in oracle.state_dict().items() if keep(oracle, k)}
    for name in [n for n in state if f"{n}_scale" in state]:
        state[name] = bitnet.pack_weights(state[name].to(torch.int8))
    save_file(state, folder / "model.safetensors")


def one_bit(oracle: torch.nn.Module, folder: Path) -> None:
    """1bitLLM's names and configuration."""
    folder.mkdir()
    renamed = {"attn_sub_norm": "inner_attn_ln", "ffn_sub_norm": "ffn_layernorm"}
    state = {}
    for name, tensor in oracle.state_dict().items():
        for new, old in renamed.items():
            name = name.replace(new, old)
        if name != "lm_head.weight":
            state[name] = tensor.half()
    save_file(state, folder / "model.safetensors")
    config = SHAPE | {
        "architectures": ["BitnetForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "weight_bits": 1,
        "input_bits": 8,
    }
    (folder / "config.json").write_text(json.dumps(config))


BRAIN, HALF = torch.bfloat16, torch.float16
FAMILIES = {
    "bitnet-packed": (bitnet_config(quantization_config=settings("autobitlinear")), BRAIN, packed),
    "bitnet-unpacked": (bitnet_config(quantization_config=settings("autobitlinear")), BRAIN, None),
    "bitnet-online": (
        bitnet_config(quantization_config=settings("autobitlinear", "online")),
        BRAIN,
        None,
    ),
    "llama-bitlinear": (
        llama_config(head_dim=40, quantization_config=settings("bitlinear")),
        BRAIN,
        None,
    ),
    "1bitLLM": (
        bitnet_config(
            hidden_act="silu",
            rope_parameters=rope(10000.0),
            quantization_config=settings("autobitlinear", "online"),
        ),
        HALF,
        one_bit,
    ),
    "TriLM": (llama_config(), HALF, None),
}


@dataclass
class Case:
    """A family's folder and bundle, and what transformers computes for TOKENS.

    expected  logits [tokens, vocab]; same_head: with the head quantised as the accelerator's
    """

    name: str
    oracle: torch.nn.Module
    folder: Path
    checkpoint: Model
    bundle: Model
    expected: np.ndarray
    same_head: np.ndarray


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    config, dtype, write = FAMILIES[request.param]
    parent = tmp_path_factory.mktemp("families")
    oracle, folder = oracle_of(config, dtype), parent / request.param
    if write is None:
        save(oracle, folder, dtype)
    else:
        write(oracle, folder)
    checkpoint = load_model(folder)
    write_bundle(checkpoint, parent / "bundle")
    with torch.no_grad():
        hidden = oracle.model(torch.tensor([TOKENS])).last_hidden_state[0]
        head = quantise_head(checkpoint.head)
        quantised = torch.from_numpy(head.codes * head.scales[:, None])
        expected, same_head = oracle.lm_head(hidden).numpy(), (hidden @ quantised.T).numpy()
    bundle = load_model(parent / "bundle")
    return Case(request.param, oracle, folder, checkpoint, bundle, expected, same_head)


def emulate(model: Model) -> np.ndarray:
    """The emulator's logits after each of TOKENS."""
    image = compile_model(model, CONFIG)
    device = EmulatorDevice(CONFIG)
    device.load(image)
    logits = []
    for position, row in enumerate(image.embed(TOKENS)):
        device.write(image.regions["input"].offset, row.tobytes())
        device.start(1, position)
        device.wait()
        logits.append(device.machine.logits.copy())
    return np.array(logits)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))


def clear(logits: np.ndarray) -> np.ndarray:
    """Where the two largest of [..., vocab] differ by over 2 % of the spread."""
    ordered = np.sort(logits, axis=-1)
    return ordered[..., -1] - ordered[..., -2] > 0.02 * (ordered[..., -1] - ordered[..., 0])


def check_logits(case: Case, logits: np.ndarray) -> None:
    error, error_same_head = relative(logits, case.expected), relative(logits, case.same_head)
    best = clear(case.expected)
    print(
        f"{case.name}: logits {100 * error:.2f} %, with the same head {100 * error_same_head:.2f}"
        f" %; the best is clear at {best.mean():.0%} of positions"
    )
    assert best.mean() > 0.5
    assert np.mean(case.expected.argmax(axis=1) == TOKENS) < 0.2
    assert np.array_equal(logits.argmax(axis=1)[best], case.expected.argmax(axis=1)[best])
    assert error < 0.02
    assert error_same_head < 0.01


def test_logits(case: Case) -> None:
    """Also of a weight-only family: the difference with the same head is then what int8
    activations cost."""
    logits = emulate(case.checkpoint)
    check_logits(case, logits)
    assert np.array_equal(logits, emulate(case.bundle))
    assert case.checkpoint.spec.weight_only is (case.name == "TriLM")


def test_greedy_tokens(case: Case) -> None:
    """Each new token is transformers' wherever its choice is clear."""
    device = EmulatorDevice(CONFIG)
    new = Session(device, compile_model(case.bundle, CONFIG)).generate(TOKENS[:8], NEW).tokens
    with torch.no_grad():
        logits = case.oracle(torch.tensor([TOKENS[:8] + new])).logits[0, 7:-1].numpy()
    best = clear(logits)
    print(f"{case.name}: {best.sum()} of {NEW} tokens are clear")
    assert best.sum() > NEW // 3
    assert np.array_equal(np.array(new)[best], logits.argmax(axis=1)[best])


def test_torch_device(case: Case) -> None:
    """The reference device is the published code, activations of weight-only models included.

    Over few positions: where some code lies at a rounding tie, the two may round it differently,
    and from there on they differ by what int8 rounding is worth.
    """
    with TorchDevice(CONFIG, case.bundle) as device:
        session = Session(device, outline(case.bundle, CONFIG))
        logits = [session.call(TOKENS[:8])[0], *(session.call([t])[0] for t in TOKENS[8:14])]
    error = relative(np.array(logits), case.expected[7:14])
    print(f"{case.name}: device torch {error:.1e}")
    assert error < 1e-4


@pytest.mark.parametrize("case", ["bitnet-packed", "llama-bitlinear", "TriLM"], indirect=True)
def test_rtl(case: Case) -> None:
    """An import on simulated RTL: the emulator's logits bit for bit."""
    image = compile_model(case.bundle, CONFIG)
    with SimDevice(CONFIG) as rtl, EmulatorDevice(CONFIG) as emulator:
        results = [
            Session(device, image).generate(TOKENS[:19], 4).logits_array(image.spec.vocab)
            for device in (rtl, emulator)
        ]
    assert results[0].tobytes() == results[1].tobytes()


def test_a_flipped_scale_is_noticed(case: Case) -> None:
    """Multiplying by weight_scale where the family divides, or the other way, is far beyond every
    bound."""
    file = case.folder / "config.json"
    text = file.read_text()
    given = json.loads(text)
    flipped = {"autobitlinear": "bitlinear", "bitlinear": "autobitlinear"}
    if case.name not in ("bitnet-packed", "llama-bitlinear"):
        return  # no scale beside packed weights
    quantisation = given["quantization_config"]
    quantisation["linear_class"] = flipped[quantisation["linear_class"]]
    file.write_text(json.dumps(given))
    try:
        logits = emulate(load_model(case.folder))
    finally:
        file.write_text(text)
    with pytest.raises(AssertionError):
        check_logits(case, logits)
    assert relative(logits, case.expected) > 0.1


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 11])
def test_two_bit_codes_are_those_of_transformers(rows: int) -> None:
    """Its packing pads the last quarter where the rows are no multiple of four."""
    trits = torch.randint(-1, 2, (rows, 7), generator=torch.Generator().manual_seed(rows))
    codes = bitnet.pack_weights(trits.clone()).numpy()
    assert np.array_equal(unpack(codes, rows), trits.numpy())
