"""Kept bitstreams: a manifest that contradicts itself fails, older gateware is a warning."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from terntable.host.flows.committed import main
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.generate import generate

CONFIG = AcceleratorConfig.model_validate(
    load_config("test").model_dump() | {"name": "kept", "part": "lfe5u-85f"}
)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "ulx3s"
    folder.mkdir()
    (folder / "terntable.bit").write_bytes(b"bits")
    verilog = generate(CONFIG).verilog
    write(
        folder,
        {
            "board": "ulx3s",
            "config_name": "kept",
            "config_hash": f"{CONFIG.hash:08x}",
            "config": CONFIG.model_dump(),
            "files": {"terntable.v": hashlib.sha256(verilog.encode()).hexdigest()},
            "bitstream": {"name": "terntable.bit", "sha256": hashlib.sha256(b"bits").hexdigest()},
            "utilisation": {"DP16KD": {"used": 9, "available": 208, "percent": 4.3}},
            "clock_mhz": 100.0,
            "fmax_mhz": 101.5,
        },
    )
    return folder


def write(folder: Path, made: dict) -> None:
    (folder / "manifest.json").write_text(json.dumps(made))


def change(folder: Path, **values: object) -> None:
    write(folder, json.loads((folder / "manifest.json").read_text()) | values)


def test_up_to_date(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(kept.parent) == 0
    assert capsys.readouterr() == (f"{kept}: up to date\n", "")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bitstream": {"name": "terntable.bit", "sha256": "0"}}, "another SHA-256"),
        ({"bitstream": {"name": "lost.bit", "sha256": "0"}}, "lost.bit is missing"),
        ({"fmax_mhz": 99.0}, "fmax_mhz 99.0 is below clock_mhz 100.0"),
        ({"clock_mhz": 50.0}, "clock_mhz is 50.0"),
        ({"config_name": "other"}, "config_name 'other'"),
        ({"board": "kv260"}, "board kv260 has xck26"),
        ({"board": "none"}, "unknown board"),
        ({"config": {}}, "tables"),
        ({"utilisation": {"X": {"used": 9, "available": 8}}}, "9 used of 8"),
    ],
)
def test_contradictions(
    kept: Path, values: dict, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(kept, **values)
    assert main(kept.parent) == 1
    out, err = capsys.readouterr()
    assert said in err and not out


@pytest.mark.parametrize("text", ["{", "{}"])
def test_no_manifest(kept: Path, text: str) -> None:
    (kept / "manifest.json").write_text(text)
    assert main(kept.parent) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"files": {"terntable.v": "0"}}, "terntable.v has become another"),
        ({"files": {"old.v": "0"}}, "old.v is generated no more"),
        ({"config_hash": "00000000"}, "it was 00000000"),
    ],
)
def test_gateware_that_moved_on(
    kept: Path, values: dict, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(kept, **values)
    assert main(kept.parent) == 0
    out, err = capsys.readouterr()
    assert f"warning: {said}" in err or said in err
    assert "of older gateware" in out
