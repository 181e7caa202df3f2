"""One layer on an accelerator whose registers and memories begin with unknown contents.

Verilator has two states, so an unknown bit is a random one: results that are the same for every
seed do not depend on it. Icarus Verilog has four, and runs where it is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.devices.sim import SimDevice
from terntable.host.image import Image
from terntable.host.model import ModelSpec, random_model
from terntable.host.session import Session
from terntable.hw import regs
from terntable.hw.config import load_config
from terntable.sim.accelerator import design_of
from terntable.sim.power_up import without_initial_values

CONFIG = load_config("test")
SPEC = ModelSpec(
    name="layer", layers=1, hidden=20, ffn=28, heads=2, kv_heads=1, head_dim=8, vocab=37,
    context=64, rope_theta=1e4, eps=1e-5, activation="relu2", attn_sub_norm=True,
    ffn_sub_norm=True,
)  # fmt: skip
PROMPT = [3, 1, 4, 1, 5]
"""Two chunks."""


@pytest.fixture(scope="module")
def image() -> Image:
    return compile_model(random_model(SPEC, seed=1), CONFIG)


@pytest.mark.xdist_group("power-up")
def test_random_contents_change_nothing(image: Image) -> None:
    with EmulatorDevice(CONFIG) as emulator:
        session = Session(emulator, image)
        logits = [session.call(ids)[0].tobytes() for ids in (PROMPT, [7])]
        memory = emulator.read(0, image.size)
    cycles = []
    for seed in range(1, 13):
        with SimDevice(CONFIG, power_up=seed, stress_seed=None if seed < 9 else 5) as device:
            session = Session(device, image)
            got = [session.call(ids) for ids in (PROMPT, [7])]
            assert [row.tobytes() for row, _ in got] == logits, f"seed {seed}"
            assert device.read(0, image.size) == memory, f"seed {seed}"
            cycles.append([cost.cycles for _, cost in got])
    # Neither when something happens depends on them, with a steady memory or a stalling one.
    assert all(c == cycles[0] for c in cycles[:8]), cycles
    assert all(c == cycles[8] for c in cycles[8:]), cycles


# ---------------------------------------------------------------- four states

icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog is not installed"
)
BENCH = Path(__file__).parent / "icarus" / "bench.sv"


def with_known_kv(verilog: str) -> str:
    """The buffers of K and V begin with random bits: a position that isn't there has the weight 0,
    and 0 times an unknown number is unknown to a four-state simulator, but 0 in every device."""
    at = verilog.index("module \\terntable.core.attention.blocks ")
    unit = verilog[at : verilog.index("endmodule", at)]
    for name in sorted(set(re.findall(r"\\(terntable\.memory\.\S+)", unit))):
        at = verilog.index(f"module \\{name} ")
        end = verilog.index("endmodule", at)
        size = re.search(r"reg \[(\d+):0\] contents \[0:(\d+)\];", verilog[at:end])
        assert size
        words = (int(size[1]) + 32) // 32
        loop = f"for (i = 0; i <= {size[2]}; i = i + 1)"
        fill = f"  integer i;\n  initial {loop} contents[i] = {{{words}{{$random}}}};\n"
        verilog = verilog[:end] + fill + verilog[end:]
    return verilog


def four_states(image: Image, verilog: str, folder: Path) -> str:
    """Run PROMPT in Icarus Verilog: what it prints; memory in `folder`/result.hex."""
    memory = np.zeros(image.size, np.uint8)
    memory[: image.data.size] = image.data
    at, rows = image.regions["input"].offset, image.embed(PROMPT).view(np.uint8).reshape(-1)
    memory[at : at + rows.size] = rows
    writes = {
        "BASE_LO": 0, "BASE_HI": 0, "LIMIT": image.size, "WRITE_BASE": image.write_base,
        "PROGRAM": image.program, "IRQ_ENABLE": 1, "TOKENS": len(PROMPT), "POSITION": 0,
        "CHUNK": CONFIG.chunk, "CONTROL": 1,
    }  # fmt: skip
    reads = [regs.ADDRESS[name] for name in ("STATUS", "ARGMAX", "ARGMAX_LOGIT", "CYCLES")]
    files = {
        "memory.hex": [f"{word:08x}" for word in memory.view("<u4")],
        "writes.hex": [f"{regs.ADDRESS[name]:02x}{value:08x}" for name, value in writes.items()],
        "reads.hex": [f"{address:02x}" for address in reads],
        "terntable.v": [with_known_kv(verilog)],
    }
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    sizes = {"WORDS": image.size // 4, "WRITES": len(writes), "READS": len(reads), "LIMIT": 20_000}
    subprocess.run(
        [
            "iverilog", "-g2012", "-s", "bench", "-o", "bench.vvp",
            f"-DBUS_BITS={CONFIG.bus_bits}", *(f"-DPORT{n}" for n in range(1, CONFIG.ports)),
            *(f"-Pbench.{name}={value}" for name, value in sizes.items()),
            str(BENCH), "terntable.v",
        ],
        cwd=folder, check=True,
    )  # fmt: skip
    return subprocess.run(
        ["vvp", "-n", "bench.vvp"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


@icarus
def test_four_states_give_the_same_result(image: Image, tmp_path: Path) -> None:
    said = four_states(image, without_initial_values(design_of(CONFIG).verilog), tmp_path)
    assert said.splitlines()[-1] == "finished", said
    with EmulatorDevice(CONFIG) as emulator:
        logits, cost = Session(emulator, image).call(PROMPT)
        expected = np.frombuffer(emulator.read(0, image.size), "<u4")
    words = [w for w in (tmp_path / "result.hex").read_text().split("\n") if w and w[0] != "/"]
    assert words == [f"{word:08x}" for word in expected]
    status, argmax, logit, cycles = re.findall(r"^register \w+ (\w+)$", said, re.M)
    assert int(status, 16) == regs.Status.DONE
    assert (int(argmax, 16), int(logit, 16)) == (
        cost.argmax,
        int(logits.view(np.uint32)[cost.argmax]),
    )
    assert int(cycles, 16) > 0


@icarus
def test_four_states_show_a_register_without_reset(image: Image, tmp_path: Path) -> None:
    text = without_initial_values(design_of(CONFIG).verilog)
    at = text.index("module \\terntable.core.sequencer ")
    unit = text[at : text.index("endmodule", at)]
    # Whether a call is in progress: the last reset of a register is an `if` around one value.
    state = re.search(r"^ +fsm_state <= (\S+) ;$", unit, re.M)
    assert state
    reset = rf"^ +if \((?:rst|reset_units)\) begin\n +{re.escape(state[1])}  = \S+;\n +end\n"
    broken, count = re.subn(reset, "", unit, flags=re.M)
    assert count == 2
    said = four_states(image, text.replace(unit, broken), tmp_path)
    assert "x: " in said or "no interrupt" in said
