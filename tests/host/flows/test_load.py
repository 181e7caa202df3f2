"""load.sh, with programs of the board that only note how they are called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "host" / "flows" / "vivado" / "load.sh"
FILES = ("terntable.bit.bin", "terntable.dtbo", "shell.json")


class Board:
    """A copied folder, a place for firmware, and programs that fail when they are told to."""

    def __init__(self, folder: Path) -> None:
        self.copied, self.programs = folder / "copied", folder / "bin"
        self.firmware, self.log = folder / "firmware", folder / "log"
        self.copied.mkdir()
        self.programs.mkdir()
        (self.copied / "load.sh").write_text(SCRIPT.read_text())
        for name in FILES:
            (self.copied / name).write_text(name)
        self.program("id", "echo 0")
        for name in ("modprobe", "xmutil"):
            self.program(name, f'echo "{name} $*" >> {self.log}')

    def program(self, name: str, text: str) -> None:
        file = self.programs / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def load(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.copied / "load.sh")],
            env={
                "PATH": f"{self.programs}{os.pathsep}/usr/bin:/bin",
                "FIRMWARE": str(self.firmware),
            },
            capture_output=True,
            text=True,
        )


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_it_loads(board: Board) -> None:
    for _ in range(2):  # again over what is there
        done = board.load()
        assert (done.returncode, done.stderr) == (0, "")
    assert board.log.read_text().splitlines()[:4] == [
        "modprobe u-dma-buf",
        "modprobe uio_pdrv_genirq of_id=generic-uio",
        "xmutil unloadapp",
        "xmutil loadapp terntable",
    ]
    for name in FILES:
        assert (board.firmware / "terntable" / name).read_text() == name


def test_nothing_to_unload_is_no_error(board: Board) -> None:
    board.program("xmutil", '[ "$1" = loadapp ]')
    assert board.load().returncode == 0


@pytest.mark.parametrize(
    ("program", "text", "words"),
    [
        ("id", "echo 1000", "root alone"),
        ("modprobe", '[ "$1" != u-dma-buf ]', "no kernel module u-dma-buf"),
        ("modprobe", '[ "$1" = u-dma-buf ]', "no kernel module uio_pdrv_genirq"),
        ("xmutil", '[ "$1" = unloadapp ]', "xmutil did not load terntable"),
    ],
)
def test_what_is_missing_is_said(board: Board, program: str, text: str, words: str) -> None:
    board.program(program, text)
    done = board.load()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert words in done.stderr
    if program != "xmutil":
        assert not board.firmware.exists()


@pytest.mark.parametrize("name", FILES)
def test_files_that_were_not_made(board: Board, name: str) -> None:
    (board.copied / name).unlink()
    done = board.load()
    assert done.returncode == 1 and f"{name} is missing" in done.stderr
    assert not board.log.exists()
