"""A C driver made of the generated header drives the simulated registers: identity, doorbell,
status, refusal, error, reset."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.image import Image
from terntable.host.model import ModelSpec, random_model
from terntable.host.session import Session
from terntable.hw import isa, regs
from terntable.hw.c_header import c_header
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.sim.accelerator import Simulation, compile_accelerator, design_of
from terntable.sim.dram import DramModel

CONFIG = load_config("test")
SPEC = ModelSpec(
    name="driver", layers=1, hidden=24, ffn=32, heads=2, kv_heads=1, head_dim=8, vocab=40,
    context=64, rope_theta=1e4, eps=1e-5, activation="relu2", attn_sub_norm=True,
    ffn_sub_norm=True,
)  # fmt: skip
IDS = [3, 1, 4, 1, 5, 9]
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Wundef", "-pedantic", "-Werror")
CYCLES_A_POLL = 500

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    (folder / "terntable.h").write_text(c_header(CONFIG))
    return folder


@pytest.fixture(scope="module")
def image() -> Image:
    return compile_model(random_model(SPEC, seed=8), CONFIG)


@pytest.fixture
def simulation(image: Image) -> Iterator[Simulation]:
    """The accelerator with the image and the rows of IDS in its memory."""
    model = compile_accelerator(CONFIG, design_of(CONFIG))
    with tempfile.TemporaryFile() as memory:
        memory.truncate(image.size)
        memory.write(image.data.tobytes())
        memory.seek(image.regions["input"].offset)
        memory.write(image.embed(IDS).tobytes())
        memory.flush()
        simulation = Simulation(
            model, memory=memory.fileno(), clock_hz=CONFIG.clock_hz, dram=DramModel()
        )
        yield simulation
        simulation.close()


def serve(program: list[str], simulation: Simulation) -> list[str]:
    """What the program printed, its register accesses served."""
    said = []
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(program, text=True, bufsize=1, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        for line in process.stdout:
            kind, *words = line.split()
            if kind == "w":
                simulation.write_registers([(int(words[0]), int(words[1]))])
            elif kind == "r":
                if int(words[0]) == regs.ADDRESS["STATUS"]:
                    simulation.run(CYCLES_A_POLL)
                process.stdin.write(f"{simulation.read_registers([int(words[0])])[0]}\n")
            else:
                said.append(line.removeprefix("= ").strip())
    assert process.returncode == 0
    return said


@needs_gcc
@pytest.mark.xdist_group("test-rtl")
def test_a_driver_of_the_header(folder: Path, image: Image, simulation: Simulation) -> None:
    source, program = Path(__file__).parent / "data" / "driver.c", folder / "driver"
    build = ["gcc", "-std=c99", *STRICT, f"-I{folder}", "-o", str(program), str(source)]
    subprocess.run(build, check=True)
    with EmulatorDevice(CONFIG) as emulator:
        argmax = int(np.argmax(Session(emulator, image).call(IDS)[0]))
    base = DramModel().base
    facts = [base, image.size, image.write_base, image.program]
    said = serve([str(program), *map(str, facts)], simulation)
    done, error = regs.Status.DONE.value, regs.Status.ERROR.value
    refused = regs.ERROR_MEANINGS[regs.Error.START_WHILE_BUSY]
    fence = regs.ERROR_MEANINGS[regs.Error.READ_FENCE]
    assert said[0] == "identify 0"
    assert said[1:3] == [f"first status {done} argmax {argmax}", "cleared 0"]
    assert said[3].startswith(f"busy: {refused}, sequencer at ")
    assert said[4] == f"went on {done}"
    assert said[5].startswith(f"fenced status {error} ")
    assert said[6] == f"fence: {fence}, program at {image.program}"
    assert said[7:9] == [f"kept {error}", "reset 0"]
    assert said[9] == f"again status {done} argmax {argmax}"
    encoded = isa.encode(
        isa.Op.LOAD, isa.wait_mask(isa.Unit.VECTOR), dest=isa.Dest.GAIN, address=0x12345678,
        row_bytes=0xFFFFFFFF, ew=77, count=3,
    )  # fmt: skip
    words = struct.unpack(f"<{isa.COMMAND_WORDS}I", encoded)
    assert said[10:] == [f"command {' '.join(map(str, words))}"]


@needs_gcc
@pytest.mark.parametrize("language", [("c", "c99"), ("c", "c17"), ("c++", "c++11")])
def test_the_header_alone_compiles_without_a_warning(
    folder: Path, language: tuple[str, str]
) -> None:
    options = [*STRICT, "-ffreestanding", f"-std={language[1]}", "-x", language[0]]
    source = '#include "terntable.h"\n#include "terntable.h"\n'
    subprocess.run(
        ["gcc", *options, f"-I{folder}", "-fsyntax-only", "-"], input=source, text=True, check=True
    )


def test_the_header_has_every_number(folder: Path) -> None:
    """As macros, with the values that gateware and host have."""
    text = (folder / "terntable.h").read_text()
    defined = dict(re.findall(r"^#define (TERNTABLE_\w+) (.+)$", text, re.M))
    value = {n: int(v.split("u")[0], 0) for n, v in defined.items() if re.match(r"\w+u\b", v)}
    for register in regs.REGISTERS:
        assert value[f"TERNTABLE_{register.name}"] == register.address
    for kind in (regs.Status, regs.Control, regs.Error):
        for member in kind:
            assert value[f"TERNTABLE_{kind.__name__}_{member.name}".upper()] == member.value
    assert value["TERNTABLE_CONFIG_HASH_VALUE"] == CONFIG.hash
    assert value["TERNTABLE_CONFIG_CHUNK"] == CONFIG.chunk
    fields = {n for n in defined if n.startswith("TERNTABLE_FIELD_")}
    assert len(fields) == len(isa.HEADER) + sum(map(len, isa.FIELDS.values()))


def test_the_header_of_another_configuration_differs() -> None:
    other = AcceleratorConfig.model_validate(CONFIG.model_dump() | {"chunk": 8})
    assert c_header(other) != c_header(CONFIG)
