"""Files written whole or not at all, and progress that stays off pipes."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from terntable.hw.errors import UserError

console = Console(stderr=True)


def warn(line: str) -> None:
    """A warning on standard error, clear of progress bars and never folded."""
    console.print(f"terntable: warning: {line}", highlight=False, markup=False, soft_wrap=True)


_TEMPORARY = ".terntable-"
"""First letters of files and folders that exist while something is written."""


def check_writable(path: Path, what: str) -> None:
    """Raise UserError unless a file `path` could be written. Leaves nothing behind."""
    try:
        if path.is_dir():
            raise UserError(f"{what} {path} is a folder: name a file")
        if not path.parent.is_dir():
            raise UserError(f"{what} {path} can't be written: there is no folder {path.parent}")
        if path.exists():
            if not os.access(path, os.W_OK):
                raise UserError(f"{what} {path} can't be written: no permission")
            if not path.is_file():
                return  # a device or a pipe
        with tempfile.TemporaryFile(dir=path.resolve().parent, prefix=_TEMPORARY):
            pass
    except OSError as e:
        raise UserError(f"{what} {path} can't be written: {e.strerror}") from None


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block succeeds.

    What isn't an ordinary file (a device, a pipe) stays what it is and is written to.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        path = path.resolve()  # a link stays a link
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp's files are private; this one is an ordinary file of the user's.
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"{path} can't be written: {e.strerror}") from None


def check_folder(path: Path, names: Collection[str], others: Collection[str] = ()) -> None:
    """Raise UserError unless `path` can be made, or holds nothing but files named in `names`, and
    files and folders of which `others` has a pattern.

    Leaves nothing behind.
    """

    def strange(entry: Path) -> bool:
        if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in others):
            return False
        return entry.name not in names or not entry.is_file()

    try:
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if there.is_dir() or there != path.absolute():
            with tempfile.TemporaryFile(dir=there, prefix=_TEMPORARY):
                pass
        if not path.exists():
            return
        if not path.is_dir():
            raise UserError(f"{path} exists and is no folder: name another")
        found = sorted(f.name for f in path.iterdir() if strange(f))
    except OSError as e:
        raise UserError(f"{path} can't be written: {e.strerror}") from None
    if found:
        raise UserError(f"{path} holds {found[0]!r}, which isn't this program's: name another")


def write_folder(path: Path, files: Mapping[str, str], others: Collection[str] = ()) -> None:
    """Make the folder `path` of these texts, whole or not at all.

    A folder that is there stays (it may be someone's working directory) and its files are
    replaced, when all texts are on the disk. What matches a pattern of `others` is left alone.
    """
    check_folder(path, files, others)
    try:
        path = path.resolve()
        there = path.is_dir()
        parent = path if there else path.parent
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=_TEMPORARY))
        try:
            for name, text in files.items():
                (temporary / name).write_text(text, encoding="utf-8")
            temporary.chmod(0o777 & ~_umask())
            if there:
                for name in files:
                    (temporary / name).replace(path / name)
            else:
                temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as e:
        raise UserError(f"{path} can't be written: {e.strerror}") from None


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block succeeds.

    What is there, which the caller has looked at (`check_folder`), is removed only then.
    """
    try:
        path = path.resolve()
        there = next(p for p in path.parents if p.is_dir())
        temporary = Path(tempfile.mkdtemp(dir=there, prefix=_TEMPORARY))
        try:
            folder, old = temporary / "new", temporary / "old"
            folder.mkdir()
            yield folder
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                path.replace(old)
            try:
                folder.replace(path)
            except BaseException:
                if old.exists():
                    old.replace(path)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as e:
        raise UserError(f"{path} can't be written: {e.strerror}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
