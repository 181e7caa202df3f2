"""The demo's accelerator and model: RTL against the emulator, bit for bit, through the runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from terntable.host.cli import main
from terntable.host.commands.setup import load_setup
from terntable.host.compiler import compile_model
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.devices.sim import SimDevice
from terntable.host.model import ModelSpec, random_model
from terntable.host.session import Session
from terntable.hw.config import load_config

pytestmark = pytest.mark.xdist_group("tiny-rtl")
CONFIG = load_config("tiny")


@pytest.fixture(scope="module")
def rtl() -> Iterator[SimDevice]:
    with SimDevice(CONFIG) as device:
        yield device


@pytest.fixture(scope="module")
def setup():
    return load_setup("tiny", "tiny", "sim")


def text_ids(setup, n: int) -> list[int]:
    text = (Path(__file__).parent / "data" / "heldout.txt").read_text()
    return setup.encode(text[: 6 * n], None)[:n]


@pytest.mark.parametrize("length", [1, 2, 17, 64, 300])
def test_prompts(rtl: SimDevice, setup, length: int) -> None:
    prompt = text_ids(setup, length)
    with EmulatorDevice(CONFIG) as emulator:
        a = Session(rtl, setup.image).generate(prompt, 3)
        b = Session(emulator, setup.image).generate(prompt, 3)
        assert a.tokens == b.tokens
        assert a.logits_array(1024).tobytes() == b.logits_array(1024).tobytes()
        kv = setup.image.regions["kv"]
        assert rtl.read(kv.offset, kv.size) == emulator.read(kv.offset, kv.size)


def test_second_turn_on_kept_kv(rtl: SimDevice, setup) -> None:
    ids = text_ids(setup, 60)
    with EmulatorDevice(CONFIG) as emulator:
        sessions = [Session(device, setup.image) for device in (rtl, emulator)]
        for prompt in (ids[:21], ids[21:60]):
            a, b = (session.generate(prompt, 4) for session in sessions)
            assert a.tokens == b.tokens
            assert a.logits_array(1024).tobytes() == b.logits_array(1024).tobytes()


def test_another_model_on_the_same_gateware(rtl: SimDevice) -> None:
    spec = ModelSpec(
        name="other", layers=2, hidden=132, ffn=260, heads=5, kv_heads=1, head_dim=44, vocab=301,
        context=512, rope_theta=5e5, eps=1e-6, activation="silu", tied=False,
    )  # fmt: skip
    image = compile_model(random_model(spec, seed=1), CONFIG)
    ids = np.random.default_rng(2).integers(0, spec.vocab, 40).tolist()
    with EmulatorDevice(CONFIG) as emulator:
        a = Session(rtl, image).generate(ids, 4)
        b = Session(emulator, image).generate(ids, 4)
    assert a.tokens == b.tokens
    assert a.logits_array(301).tobytes() == b.logits_array(301).tobytes()


def test_run_on_both_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {}
    for device in ("sim", "emulator"):
        file = tmp_path / f"{device}.npy"
        with pytest.raises(SystemExit) as end:
            main(
                ["run", "--device", device, "--model", "tiny", "--config", "tiny",
                 "--prompt", "It is a truth universally", "--max-tokens", "32",
                 "--logits", str(file), "--json"]
            )  # fmt: skip
        assert not end.value.code
        results[device] = json.loads(capsys.readouterr().out)
    assert (tmp_path / "sim.npy").read_bytes() == (tmp_path / "emulator.npy").read_bytes()
    sim, emulator = results["sim"], results["emulator"]
    assert sim["tokens"] == emulator["tokens"]
    assert len(sim["decode_cycles"]) == len(sim["tokens"]) - 1
    assert sim["clock_hz"] == CONFIG.clock_hz
    assert 0 < min(sim["decode_cycles"]) < sim["prefill_cycles"]
