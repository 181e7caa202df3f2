"""The device `triton`: a whole model on the kernels against the devices `torch` and `emulator`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from terntable.host.comparison import Trace, difference, record  # noqa: E402
from terntable.host.compiler import compile_model, outline  # noqa: E402
from terntable.host.devices import open_device  # noqa: E402
from terntable.host.devices.base import DeviceError  # noqa: E402
from terntable.host.devices.triton import KV_KINDS, TritonDevice  # noqa: E402
from terntable.host.kernels.head_matvec import head_matvec  # noqa: E402
from terntable.host.model import (  # noqa: E402
    BUILT_IN,
    Model,
    ModelSpec,
    load_model,
    random_model,
)
from terntable.hw.config import load_config  # noqa: E402
from terntable.hw.errors import UserError  # noqa: E402

TEST = load_config("test")
SHAPES = {
    "sub-norms": {},
    "silu-untied": {
        "activation": "silu",
        "attn_sub_norm": False,
        "ffn_sub_norm": False,
        "tied": False,
    },
    "shared-heads": {"head_dim": 10, "hidden": 30, "ffn": 45, "heads": 5, "kv_heads": 1},
}


def traced(name: str, model: Model, config, prompt: list[int], steps: int, forced=None) -> Trace:
    compile_for = compile_model if name == "emulator" else outline
    with open_device(name, config, model=model) as device:
        return record(device, compile_for(model, config), prompt, steps, forced)


def check(model: Model, config, prompt: list[int], steps: int, limit: float) -> None:
    """Tokens equal wherever the best logit stands out, and logits near."""
    reference = traced("torch", model, config, prompt, steps)
    logits = np.stack(reference.logits)
    ordered = np.sort(logits, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 0.02 * (ordered[:, -1] - ordered[:, 0])
    assert clear.mean() > 0.5
    own = traced("triton", model, config, prompt, steps, reference.choices)
    emulated = traced("emulator", model, config, prompt, steps, reference.choices)
    for other in (reference, emulated):
        found = difference(own, other)
        assert np.array(found.agree)[clear].all(), (own.choices, other.choices)
        assert found.rms_error < limit
    assert difference(own, reference).first_layer(limit) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_random_models(shape: str, make_spec: Callable[..., ModelSpec]) -> None:
    """A code rounded the other way is a large part of so small a model: the bound is loose, a
    wrong operation is far beyond it."""
    model = random_model(make_spec(**SHAPES[shape]), 7)
    prompt = np.random.default_rng(8).integers(0, model.spec.vocab, 21).tolist()
    check(model, TEST, prompt, 4, 0.03)


def test_scales_of_rows_and_columns(make_spec: Callable[..., ModelSpec]) -> None:
    """Two scales a matrix, of rows or of columns, in a model that has no sub-norm to hold them."""
    spec = make_spec(attn_sub_norm=False, ffn_sub_norm=False, activation="silu")
    prompt = np.random.default_rng(9).integers(0, spec.vocab, 9).tolist()
    check(random_model(spec, 3, shards=2), TEST, prompt, 3, 0.03)


def test_weight_only_models_go_through_int8(make_spec: Callable[..., ModelSpec]) -> None:
    """As on the accelerator, whatever `torch` does with them."""
    prompt, logits = [7, 14, 21], []
    for weight_only in (True, False):
        model = random_model(make_spec(weight_only=weight_only), 7)
        logits.append(traced("triton", model, TEST, prompt, 1).logits[0])
    assert np.array_equal(*logits)


def test_scales_that_disagree(make_spec: Callable[..., ModelSpec]) -> None:
    model = random_model(make_spec(), 3)
    layer = model.layer(0)
    linears = dict(layer.linears)
    linears["k"] = replace(linears["k"], column_scale=np.array([1, 2], np.float32))
    with pytest.raises(UserError, match=r"layer 0: q, k, v scale the columns .* take device torch"):
        TritonDevice(TEST, replace(model, layer=lambda n: replace(layer, linears=linears)))


@pytest.mark.skipif(
    not (BUILT_IN / "tiny" / "config.json").is_file(), reason="the built-in model is not there"
)
def test_the_built_in_model() -> None:
    """Greedy tokens are those of both other devices, each on its own."""
    model, config = load_model("tiny"), load_config("tiny")
    prompt = np.random.default_rng(2).integers(0, model.spec.vocab, 18).tolist()
    traces = {
        name: traced(name, model, config, prompt, 4) for name in ("triton", "torch", "emulator")
    }
    assert traces["triton"].choices == traces["torch"].choices == traces["emulator"].choices
    for name in ("torch", "emulator"):
        assert difference(traces["triton"], traces[name]).rms_error < 0.02


def test_the_cache_in_int8(make_spec: Callable[..., ModelSpec]) -> None:
    model = random_model(make_spec(), 7)
    prompt = np.random.default_rng(8).integers(0, model.spec.vocab, 12).tolist()
    traces = []
    for kind in KV_KINDS:
        with TritonDevice(TEST, model, kv=kind) as device:
            assert kind in device.detail
            traces.append(record(device, outline(model, TEST), prompt, 2, [1, 2]))
    assert 1e-5 < difference(*traces).rms_error < 0.03


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("vocab", "hidden"), [(50, 24), (1030, 132)])
def test_head(vocab: int, hidden: int, dtype: torch.dtype, place: torch.device, relative) -> None:
    torch.manual_seed(vocab)
    weights, x = torch.randn(vocab, hidden).to(dtype), torch.randn(hidden)
    out = head_matvec(weights.to(place), x.to(place))
    assert out.dtype == torch.float32
    assert relative(out, weights.double() @ x.double()) < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "computes in float32, not in bfloat16"),
        ({"dtype": "int4"}, "unknown dtype 'int4'"),
        ({"kv": "int4"}, "unknown KV format 'int4': choose from float16, int8"),
    ],
)
def test_options_that_are_refused(
    options: dict[str, str], message: str, make_spec: Callable[..., ModelSpec]
) -> None:
    with pytest.raises(UserError, match=message):
        TritonDevice(TEST, random_model(make_spec()), **options)


def test_the_command_line(cli) -> None:
    run = ("run", "--prompt-ids", "7", "--max-tokens", "1", "--json")
    got = json.loads(cli(*run, "--device", "triton", "--kv", "int8").out)
    assert got["device"] == "triton" and got["device_detail"].endswith("KV in int8")
    assert got["kv"] == "int8"
    for options, message in (
        (
            ("--device", "triton", "--kv", "int4"),
            "device triton has no KV format 'int4': choose from float16, int8",
        ),
        (("--device", "torch", "--kv", "int8"), "--kv goes with emulator or sim or triton"),
        (("--device", "triton", "--dtype", "bfloat16"), "leave --dtype out"),
    ):
        refused = cli(*run, *options)
        assert refused.status == 2 and refused.out == ""
        assert message in refused.err and refused.err.count("\n") == 1


def test_a_closed_device(make_spec: Callable[..., ModelSpec]) -> None:
    model = random_model(make_spec())
    device = TritonDevice(TEST, model)
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.load(outline(model, TEST))


def place_in_a_fresh_process(before: str, environment: dict[str, str]) -> str:
    """What `choose_place` says or complains of, after `before`, with CUDA hidden."""
    code = (
        f"{before}\n"
        "from terntable.host.devices.triton import choose_place\n"
        "from terntable.hw.errors import UserError\n"
        "try:\n    print(choose_place())\n"
        "except UserError as e:\n    print(e)\n"
    )
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    kept |= {"CUDA_VISIBLE_DEVICES": ""} | environment
    run = subprocess.run(
        [sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_without_a_gpu_kernels_are_interpreted() -> None:
    assert place_in_a_fresh_process("import torch", {}) == "cpu"


def test_triton_imported_to_compile_and_no_gpu() -> None:
    message = place_in_a_fresh_process("import triton", {})
    assert "no CUDA GPU" in message and "TRITON_INTERPRET=1" in message and "\n" not in message
    assert place_in_a_fresh_process("import triton", {"TRITON_INTERPRET": "1"}) == "cpu"


def test_without_triton() -> None:
    hide = (
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'triton' else find(name, *more)"
    )
    message = place_in_a_fresh_process(hide, {})
    assert "pip install 'terntable[triton]'" in message and "\n" not in message
