"""The project folder: Verilog, Tcl, constraints, overlay, README, manifest."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from terntable.hw.config import AcceleratorConfig

from ...boards.board import Board, VivadoBoard
from ...output import check_folder, write_folder
from .overlay import hp_bits, overlay

NAME = "terntable"
"""Name of project, block design, firmware and overlay."""

SCRIPTS = ("package_ip.tcl", "block_design.tcl", "build.tcl")

AS_THEY_ARE = (*SCRIPTS, f"{NAME}.xdc", "load.sh")
"""Files that are the same for every board and configuration."""

MADE_BY_VIVADO = ("vivado*", ".Xil", "firmware", "*.jou", "*.log")
"""What the scripts and Vivado itself leave in the folder, as patterns."""

NOT_RUN = "Not run on a board so far."


def settings(board: Board, config: AcceleratorConfig) -> str:
    """settings.tcl: what the scripts take from board and configuration. Needs Amaranth."""
    from terntable.hw.ip_wrapper import memory_interfaces

    vivado = _vivado(board)
    values = {
        "name": NAME,
        "part": vivado.device,
        "board_part": vivado.board_part,
        "top": _top(board),
        "ip_name": f"{NAME}_{board.name}",
        "verilog": f"{NAME}.v {_top(board)}.v",
        "config_name": config.name,
        "config_hash": f"{config.hash:08x}",
        "clock_mhz": f"{config.clock_hz / 1e6:.6f}",
        "reference_mhz": f"{vivado.reference_hz / 1e6:g}",
        "memory_ports": " ".join(memory_interfaces(config)),
        "bus_bits": str(config.bus_bits),
        "hp_bits": str(hp_bits(config)),
        "registers": f"{vivado.registers:#x}",
    }
    lines = [f"# Board {board.name}, configuration {config.name}. {NOT_RUN}"]
    lines += [f"set {name} {{{value}}}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def files(board: Board, config: AcceleratorConfig) -> dict[str, str]:
    """Text by file name of the whole project but its manifest. Needs Amaranth."""
    from terntable.hw.generate import HEADER, REGISTER_MAP, TOP, generate
    from terntable.hw.ip_wrapper import ip_wrapper

    vivado, top = _vivado(board), _top(board)
    generated = generate(config).texts()
    about = f"{board.title}, configuration {config.name} ({config.hash:08x})"
    texts = {
        f"{TOP}.v": generated[f"{TOP}.v"],
        f"{top}.v": ip_wrapper(config, top, TOP, f"{about}: pins of the IP. {NOT_RUN}"),
        "settings.tcl": settings(board, config),
        **{name: _template(name) for name in AS_THEY_ARE},
        f"{NAME}.dtso": overlay(
            config, board.uio, vivado, f"{NAME}.bit.bin", f"{about}. {NOT_RUN}"
        ),
        # dfx-mgr wants no more, and JSON has no comments: README.md says that it was not run.
        "shell.json": json.dumps({"shell_type": "XRT_FLAT", "num_slots": "1"}, indent=2) + "\n",
        REGISTER_MAP: generated[REGISTER_MAP],
        HEADER: generated[HEADER],
    }
    texts["README.md"] = Template(_template("README.md.in")).substitute(
        title=board.title,
        board=board.name,
        config=config.name,
        name=NAME,
        top=top,
        clock_mhz=f"{config.clock_hz / 1e6:g}",
        buffer_mib=board.uio.buffer_bytes >> 20,
    )
    return texts


def manifest(
    board: Board, config: AcceleratorConfig, texts: dict[str, str], configuration: dict[str, Any]
) -> dict[str, Any]:
    """What the folder was made of, and the SHA-256 of every file in it."""
    return {
        "board": board.name,
        "config_name": config.name,
        "config_hash": f"{config.hash:08x}",
        "clock_mhz": config.clock_hz / 1e6,
        "tried_on_a_board": False,
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
        "config": configuration,
    }


def build(board: Board, config: AcceleratorConfig, out: Path) -> dict[str, Any]:
    """Write the project folder, whole or not at all, and return its manifest.

    What Vivado has made in it stays. Raises UserError when the folder can't be written or is
    someone else's.
    """
    names = (
        *(f"{NAME}{suffix}" for suffix in (".v", ".h", ".dtso")),
        *AS_THEY_ARE,
        f"{_top(board)}.v",
        "settings.tcl",
        "shell.json",
        "regmap.json",
        "README.md",
        "manifest.json",
    )
    check_folder(out, names, MADE_BY_VIVADO)
    texts = files(board, config)
    made = manifest(board, config, texts, config.model_dump())
    texts["manifest.json"] = json.dumps(made, indent=2) + "\n"
    write_folder(out, texts, MADE_BY_VIVADO)
    return made


def summary(made: dict[str, Any], out: Path) -> str:
    """A line on what was written."""
    return f"{out}: {', '.join(made['files'])}; see README.md there"


def _top(board: Board) -> str:
    return f"{NAME}_{board.name}"


def _vivado(board: Board) -> VivadoBoard:
    assert board.vivado is not None  # the board's own check
    return board.vivado


def _template(name: str) -> str:
    return (resources.files("terntable.host.flows.vivado") / name).read_text(encoding="utf-8")
