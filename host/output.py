"""Files written whole or not at all, and progress that stays off pipes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from terntable.hw.errors import UserError

console = Console(stderr=True)


def check_writable(path: Path, what: str) -> None:
    """Raise UserError unless a file `path` could be written. Leaves nothing behind."""
    if path.is_dir():
        raise UserError(f"{what} {path} is a folder: name a file")
    parent = path.parent
    if not parent.is_dir():
        raise UserError(f"{what} {path} can't be written: there is no folder {parent}")
    if not os.access(parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise UserError(f"{what} {path} can't be written: no permission")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block succeeds."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as e:
        raise UserError(f"{path} can't be written: {e.strerror}") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's files are private; this one is an ordinary file of the user's.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as e:
        raise UserError(f"{path} can't be written: {e.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block succeeds.

    An existing folder is replaced only if it is empty or holds a manifest of this project.
    """
    if path.exists() and (
        not path.is_dir() or (any(path.iterdir()) and not (path / "manifest.json").is_file())
    ):
        raise UserError(f"{path} exists and isn't a folder that this program made: name another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as e:
        raise UserError(f"{path} can't be written: {e.strerror}") from None
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def progress(text: str, total: float | None = None) -> Iterator[Progress]:
    """A progress bar on standard error with one task, shown on a terminal only."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        bar.add_task(text, total=total, note="")
        yield bar
