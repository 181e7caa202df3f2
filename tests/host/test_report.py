"""`terntable report`: its JSON, and the configuration that can't fit its part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from terntable.hw.config import load_config


def saved(folder: Path, **values: object) -> str:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(load_config("test").model_dump() | values))
    return str(file)


def test_what_cannot_fit_is_said_before_anything_is_mapped(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("mapped")

    monkeypatch.setattr("terntable.sim.report.map_design", never)
    config = saved(tmp_path, part="xck26", weight_memory="uram", weight_depth=65536, tables=48)
    got = cli("report", "--config", config, "--json")
    assert got.status == 2
    assert got.out == ""
    assert len(got.err.strip().splitlines()) == 1
    # 2 x 48 indices of 5 bits: 7 URAM wide, 16 deep.
    assert "113 uram (112 for" in got.err and "49 over the part's 64" in got.err


@pytest.mark.slow
def test_the_report_of_a_part(cli, tmp_path: Path) -> None:
    got = cli("report", "--config", saved(tmp_path, part="xck26"), "--json")
    assert got.status == 0
    found = json.loads(got.out)
    assert found["part"] == "xck26"
    assert found["limits"] == {
        "lut": 117_120, "lutram": 57_600, "ff": 234_240, "bram36": 144, "uram": 64, "dsp": 1_248,
    }  # fmt: skip
    assert {"attention", "linear", "vector", "fetch", "dma"} <= found["units"].keys()
    engine = found["units"]["linear"]["parts"]["engine"]
    assert 0 < engine["lut"] < found["units"]["linear"]["lut"] < found["lut"]
    assert found["logic_levels"] > 0
    assert found["from"] and found["to"]
    assert any("CARRY4" in note for note in found["notes"])
