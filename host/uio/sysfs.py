"""The accelerator's devices, as sysfs describes them."""

from __future__ import annotations

import getpass
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from terntable.hw.errors import UserError
from terntable.hw.regs import BUS_ADDRESS_BITS, REGISTERS

PAGE_BYTES = 4096
"""Of the accelerator's base address."""

REGISTER_BYTES = 4 * len(REGISTERS)

RELOAD = (
    "load the design, sudo sh terntable/load.sh, from the folder that terntable build made for this"
    " board"
)

_MIB = 1 << 20
_UNCACHED_MODES = (5, 6, 7)
"""Of sync_mode: uncached however the file is opened."""


@dataclass(frozen=True)
class Roots:
    """Where sysfs, device files and procfs are."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    proc: Path = Path("/proc")


@dataclass(frozen=True)
class UioDevice:
    """A UIO device: its file, and the registers in its first map."""

    file: Path
    size: int
    offset: int


@dataclass(frozen=True)
class UdmaDevice:
    """A u-dma-buf device: its file, its folder in sysfs, its memory's bus address and size."""

    file: Path
    folder: Path
    address: int
    size: int


def find_uio(roots: Roots, name: str) -> UioDevice:
    """The UIO device of that name. Raises UserError where there is none that can be used."""
    folder = roots.sys / "class" / "uio"
    names = {each: _text(each / "name") for each in sorted(folder.glob("uio*"))}
    found = next((each for each, its in names.items() if its == name), None)
    if found is None:
        there = ", ".join(filter(None, names.values())) or "none at all"
        raise UserError(f"no UIO device {name!r} in {folder}, there is {there}: {RELOAD}")
    size, offset = (_number(found / "maps" / "map0" / what) for what in ("size", "offset"))
    if size is None or size < REGISTER_BYTES:
        raise UserError(
            f"UIO device {name!r} maps {size or 0} bytes, the registers take {REGISTER_BYTES}: its"
            f" overlay is of another design; {RELOAD}"
        )
    return UioDevice(roots.dev / found.name, size, offset or 0)


def find_buffer(roots: Roots, name: str, wanted: int) -> UdmaDevice:
    """The u-dma-buf device of that name, which should have had `wanted` bytes. Raises UserError
    where there is none that can be used."""
    folder = roots.sys / "class" / "u-dma-buf" / name
    address, size = _number(folder / "phys_addr"), _number(folder / "size")
    if address is None or size is None:
        raise UserError(_why_no_buffer(roots, name, wanted))
    size = size // PAGE_BYTES * PAGE_BYTES
    if address % PAGE_BYTES or not size:
        raise UserError(
            f"u-dma-buf device {name!r} has {size} bytes at {address:#x}: whole pages of"
            f" {PAGE_BYTES} bytes are needed, correct its size in the overlay"
        )
    if address + size > 1 << BUS_ADDRESS_BITS:
        raise UserError(
            f"u-dma-buf device {name!r} ends at {address + size:#x}, the accelerator's addresses"
            f" have {BUS_ADDRESS_BITS} bits: lower dma-mask in the overlay"
        )
    if _number(folder / "dma_coherent"):
        raise UserError(
            f"u-dma-buf device {name!r} is marked dma-coherent, and the accelerator's ports go past"
            " the CPU's caches: remove dma-coherent from the overlay"
        )
    mode = _number(folder / "sync_mode")
    if mode in _UNCACHED_MODES:
        raise UserError(
            f"u-dma-buf device {name!r} has sync_mode {mode}, which maps it uncached: write 1 to"
            f" {folder / 'sync_mode'}"
        )
    return UdmaDevice(roots.dev / name, folder, address, size)


def larger_buffer(roots: Roots, name: str) -> str:
    """What makes a buffer larger, in words."""
    pool = _memory(roots).get("CmaTotal")
    there = f", the kernel's pool of now {pool // _MIB} MiB," if pool else ""
    return (
        f"enlarge u-dma-buf device {name!r}: size in terntable.dtso, and{there} by the kernel"
        " argument cma="
    )


def open_file(file: Path, flags: int) -> int:
    """Open a device file. Raises UserError with the remedy."""
    try:
        return os.open(file, flags | os.O_CLOEXEC)
    except PermissionError:
        raise UserError(
            f"no permission for {file}{_owner(file)}, you are {_user()}: run terntable with sudo,"
            " or give yourself access by a udev rule (docs/boards.md)"
        ) from None
    except FileNotFoundError:
        raise UserError(
            f"no file {file}, though sysfs has its device: start udev, or mount it in the container"
        ) from None
    except OSError as e:
        raise UserError(f"{file} can't be opened, {e.strerror}: {RELOAD}") from None


def _why_no_buffer(roots: Roots, name: str, wanted: int) -> str:
    memory = _memory(roots)
    total, free = memory.get("CmaTotal"), memory.get("CmaFree")
    text = f"no u-dma-buf device {name!r}"
    if total is not None and total < wanted:
        return (
            f"{text}: it takes {wanted // _MIB} MiB of contiguous memory, the kernel has a pool of"
            f" {total // _MIB} MiB; boot with cma={wanted // _MIB + 256}M, or lower size in"
            " terntable.dtso and buffer_bytes, then load the design again"
        )
    if free is not None and free < wanted:
        return (
            f"{text}: it takes {wanted // _MIB} MiB of contiguous memory, {free // _MIB} MiB of"
            f" the kernel's {(total or 0) // _MIB} are free; boot again, or with a larger cma=, and"
            " load the design"
        )
    if not (roots.sys / "class" / "u-dma-buf").is_dir():
        return f"{text}, the kernel module u-dma-buf is not loaded: {RELOAD}"
    return f"{text}: {RELOAD}"


def _memory(roots: Roots) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = {}
    for line in (_text(roots.proc / "meminfo") or "").splitlines():
        words = line.split()
        if len(words) == 3 and words[1].isdecimal() and words[2] == "kB":
            found[words[0].rstrip(":")] = 1024 * int(words[1])
    return found


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _number(file: Path) -> int | None:
    """A number of sysfs, decimal or with 0x."""
    try:
        return int(_text(file) or "", 0)
    except ValueError:
        return None


def _owner(file: Path) -> str:
    """Whose a file is, in brackets."""
    try:
        info = file.stat()
        return f" ({file.owner()}:{file.group()}, {stat.filemode(info.st_mode)})"
    except (OSError, KeyError):
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        return f"user {os.getuid()}"
