"""A bitstream from nothing: Verilog, synthesis, place and route, packing."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import Progress

from terntable.hw.config import AcceleratorConfig

from ...boards.board import Board, Ecp5Board
from ...commands.run import say
from ...output import check_folder, progress, whole_folder
from . import tools
from .result import check_resources, mapped_resources, read_report

NAME = "terntable"
BITSTREAM = f"{NAME}.bit"
FILES = (BITSTREAM, f"{NAME}.v", "report.json", "manifest.json")

_PHASES = ("Packing", "Placed", "Running simulated", "Routing", "Max frequency")
"""Beginnings of nextpnr's lines that tell how far it is."""


def build(board: Board, config: AcceleratorConfig, out: Path) -> dict[str, Any]:
    """Make the folder with bitstream, Verilog, report and manifest, whole or not at all.

    Returns the manifest. Raises UserError when something is missing, the design is too large or
    too slow, or the folder can't be written; FlowError when a tool fails.
    """
    check_folder(out, FILES)
    versions = tools.versions()
    placer = _ecp5(board)
    with whole_folder(out) as folder, tempfile.TemporaryDirectory(prefix="terntable-ecp5-") as text:
        work = Path(text)
        with progress("generating the Verilog") as bar:
            verilog = sources(board, config, work)
            step(bar, "synthesis")
            synthesise(config, board, work, bar)
            step(bar, "place and route")
            place_and_route(placer, work, bar)
            placed = read_report(work / "report.json")
            placed.check(f"{config.name} with seed {placer.seed}")
            step(bar, "packing")
            tools.run("ecppack", ["--compress", "top.config", BITSTREAM], work)
        for name in (BITSTREAM, "report.json"):
            shutil.copyfile(work / name, folder / name)
        (folder / f"{NAME}.v").write_text(verilog, encoding="utf-8")
        made = {
            "board": board.name,
            "config_name": config.name,
            "config_hash": f"{config.hash:08x}",
            "config": config.model_dump(),
            "files": {f"{NAME}.v": _sha256(verilog.encode())},
            "bitstream": {"name": BITSTREAM, "sha256": _sha256((work / BITSTREAM).read_bytes())},
            "tools": versions,
            "utilisation": placed.utilisation,
            "clock_mhz": config.clock_hz / 1e6,
            "fmax_mhz": placed.fmax_mhz[config.clock_hz / 1e6],
            "clocks_mhz": {f"{clock:g}": fmax for clock, fmax in placed.fmax_mhz.items()},
            "slowest_paths": {f"{mhz:g}": asdict(path) for mhz, path in placed.slowest.items()},
            "seed": placer.seed,
            "command": command(board, config),
            "tried_on_a_board": False,
        }
        (folder / "manifest.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return made


def command(board: Board, config: AcceleratorConfig) -> str:
    """What was typed, but for the folder."""
    configuration = "" if config.name == board.config else f" --config {config.name}"
    seed = _ecp5(board).seed
    return f"terntable build --board {board.name}{configuration} --seed {seed} --out DIR"


def summary(made: dict[str, Any], out: Path) -> str:
    """A line on what was built."""
    used = ", ".join(f"{name} {of['percent']:g} %" for name, of in made["utilisation"].items())
    return (
        f"{out / BITSTREAM}: {made['fmax_mhz']:g} MHz of {made['clock_mhz']:g}; {used}."
        f" Load it: openFPGALoader -b {made['board']} {out / BITSTREAM}"
    )


def sources(board: Board, config: AcceleratorConfig, work: Path) -> str:
    """Write what Yosys and nextpnr read into `work`; the Verilog of the accelerator."""
    from terntable.hw.generate import TOP, generate
    from terntable.hw.soc.ulx3s import prepare

    say(f"generating the Verilog of {config.name}")
    verilog = generate(config).verilog
    (work / f"{TOP}.v").write_text(verilog, encoding="utf-8")
    for name, text in prepare(config, board.serial.baud).items():
        (work / name).write_text(text, encoding="utf-8")
    return verilog


def synthesise(config: AcceleratorConfig, board: Board, work: Path, bar: Progress) -> None:
    """From `terntable.v` and `top.il` to `top.json`. Raises UserError when it has become too
    large."""
    script = (
        f"read_verilog {NAME}.v; read_rtlil top.il; {mapping('top')}; write_json top.json;"
        " tee -q -o statistics.json stat -json"
    )
    tools.run("yosys", ["-p", script], work, lambda line: _yosys_phase(bar, line))
    check_resources(config.name, mapped_resources(work / "statistics.json"), board.fpga)


def mapping(top: str, options: str = "") -> str:
    """Yosys' commands that map module `top`, which has been read.

    A wire named a[0] beside a wire a stops ABC (Yosys issue 4451): such names are hidden.
    """
    start = f"synth_ecp5 {options} -top {top} -run"
    return f"{start} begin:map_ffram; rename -hide */w:*[[]*; {start} map_ffram:"


def place_and_route(placer: Ecp5Board, work: Path, bar: Progress) -> None:
    """From `top.json` and `top.lpf` to `top.config` and `report.json`. A clock that is not reached
    is no failure yet."""
    arguments = [
        f"--{placer.device}", "--package", placer.package, "--speed", str(placer.speed),
        "--json", "top.json", "--lpf", "top.lpf", "--textcfg", "top.config",
        "--report", "report.json", "--seed", str(placer.seed), "--timing-allow-fail",
    ]  # fmt: skip
    tools.run("nextpnr-ecp5", arguments, work, lambda line: _nextpnr_phase(bar, line))


def step(bar: Progress, text: str) -> None:
    """The next step of the flow."""
    say(text)
    bar.update(bar.task_ids[0], description=text, note="")


def _yosys_phase(bar: Progress, line: str) -> None:
    if ". Executing " in line:
        bar.update(bar.task_ids[0], note=line.split(". Executing ", 1)[1].split(" pass")[0])


def _nextpnr_phase(bar: Progress, line: str) -> None:
    text = line.removeprefix("Info:").strip()
    if text.startswith(_PHASES) or text[:1].isdigit():
        bar.update(bar.task_ids[0], note=text[:60])


def _ecp5(board: Board) -> Ecp5Board:
    assert board.ecp5 is not None  # the board's own check
    return board.ecp5


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
