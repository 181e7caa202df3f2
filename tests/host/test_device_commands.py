"""Commands that take devices: what they print of them, and what they refuse."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from terntable.host.model import load_model, random_model, widen
from terntable.hw.config import load_config

RTL = pytest.mark.xdist_group("test-rtl")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes Python packages look as if they weren't installed."""
    find = importlib.util.find_spec

    def hide(*names: str) -> None:
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name in names else find(name)
        )

    return hide


@pytest.fixture
def folder(save_model, make_spec, tmp_path: Path) -> str:
    """A small model without a tokenizer, which fits the configuration `test`."""
    spec = make_spec(head_dim=8, context=256)
    return str(save_model(random_model(spec, seed=2), tmp_path / "small"))


def refused(outcome, words: str) -> None:
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
    assert words in outcome.err
    assert "Traceback" not in outcome.err


# ---------------------------------------------------------------- run


def test_run_on_torch(cli, torch) -> None:
    run = ("run", "--prompt", "It is a truth", "--max-tokens", "8")
    expected = json.loads(cli(*run, "--json").out)
    for dtype in ("float32", "bfloat16"):
        options = ("--device", "torch", "--dtype", dtype)
        got = json.loads(cli(*run, *options, "--json").out)
        place = "cuda" if torch.cuda.is_available() else "cpu"
        assert (got["device"], got["device_detail"]) == ("torch", f"{place}, {dtype}")
        assert got["tokens"] == expected["tokens"]
        got = cli(*run, *options)
        assert got.err.startswith(f"[torch ({place}, {dtype}), configuration tiny: 8 prompt tokens")


def test_dtypes_that_are_refused(cli, torch) -> None:
    run = ("run", "--prompt-ids", "1", "--max-tokens", "1")
    refused(cli(*run, "--device", "torch", "--dtype", "float8"), "'float8'")
    refused(cli(*run, "--dtype", "float32"), "emulator has one number format")


def test_formats_of_the_kv_cache(cli, tmp_path: Path) -> None:
    """Each is what the options say, costs accuracy as it is narrower, and takes less memory."""
    logits, sizes = {}, {}
    for kv in ("int16", "int8", "int4"):
        file = tmp_path / f"{kv}.npy"
        options = () if kv == "int16" else ("--kv", kv)
        ids = ("--prompt-ids", "5,17,120,9,44,301,2,8", "--max-tokens", "1")
        got = json.loads(cli("run", *ids, *options, "--logits", str(file), "--json").out)
        assert got["kv"] == kv
        logits[kv] = np.load(file)[0]
        image = json.loads(cli("compile", "--config", "tiny", *options, "--json").out)
        assert image["kv"] == kv
        sizes[kv] = next(r["size"] for r in image["regions"] if r["name"] == "kv")
    spread = logits["int16"].std()
    errors = [np.abs(logits[kv] - logits["int16"]).max() / spread for kv in ("int8", "int4")]
    assert 0 < 5 * errors[0] < errors[1] < 0.3
    # 64 dimensions on 16-byte words: 272, 144 and 80 bytes a record.
    assert [sizes[kv] / sizes["int16"] for kv in sizes] == [1, 144 / 272, 80 / 272]


def test_formats_of_the_kv_cache_that_are_refused(cli, torch) -> None:
    run = ("run", "--prompt-ids", "1", "--max-tokens", "1")
    refused(cli(*run, "--kv", "int5"), "no KV format 'int5': choose from int16, int8, int4")
    refused(cli(*run, "--kv", "float16"), "emulator has no KV format 'float16'")
    refused(cli(*run, "--device", "torch", "--kv", "int8"), "torch keeps K and V in the numbers")
    compare = ("compare", "--devices", "emulator,torch", "--prompt-ids", "1")
    refused(cli(*compare, "--kv", "int8"), "torch keeps K and V in the numbers")
    refused(cli("compile", "--kv", "int5"), "'int5'")
    refused(cli("demo", "--kv", "int5"), "'int5'")


@pytest.mark.parametrize(
    ("device", "hidden", "words"),
    [
        ("torch", ("torch",), "package torch: pip install 'terntable[torch]'"),
        ("triton", ("triton",), "package triton: pip install 'terntable[triton]'"),
        ("triton", ("torch", "triton"), "package torch and triton: pip install"),
    ],
)
def test_missing_packages_are_named_with_their_remedy(
    cli, without, device: str, hidden: tuple[str, ...], words: str
) -> None:
    without(*hidden)
    refused(cli("run", "--device", device, "--prompt-ids", "1"), words)
    refused(cli("compare", "--devices", f"emulator,{device}", "--prompt-ids", "1"), words)
    refused(cli("bench-devices", "--devices", device), words)
    assert cli("run", "--prompt-ids", "1", "--max-tokens", "1", "--json").status == 0


def test_doctor_names_the_extras(cli, torch) -> None:
    found = {f["name"]: f for f in json.loads(cli("doctor", "--json").out)["findings"]}
    assert found["torch"]["found"].startswith(torch.__version__)
    if not torch.cuda.is_available():
        assert "no CUDA device" in found["torch"]["found"]
        if found["triton"]["found"]:
            assert "interpreted" in found["triton"]["found"]
    for name, extra in (("triton", "triton"), ("gguf", "import")):
        assert found[name]["remedy"] == f"pip install 'terntable[{extra}]'"
        assert not found[name]["required"]


# ---------------------------------------------------------------- compare


COMPARE = ("compare", "--devices", "emulator,torch")
WORDS = ("--prompt", "It is a truth", "--max-tokens", "6")


def test_compare_json(cli, torch) -> None:
    got = cli(*COMPARE, *WORDS, "--json")
    assert got.status == 0
    result = json.loads(got.out)
    expected = json.loads(cli("run", *WORDS, "--json").out)
    for key in ("prompt_tokens", "tokens", "text"):
        assert result[key] == expected[key]
    assert (result["reference"], result["teacher_forced"]) == ("emulator", True)
    assert (result["model"], result["config"]) == ("tiny", "tiny")
    first, other = result["devices"]
    assert (first["device"], other["device"]) == ("emulator", "torch")
    assert "choice_equal" not in first
    assert other["tokens"] == result["tokens"] and other["choice_equal"] == [True] * 6
    assert 1e-6 < other["logits_relative_rms"] < 0.02
    assert 0 < other["logits_max_abs"] < 1
    assert other["logits_identical"] is False
    assert len(other["layer_relative_rms"]) == 4
    assert 0 < max(other["layer_relative_rms"]) < result["threshold"] == 0.05
    assert other["first_differing_layer"] is None
    assert "kv_identical" not in other  # torch's is in floating point
    for device in result["devices"]:
        assert device["prefill_seconds"] > 0
        rate = 5 / device["decode_seconds"]
        assert device["decode_tokens_per_second"] == pytest.approx(rate, rel=0.01)


def test_compare_names_a_layer_over_the_threshold(cli, torch) -> None:
    got = json.loads(cli(*COMPARE, *WORDS, "--threshold", "0", "--json").out)
    assert got["devices"][1]["first_differing_layer"] == 0


def test_compare_table(cli, torch) -> None:
    got = cli("compare", "--devices", "torch,emulator", *WORDS)
    assert (got.status, got.err) == (0, "")
    lines = got.out.splitlines()
    assert "torch chose 6 tokens after 8; the others were fed the same tokens" in lines[0]
    for words in ("relative RMS", "largest error", "bit for bit", "first layer", "tok/s"):
        assert any(words in line for line in lines), words
    assert "reference" in got.out and "cpu, float32" in got.out


def test_compare_shows_other_choices(
    cli, torch, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another model runs on torch: the steps and both ids are told."""
    from terntable.host.commands import compare

    real = compare.start_device

    def start(name: str, setup, **options):
        if name == "torch":
            changed = replace(setup.model, layer=other.layer, head=-widen(setup.model.head))
            setup = replace(setup, model=changed)
        return real(name, setup, **options)

    other = random_model(load_model(folder).spec, seed=3)
    monkeypatch.setattr(compare, "start_device", start)
    options = ("--model", folder, "--prompt-ids", "1,2,3", "--max-tokens", "12")
    result = json.loads(cli(*COMPARE, *options, "--json").out)
    assert result["devices"][1]["first_differing_layer"] == 0
    mine, theirs = (device["tokens"] for device in result["devices"])
    steps = [n for n in range(12) if mine[n] != theirs[n]]
    assert steps and mine == result["tokens"]
    assert result["devices"][1]["choice_equal"] == [n not in steps for n in range(12)]
    out = cli(*COMPARE, *options).out
    assert out.count("would choose") == len(steps)
    for n in steps:
        line = f"token {n + 1}: torch would choose {theirs[n]}, emulator chose {mine[n]}"
        assert line in out


@RTL
def test_compare_with_the_simulator(cli, folder: str) -> None:
    options = ("--model", folder, "--config", "test", "--prompt-ids", "1,2,3,4,5")
    got = cli("compare", "--devices", "sim,emulator", *options, "--max-tokens", "3", "--json")
    rtl, emulator = json.loads(got.out)["devices"]
    assert emulator["logits_identical"] is True and emulator["logits_relative_rms"] == 0
    assert (emulator["kv_compared_with"], emulator["kv_identical"]) == ("sim", True)
    assert emulator["layer_relative_rms"] is None  # a simulator doesn't show its layers
    assert rtl["kv"] == emulator["kv"] == "int16"
    words = ("--devices", "sim,emulator", "--kv", "int4", *options, "--max-tokens", "3")
    narrow = json.loads(cli("compare", *words, "--json").out)["devices"]
    assert [device["kv"] for device in narrow] == ["int4", "int4"]
    assert narrow[1]["logits_identical"] is True and narrow[1]["kv_identical"] is True
    assert rtl["prefill_cycles"] > rtl["decode_cycles"][0] > 0 and len(rtl["decode_cycles"]) == 2
    out = cli("compare", "--devices", "emulator,sim", *options, "--max-tokens", "2").out
    clock = f"{load_config('test').clock_hz / 1e6:g} MHz"
    for words in ("identical", "as emulator", "not seen", f"{clock}, simulated"):
        assert words in out, words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--devices", "emulator,nosuch"), "'nosuch'"),
        (("--devices", "emulator,emulator"), "emulator is given twice"),
        (("--devices", "emulator"), "only emulator"),
        (("--devices", " , "), "no device"),
        (("--devices", "emulator,sim", "--max-tokens", "0"), "max-tokens is 0"),
        (("--devices", "emulator,sim", "--max-tokens", "9999"), "context"),
        (("--devices", "emulator,sim", "--threshold", "-1"), "threshold is -1"),
        (("--devices", "emulator,sim", "--threshold", "nan"), "threshold is nan"),
        (("--devices", "emulator,sim", "--config", "nosuch"), "nosuch"),
        ((), "devices"),
    ],
)
def test_comparisons_that_are_refused(cli, options: tuple[str, ...], words: str) -> None:
    refused(cli("compare", "--prompt", "x", *options), words)


def test_compare_needs_a_prompt(cli) -> None:
    refused(cli("compare", "--devices", "emulator,sim"), "no prompt")


def test_a_model_that_only_a_derived_configuration_takes(cli, torch, save_model, make_spec,
                                                         tmp_path: Path) -> None:  # fmt: skip
    spec = make_spec(hidden=3072, ffn=24, heads=2, kv_heads=1, head_dim=8, layers=1)
    model = str(save_model(random_model(spec), tmp_path / "wide"))
    options = ("--model", model, "--prompt-ids", "1,2", "--max-tokens", "2")
    assert json.loads(cli(*COMPARE, *options, "--json").out)["config"] == "tiny-derived"
    refused(cli("compare", "--devices", "emulator,sim", *options), "no named configuration fits")


# ---------------------------------------------------------------- bench-devices


BENCH = ("bench-devices", "--prefill", "9", "--decode", "4")


def test_bench_json(cli, torch) -> None:
    result = json.loads(cli(*BENCH, "--devices", "torch,emulator", "--json").out)
    assert (result["model"], result["config"]) == ("tiny", "tiny")
    assert (result["prefill"], result["decode"], result["seed"]) == (9, 4, 0)
    assert [d["device"] for d in result["devices"]] == ["torch", "emulator"]
    for device in result["devices"]:
        assert device["prefill_rate"] == pytest.approx(9 / device["prefill_seconds"])
        assert device["decode_rate"] == pytest.approx(4 / device["decode_seconds"])
        assert device["prefill_cycles"] is None and "simulated_decode_rate" not in device
    assert result["absent"] == []


def test_bench_lists_what_is_not_here(cli, without) -> None:
    without("torch", "triton")
    result = json.loads(cli(*BENCH, "--json").out)
    assert [d["device"] for d in result["devices"]] == ["emulator"]
    absent = {a["device"]: a["reason"] for a in result["absent"]}
    assert "pip install 'terntable[torch]'" in absent["torch"]
    assert "pip install 'terntable[triton]'" in absent["triton"]
    assert "sim" not in absent  # only where it is asked for
    got = cli(*BENCH)
    assert "torch is not measured: device torch needs the Python package torch" in got.out
    assert "emulator" in got.out and "measured" in got.out


def test_bench_leaves_interpreted_kernels_out(cli, torch, monkeypatch) -> None:
    pytest.importorskip("triton")
    from terntable.host.devices import triton

    monkeypatch.setattr(triton, "choose_place", lambda: torch.device("cpu"))
    result = json.loads(cli(*BENCH, "--json").out)
    assert [d["device"] for d in result["devices"]] == ["emulator", "torch"]
    assert [a["device"] for a in result["absent"]] == ["triton"]
    assert "interpreted" in result["absent"][0]["reason"]


def test_bench_takes_a_configuration_with_room(cli, folder: str) -> None:
    """`test` would be the smallest that fits, but its context ends at 128."""
    options = ("bench-devices", "--model", folder, "--devices", "emulator", "--json")
    assert json.loads(cli(*options, "--prefill", "100", "--decode", "28").out)["config"] == "test"
    assert json.loads(cli(*options, "--prefill", "100", "--decode", "29").out)["config"] == "tiny"


@RTL
def test_bench_of_the_simulator(cli, folder: str) -> None:
    options = ("--model", folder, "--config", "test", "--devices", "sim")
    result = json.loads(cli(*BENCH, *options, "--json").out)
    device, hz = result["devices"][0], load_config("test").clock_hz
    assert result["clock_hz"] == hz
    assert device["simulated_prefill_rate"] == pytest.approx(9 * hz / device["prefill_cycles"])
    assert device["simulated_decode_rate"] == pytest.approx(4 * hz / device["decode_cycles"])
    assert device["decode_rate"] < device["simulated_decode_rate"]
    lines = cli(*BENCH, *options).out.splitlines()
    assert sum("measured" in line for line in lines) == 1
    assert sum("simulated" in line and f"{hz / 1e6:g} MHz" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prefill", "0"), "prefill is 0"),
        (("--decode", "0"), "decode is 0"),
        (("--seed", "-1"), "seed is -1"),
        (("--prefill", "1000", "--decode", "25"), "1025 positions are needed"),
        (("--devices", "nosuch"), "'nosuch'"),
        (("--devices", ""), "no device"),
        (("--devices", "sim,sim"), "given twice"),
        (("--model", "nosuch"), "nosuch"),
        (("--config", "test", "--prefill", "8", "--devices", "emulator"), "does not fit"),
    ],
)
def test_benches_that_are_refused(cli, options: tuple[str, ...], words: str) -> None:
    refused(cli("bench-devices", *options), words)


def test_a_device_that_does_not_open_is_listed(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from terntable.host.commands import bench_devices
    from terntable.hw.errors import UserError

    real = bench_devices.start_device

    def start(name: str, *rest, **options):
        if name == "sim":
            raise UserError("make is missing: install it")
        return real(name, *rest, **options)

    monkeypatch.setattr(bench_devices, "start_device", start)
    result = json.loads(cli(*BENCH, "--devices", "sim,emulator", "--json").out)
    assert result["absent"] == [{"device": "sim", "reason": "make is missing: install it"}]
    assert [d["device"] for d in result["devices"]] == ["emulator"]
    refused(cli(*BENCH, "--devices", "sim"), "no device can be measured: make is missing")


def test_random_prompts_repeat_with_their_seed(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from terntable.host.commands import bench_devices

    prompts: list[list[int]] = []
    real = bench_devices.measure

    def measure(device, image, prompt: list[int], decode: int):
        prompts.append(prompt)
        return real(device, image, prompt, decode)

    monkeypatch.setattr(bench_devices, "measure", measure)
    for seed in ("1", "1", "2"):
        cli(*BENCH, "--devices", "emulator", "--seed", seed, "--json")
    assert prompts[0] == prompts[1] != prompts[2]
    assert len(prompts[0]) == 9 and all(0 <= i < 1024 for i in np.concatenate(prompts))
