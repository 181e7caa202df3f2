"""`terntable build`: what a board's flow makes of a configuration."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import typer

from terntable.hw.config import load_config
from terntable.hw.errors import UserError

from ..boards.board import load_board
from ..flows.errors import FlowError
from .run import note, say


def build_command(
    board_name: str, config_name: str | None, out: Path, seed: int | None, as_json: bool
) -> None:
    """Check that the configuration fits before anything is written, then run the flow. Exit status
    1 when one of its tools fails."""
    board = load_board(board_name)
    if seed is not None:
        board = board.with_seed(seed)
    config = load_config(board.chosen(config_name))
    board.check(config)
    flow = importlib.import_module(f"terntable.host.flows.{board.flow}.project")
    try:
        importlib.import_module("terntable.hw.generate")
    except ImportError as e:
        raise UserError(f"generating Verilog needs {e.name}: pip install 'terntable[hw]'") from None
    say(f"building {config.name} for {board.name}")
    try:
        manifest = flow.build(board, config, out)
    except FlowError as e:
        note(f"terntable: {e}")
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(manifest | {"out": str(out)}))
    else:
        print(flow.summary(manifest, out))
