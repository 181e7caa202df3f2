"""`terntable demo` sees a difference between RTL and emulator, and says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from terntable.host.cli import main
from terntable.host.model import Model, ModelSpec, random_model
from terntable.hw.config import load_config

pytestmark = pytest.mark.xdist_group("test-rtl")

SPEC = ModelSpec(
    name="small", layers=1, hidden=20, ffn=28, heads=2, kv_heads=1, head_dim=8, vocab=37,
    context=64, rope_theta=1e4, eps=1e-5, activation="relu2", attn_sub_norm=True,
    ffn_sub_norm=True, tied=True,
)  # fmt: skip
# The binary32 of 1/127 in the generated Verilog, which quantises activations to int8.
RECIPROCAL, DOUBLE = "'h3c010204", "'h3c810204"


@pytest.fixture(scope="module")
def model(
    save_model: Callable[[Model, Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save_model(random_model(SPEC, seed=1), tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def verilog() -> str:
    from terntable.sim.accelerator import design_of

    return design_of(load_config("test")).verilog


def demo(model: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(
            ["demo", "--config", "test", "--model", str(model), "--prompt-ids", "3,1,4,1,5",
             "--max-tokens", "3", *arguments]
        )  # fmt: skip
    return int(end.value.code or 0)


def test_generated_verilog_is_identical(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo(model) == 0
    got = capsys.readouterr()
    assert got.out.count("identical") == 2
    assert "DIFFERENT" not in got.out
    assert got.err == ""


def test_verilog_of_a_file(
    model: Path, verilog: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "same.v"
    file.write_text(verilog)
    assert demo(model, "--verilog", str(file), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["tokens_identical"] and result["logits_identical"]
    assert result["difference"] == ""
    assert len(result["decode_cycles"]) == len(result["tokens"]) - 1 == 2


def test_a_changed_constant_is_a_difference(
    model: Path, verilog: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verilog.count(RECIPROCAL) == 1
    file = tmp_path / "changed.v"
    file.write_text(verilog.replace(RECIPROCAL, DOUBLE))
    assert demo(model, "--verilog", str(file)) == 1
    got = capsys.readouterr()
    assert "DIFFERENT" in got.out
    assert got.err.count("\n") == 1
    assert "RTL and emulator differ: step 0" in got.err


def test_verilog_that_does_not_compile(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.v"
    file.write_text("module terntable(; endmodule\n")
    assert demo(model, "--verilog", str(file)) == 1
    got = capsys.readouterr()
    assert got.err.count("\n") == 1
    assert "Verilator failed" in got.err and "error" in got.err.lower()
