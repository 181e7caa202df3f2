"""`terntable build`: what a board's flow makes of a configuration."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from terntable.hw.config import load_config
from terntable.hw.errors import UserError

from ..boards.board import load_board
from .run import say


def build_command(board_name: str, config_name: str | None, out: Path, as_json: bool) -> None:
    """Check that the configuration fits before anything is written, then run the flow."""
    board = load_board(board_name)
    config = load_config(config_name or board.config)
    board.check(config)
    flow = importlib.import_module(f"terntable.host.flows.{board.flow}.project")
    try:
        importlib.import_module("terntable.hw.generate")
    except ImportError as e:
        raise UserError(f"generating Verilog needs {e.name}: pip install 'terntable[hw]'") from None
    say(f"building {config.name} for {board.name}")
    manifest = flow.build(board, config, out)
    if as_json:
        print(json.dumps(manifest | {"out": str(out)}))
    else:
        print(f"{out}: {', '.join(manifest['files'])}; see README.md there")
