"""`terntable build`: boards as data, what is refused before anything is written, the project."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from importlib import resources
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from terntable.host.boards.board import Board, load_board, named_boards
from terntable.host.flows.vivado.project import MADE_BY_VIVADO, build
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.errors import UserError
from terntable.hw.generate import generate

TEST = load_config("test")


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`test` with the KV260's four ports."""
    file = tmp_path_factory.mktemp("config") / "four.yaml"
    file.write_text(yaml.safe_dump(TEST.model_dump() | {"name": "four", "ports": 4}))
    return file


@pytest.fixture(scope="module")
def project(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "project"
    build(load_board("kv260"), load_config(str(config_file)), folder)
    return folder


def write(folder: Path, **values: object) -> Path:
    file = folder / "c.yaml"
    file.write_text(yaml.safe_dump(load_config("kv260").model_dump() | values))
    return file


@pytest.mark.parametrize("name", named_boards())
def test_boards_are_whole(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    board.check(load_config(board.config))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"part": "xc7"}, "xc7"),
        ({"flow": "hand"}, "flow"),
        ({"vivado": None}, "section 'vivado' is missing"),
        ({"colour": "red"}, "colour"),
        ({"max_clock_hz": "fast"}, "max_clock_hz"),
    ],
)
def test_a_board_that_makes_no_sense(change: dict[str, object], words: str) -> None:
    file = resources.files("terntable.host.boards") / "kv260.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    with pytest.raises(ValidationError, match=words):
        Board.model_validate(values | change)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"weight_depth": 16384},
            "89 uram (72 for the weight ring, 17 for binary32 rows), 25 over",
        ),
        ({"clock_hz": 400_000_000}, "a clock of 400 MHz, 67 over the 333 that kv260 allows"),
        ({"weight_depth": 100}, "weight_depth is 100"),
    ],
)
def test_what_does_not_fit_is_refused(
    cli, tmp_path: Path, values: dict[str, object], words: str
) -> None:
    out = tmp_path / "out"
    got = cli(
        "build", "--board", "kv260", "--config", str(write(tmp_path, **values)), "--out", str(out)
    )
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert words in got.err
    assert not out.exists()


def test_a_configuration_for_another_part(monkeypatch: pytest.MonkeyPatch) -> None:
    board = load_board("kv260")
    other = load_config("kv260").model_copy(update={"part": "another"})
    with pytest.raises(UserError, match="kv260 is for part another, kv260 has xck26"):
        board.check(other)
    board.check(other.model_copy(update={"part": None}))


def test_unknown_boards(cli, tmp_path: Path) -> None:
    got = cli("build", "--board", "kv26", "--out", str(tmp_path / "out"))
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert all(name in got.err for name in ("kv26", *named_boards()))
    got = cli("build", "--board", "kv260", "--config", "nosuch", "--out", str(tmp_path / "out"))
    assert got.status == 2 and "unknown configuration 'nosuch'" in got.err
    got = cli("build", "--board", "kv260", "--config", "", "--out", str(tmp_path / "out"))
    assert got.status == 2 and "unknown configuration ''" in got.err
    assert not (tmp_path / "out").exists()


def test_every_file_is_in_the_manifest(project: Path, config_file: Path) -> None:
    manifest = json.loads((project / "manifest.json").read_text())
    there = {p.name for p in project.iterdir()}
    assert set(manifest["files"]) == there - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((project / name).read_bytes()).hexdigest() == digest, name
    config = AcceleratorConfig.model_validate(manifest["config"])
    assert config == load_config(str(config_file))
    assert manifest["config_hash"] == f"{config.hash:08x}"
    assert manifest["board"] == "kv260"
    assert (project / "terntable.v").read_text() == generate(config).verilog


def test_every_file_says_that_it_was_not_run_on_a_board(project: Path) -> None:
    words = re.compile("not (been )?run on a board", re.I)
    shared = {"terntable.v", "terntable.h", "regmap.json"}  # what `generate` writes
    for file in project.iterdir():
        if file.name not in {*shared, "shell.json", "manifest.json"}:
            assert words.search(" ".join(file.read_text().split())), file.name
    assert json.loads((project / "manifest.json").read_text())["tried_on_a_board"] is False
    assert set(json.loads((project / "shell.json").read_text())) == {"shell_type", "num_slots"}


def test_six_commands_from_verilog_to_a_prompt(project: Path) -> None:
    readme = (project / "README.md").read_text()
    commands = [
        line for fence in re.findall(r"```\n(.*?)```", readme, re.S) for line in fence.splitlines()
    ]
    assert len(commands) == 6
    assert "$" not in readme.replace('"$(command -v terntable)"', "")
    assert commands[0].startswith("vivado -mode batch -source build.tcl")
    assert commands[-1].startswith(
        'sudo "$(command -v terntable)" run --device board --board kv260'
    )
    text = readme + (project / "build.tcl").read_text()
    for file in project.iterdir():
        assert file.name in text, file.name
    for name in re.findall(r"\| `([\w.]+)`", readme):
        assert (project / name).exists(), name


def test_what_vivado_made_stays(project: Path, config_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    for name in (
        "vivado/project/a.bd",
        "firmware/terntable.bit.bin",
        ".Xil/b",
        "vivado_1.backup.log",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("made")
    (folder / "build.tcl").write_text("old")
    config = load_config(str(config_file))
    build(load_board("kv260"), config, folder)
    assert (folder / "build.tcl").read_text() == (project / "build.tcl").read_text()
    assert (folder / "firmware" / "terntable.bit.bin").read_text() == "made"
    assert not list(folder.glob(".terntable-*"))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        build(load_board("kv260"), config, folder)
    assert {*MADE_BY_VIVADO} >= {"firmware", ".Xil"}


def test_one_line_or_one_object(cli, config_file: Path, tmp_path: Path) -> None:
    options = ("--board", "kv260", "--config", str(config_file), "--out", str(tmp_path / "out"))
    got = cli("build", *options)
    assert (got.status, got.err, got.out.count("\n")) == (0, "", 1)
    assert "build.tcl" in got.out and "README.md" in got.out
    got = cli("build", *options, "--json")
    assert json.loads(got.out)["out"] == str(tmp_path / "out")
    (tmp_path / "file").write_text("x")
    got = cli("build", *options[:-1], str(tmp_path / "file"))
    assert (got.status, got.err.count("\n")) == (2, 1)


def test_amaranth_missing(cli, config_file: Path, tmp_path: Path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "terntable.hw.generate", None)
    out = tmp_path / "out"
    got = cli("build", "--board", "kv260", "--config", str(config_file), "--out", str(out))
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert "pip install" in got.err and not out.exists()
