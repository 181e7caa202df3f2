"""A real Tcl interpreter, wherever there is one: Python's own, or tclsh."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

_PYTHON = """
import sys, tkinter
tcl = tkinter.Tcl()
try:
    tcl.evalfile(sys.argv[1])
except tkinter.TclError as e:
    print(e, file=sys.stderr)
    sys.exit(1)
"""


def interpreter() -> list[str] | None:
    """The command that runs a Tcl file; None where there is none."""
    if tclsh := shutil.which("tclsh"):
        return [tclsh]
    with contextlib.suppress(ImportError):  # a Python may have the module and not its library
        importlib.import_module("tkinter")
        return [sys.executable, "-c", _PYTHON]
    return None


def run_tcl(script: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Tcl file in its folder."""
    command = interpreter()
    assert command is not None
    return subprocess.run(
        [*command, str(script)],
        cwd=script.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
