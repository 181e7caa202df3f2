"""Checkpoints on disk, in whatever layout: read as a Model."""

from __future__ import annotations

from pathlib import Path

from terntable.host.model import Model
from terntable.hw.errors import UserError


def open_checkpoint(path: Path) -> Model:
    """The model of a checkpoint folder or file.

    Raises UserError with one line that says what is wrong with it.
    """
    if path.is_dir():
        from .huggingface import load_checkpoint

        return load_checkpoint(path)
    raise UserError(f"{path}: a checkpoint folder is expected, this is a file")
