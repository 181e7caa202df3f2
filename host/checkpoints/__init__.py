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
        from .bundle import MANIFEST, is_bundle, open_bundle

        published = (path / "config.json").is_file()
        if is_bundle(path) or ((path / MANIFEST).is_file() and not published):
            return open_bundle(path)
        if not published:
            from .gguf_file import find_gguf

            if (file := find_gguf(path)) is not None:
                return open_checkpoint(file)
        from .huggingface import load_checkpoint

        return load_checkpoint(path)
    from .gguf_file import is_gguf

    if is_gguf(path):
        from .gguf_model import load_gguf

        return load_gguf(path)
    raise UserError(f"{path}: no checkpoint: a folder or a GGUF file is expected")
