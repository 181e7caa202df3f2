"""The prover's verdicts, on a counter and a width converter."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from amaranth import Module, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib.wiring import Component, Out

from terntable.hw.axi.width import WidthConverter
from terntable.hw.errors import UserError
from terntable.sim import formal
from terntable.sim.formal import Bench, Mode, Outcome, ProverError, check

pytestmark = pytest.mark.formal

# A product of primes: a solver takes longer over its factors than anybody waits.
HARD = """
from amaranth.hdl import Assert
from terntable.sim.formal import Bench, Mode, check
b = Bench()
a, c = b.free(40, "a"), b.free(40, "c")
b.m.d.comb += Assert((a * c != 720268726741 * 839299059323) | (a == 1) | (c == 1))
print(check(b, Mode.BOUNDED, 1, timeout=TIMEOUT).outcome.value)
"""


class Twin(Component):
    """Two registers that both count to ten and begin anew."""

    def __init__(self):
        super().__init__({"count": Out(4)})

    def elaborate(self, platform):
        m = Module()
        copy = Signal(4)
        for register in (self.count, copy):
            m.d.sync += register.eq(register + 1)
            with m.If(register == 9):
                m.d.sync += register.eq(0)
        return m


def twin(claim, strengthened=True):
    b = Bench(strengthened=strengthened)
    b.m.submodules.dut = dut = Twin()
    copy = b.probe("dut.copy", 4)
    b.m.d.comb += b.invariant(dut.count == copy)
    b.m.d.comb += claim(dut.count, copy)
    return b


def test_a_proof_and_its_invariant():
    def never_above_nine(count, copy):
        return Assert((count <= 9) & (count == copy))

    assert check(twin(never_above_nine), Mode.PROVE, 1).outcome is Outcome.PASS

    # Not inductive alone: the copy may be anything to begin with.
    def never_eleven(count, copy):
        return Assert(copy + count != 22)

    assert check(twin(never_eleven), Mode.PROVE, 1).outcome is Outcome.UNKNOWN
    assert check(twin(never_eleven), Mode.BOUNDED, 12).outcome is Outcome.PASS


def test_a_counterexample_names_the_line(tmp_path: Path):
    def never_seven(count, copy):
        return Assert(count != 7)

    waves = tmp_path / "seven.vcd"
    verdict = check(twin(never_seven), Mode.BOUNDED, 12, waves=waves)
    assert verdict.outcome is Outcome.FAIL
    line = never_seven.__code__.co_firstlineno + 1
    assert f"test_formal.py:{line}" in str(verdict)
    assert "count" in waves.read_text()
    # It takes eight cycles.
    assert check(twin(never_seven), Mode.BOUNDED, 7).outcome is Outcome.PASS


def test_what_cannot_be_reached():
    def reaches(value):
        return lambda count, copy: Cover(count == value)

    assert check(twin(reaches(9)), Mode.COVER, 12).outcome is Outcome.PASS
    verdict = check(twin(reaches(12)), Mode.COVER, 12)
    assert verdict.outcome is Outcome.FAIL and "Unreached" in str(verdict)


def test_before_does_not_depend_on_where_it_is_written():
    b = Bench()
    b.m.submodules.dut = dut = Twin()
    with b.m.If(dut.count == 5):
        b.m.d.comb += Assert(b.before(dut.count) == 4)
    assert check(b, Mode.BOUNDED, 8).outcome is Outcome.PASS


@pytest.mark.parametrize("invert", (False, True))
def test_combinational_paths(invert):
    def outcome(output, of):
        b = Bench()
        b.m.submodules.dut = dut = WidthConverter(2, 4)
        ready = b.free(1, "ready")
        b.m.d.comb += [
            dut.o.ready.eq(~ready if invert else ready),
            dut.clear.eq(b.free(1, "clear")),
            dut.i.valid.eq(b.free(1, "valid")),
            Assert(1),
        ]
        b.independent(output(dut), of=of(dut))
        return check(b, Mode.BOUNDED, 1)

    # `i.ready` follows `o.ready`, as its contract says; valid does not.
    followed = outcome(lambda d: d.i.ready, lambda d: d.o.ready)
    assert followed.outcome is Outcome.FAIL and "depends on" in str(followed)
    assert outcome(lambda d: d.o.valid, lambda d: d.o.ready).outcome is Outcome.PASS


def test_a_probe_of_nothing_is_an_error():
    b = Bench()
    b.m.submodules.dut = Twin()
    b.m.d.comb += Assert(b.probe("dut.missing", 4) == 0)
    with pytest.raises(ProverError, match=r"dut\.missing"):
        check(b, Mode.BOUNDED, 1)


def test_a_missing_solver_is_named(monkeypatch):
    monkeypatch.setattr(formal, "SOLVER_PROGRAM", "no-such-solver")
    with pytest.raises(UserError, match=r"no-such-solver is missing"):
        check(twin(lambda count, copy: Assert(1)), Mode.BOUNDED, 1)


def solvers_of(pid: int) -> set[int]:
    """Solvers among the descendants of a process."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, rest = (entry / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            parents[int(entry.name)] = (int(rest.split()[1]), name)
    found, todo = set(), {pid}
    while todo:
        todo = {child for child, (parent, _) in parents.items() if parent in todo}
        found |= {child for child in todo if parents[child][1] == formal.SOLVER_PROGRAM}
    return found


def wait(condition, seconds: float = 60):
    """The first true value of a condition; the last one after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return value


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's promise on Linux")
@pytest.mark.parametrize("how", ("time limit", "kill"))
def test_solvers_end(how):
    """At the time limit, and when the process that wants the answer dies."""
    limit = 5 if how == "time limit" else 300
    process = subprocess.Popen(
        [sys.executable, "-c", HARD.replace("TIMEOUT", str(limit))],
        stdout=subprocess.PIPE,
        text=True,
    )
    solvers = wait(lambda: solvers_of(process.pid))
    assert solvers
    if how == "kill":
        process.kill()
    output, _ = process.communicate(timeout=60)
    assert output == ("timeout\n" if how == "time limit" else "")
    assert wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in solvers))
