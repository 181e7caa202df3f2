"""Compiles Verilog with Verilator to a program that cocotb drives, and caches it by content.

The key of a model is a hash of its sources, its options and the versions of all tools. Builds
happen in a private folder that is renamed when complete, under a lock, so any number of processes
may ask for the same model.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from terntable.sim import toolchain
from terntable.sim.toolchain import Toolchain

Progress = Callable[[str], None]

KEEP = 250
"""Compiled models that stay in the cache, and designs; the least recently used ones go. More than
all tests make."""

# A build only has to work: what Verilator thinks of the sources is asked in sim/lint.py.
_QUIET = (
    "-Wno-fatal",
    "-Wno-WIDTH",
    "-Wno-UNUSED",
    "-Wno-UNOPTFLAT",
    "-Wno-CASEINCOMPLETE",
    "-Wno-TIMESCALEMOD",
    "-Wno-DECLFILENAME",
)
_RUNTIME = ("verilated", "verilated_dpi", "verilated_vpi", "verilated_threads")


class BuildError(RuntimeError):
    """Verilator or the compiler refused the sources; the text ends with the log's tail."""


@dataclass(frozen=True)
class Sources:
    """What a model is made of.

    `verilog` maps file names to texts, `cpp` to texts too (compiled and linked in; headers are
    those not ending in .cpp). `vlt` is a Verilator configuration file.
    With `public_ports` every port and signal of `top` is visible to cocotb; without it only what
    the sources mark public. `options` are given to Verilator after all others. With `quick` the
    program is compiled in half the time and runs several times slower; it writes no waves. With
    `thorough` it is compiled in a third more and runs a third faster.
    """

    top: str
    verilog: dict[str, str]
    cpp: dict[str, str] = field(default_factory=dict)
    vlt: str = ""
    defines: dict[str, str] = field(default_factory=dict)
    public_ports: bool = True
    trace: bool = False
    quick: bool = False
    thorough: bool = False
    options: tuple[str, ...] = ()

    def key(self, tools: Toolchain) -> str:
        fields = {k: v for k, v in self.__dict__.items() if v or k not in ("options", "thorough")}
        text = json.dumps([_RECIPE, tools.version, fields], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


_RECIPE = 1
"""Raised when this file makes another program of the same sources."""


def compile_model(sources: Sources, progress: Progress | None = None) -> Path:
    """The folder of the compiled model, with the program `model` in it.

    `progress` receives a line before a step that takes time; nothing when the model is cached.
    Raises UserError when tools are missing and BuildError when the sources do not compile.
    """
    tools = toolchain.find()
    models = toolchain.cache_folder() / "models"
    models.mkdir(exist_ok=True)
    folder = models / sources.key(tools)
    if _hit(folder):
        return folder
    with _lock(models / f"{folder.name}.lock"):
        if _hit(folder):
            return folder
        say = progress or (lambda text: None)
        runtime = _runtime(tools, sources.trace, say)
        build = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=models))
        try:
            _build(sources, tools, runtime, build, say)
            with contextlib.suppress(OSError):
                shutil.rmtree(build / "obj")
            build.rename(folder)
        except BaseException:
            shutil.rmtree(build, ignore_errors=True)
            raise
    prune(models)
    return folder


def _hit(folder: Path) -> bool:
    if not (folder / "model").is_file():
        return False
    with contextlib.suppress(OSError):
        os.utime(folder)  # for prune
    return True


def _build(s: Sources, tools: Toolchain, runtime: Path, folder: Path, say: Progress) -> None:
    import cocotb_tools.config

    main = Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / "verilator.cpp"
    libs = cocotb_tools.config.libs_dir
    link = [f"-Wl,-rpath,{libs}", f"-L{libs}", "-lcocotbvpi_verilator"]
    for name, text in (s.verilog | s.cpp).items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "model.vlt").write_text(configuration_file(s.vlt), encoding="utf-8")
    command = [
        tools.verilator, "--cc", "--exe", "--vpi", "--prefix", "Vtop", "--top-module", s.top,
        "-o", "../model", "-Mdir", "obj", "--no-timing", "--timescale", "1ns/1ps",
        "--x-assign", "fast", "--x-initial", "fast", *_QUIET,
        *(["--public-depth", "1"] if s.public_ports else []),
        *(["--trace-fst"] if s.trace else []),
        *(["--assert"] if any(" assert (" in text for text in s.verilog.values()) else []),
        *(f"-D{name}={value}" for name, value in sorted(s.defines.items())),
        *s.options,
        "-LDFLAGS", " ".join(link),
        str(main), "model.vlt", *s.verilog, *(n for n in s.cpp if n.endswith(".cpp")),
    ]  # fmt: skip
    log = folder / "build.log"
    size = sum(map(len, s.verilog.values())) / 1e6
    say(f"Verilator reads {size:.1f} MB of Verilog")
    _step(command, tools, log, folder, "Verilator")
    say("compiling the simulation")
    library = str(runtime / "libverilated.a")
    if s.quick:
        # As one translation unit: the headers of a part take as long as the part.
        cpp = [main, *sorted((folder / "obj").glob("*.cpp"))]
        cpp += [folder / name for name in s.cpp if name.endswith(".cpp")]
        text = "".join(f'#include "{file}"\n' for file in cpp)
        (folder / "obj" / "all.cpp").write_text(text, encoding="utf-8")
        flags = ["-O0", "-I.", "-Iobj", *_model_flags(tools)]
        command = [tools.cxx, *flags, "obj/all.cpp", library, *link, "-o", "model"]
    else:
        command = [
            tools.make, "-j2", "-C", "obj", "-f", "Vtop.mk", "VM_GLOBAL_FAST=", "VM_GLOBAL_SLOW=",
            f"USER_LDLIBS={library}", f"USER_LDFLAGS=-L{runtime}",
            f"OPT_FAST={'-O2' if s.thorough else '-O1'}",
        ]  # fmt: skip
    _step(command, tools, log, folder, "the C++ compiler")


def configuration_file(lines: str) -> str:
    """A Verilator configuration file of these lines; its first line may be there already."""
    first = "`verilator_config"
    return f"{lines}\n" if lines.lstrip().startswith(first) else f"{first}\n{lines}\n"


def _step(command: list[str], tools: Toolchain, log: Path, folder: Path, what: str) -> None:
    # The compiler's temporary files go with the folder when it is killed.
    env = tools.env() | {"TMPDIR": str(folder)}
    status = toolchain.run_logged(command, log=log, env=env, cwd=folder)
    if status:
        raise BuildError(f"{what} failed (status {status}):\n{tail(log)}")


def tail(log: Path, lines: int = 40) -> str:
    """The last lines of a log file."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as e:
        return f"(no log: {e})"


def _runtime(tools: Toolchain, trace: bool, say: Progress) -> Path:
    """The folder of Verilator's run-time library, compiled once for all models."""
    codec = {name: _resource(name) for name in ("codec.h", "codec.cpp")} if trace else {}
    text = json.dumps([_RECIPE, tools.version, codec])
    folder = toolchain.cache_folder() / f"runtime-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    with _lock(folder.with_suffix(".lock")):
        if folder.is_dir():
            return folder
        say("compiling Verilator's run-time library (once)")
        build = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _build_runtime(tools, codec, build)
            build.rename(folder)
        except BaseException:
            shutil.rmtree(build, ignore_errors=True)
            raise
    return folder


def _build_runtime(tools: Toolchain, codec: dict[str, str], folder: Path) -> None:
    trace = int(bool(codec))
    include = Path(tools.root) / "include"
    files = [str(include / f"{name}.cpp") for name in _RUNTIME]
    if trace:
        for name, text in codec.items():
            (folder / name).write_text(text, encoding="utf-8")
        # The waveform writer asks for two libraries: codec.cpp has what it calls of them.
        for name in ("lz4.h", "zlib.h"):
            (folder / name).write_text('#include "codec.h"\n', encoding="utf-8")
        files += [str(include / "verilated_fst_c.cpp"), "codec.cpp"]
    flags = ["-O1", f"-I{folder}", *_model_flags(tools, trace)]
    log = folder / "build.log"
    objects = []
    for file in files:
        objects.append(f"{Path(file).stem}.o")
        command = [tools.cxx, *flags, "-c", file, "-o", objects[-1]]
        _step(command, tools, log, folder, "the C++ compiler")
    _step([tools.ar, "rcs", "libverilated.a", *objects], tools, log, folder, "ar")
    for name in ("liblz4.a", "libz.a"):
        _step([tools.ar, "rcs", name], tools, log, folder, "ar")
    for name in objects:
        (folder / name).unlink()


def _model_flags(tools: Toolchain, trace: int = 0) -> list[str]:
    """What the compiler needs for Verilator's sources and for those that it writes."""
    include = Path(tools.root) / "include"
    return [
        f"-I{include}", f"-I{include / 'vltstd'}", "-DVERILATOR=1", "-DVM_COVERAGE=0", "-DVM_SC=0",
        "-DVM_TIMING=0", f"-DVM_TRACE={trace}", f"-DVM_TRACE_FST={trace}", "-DVM_TRACE_VCD=0",
        "-DVM_TRACE_SAIF=0",
    ]  # fmt: skip


def _resource(name: str) -> str:
    return resources.files("terntable.sim").joinpath(name).read_text(encoding="utf-8")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prune(cache: Path) -> None:
    """Remove what was used least recently from a folder of the cache, folders and files, and what
    builds that were killed have left."""
    with contextlib.suppress(OSError):
        for left in cache.glob(".*"):
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left, ignore_errors=True)
        entries = [e for e in cache.iterdir() if e.suffix != ".lock" and e.name[0] != "."]
        entries.sort(key=lambda e: e.stat().st_mtime)
        for entry in entries[:-KEEP]:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
                entry.with_name(f"{entry.name}.lock").unlink(missing_ok=True)
            else:
                entry.unlink(missing_ok=True)
