"""Compiles and starts the simulation of a whole accelerator, and talks to it (see server.py)."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError
from terntable.sim import build, toolchain
from terntable.sim.build import Progress
from terntable.sim.dram import DramModel
from terntable.sim.harness import cocotb_env
from terntable.sim.power_up import VERILATOR_OPTIONS, model_options, without_initial_values

PROGRESS_SECONDS = 1.0
"""Wall time between two reports of a running call."""

_CPP = ("dram.cpp", "protocol.cpp", "protocol.h", "pins.h")


@dataclass(frozen=True)
class Design:
    """Verilog with the flat module `terntable`, and lines for Verilator's configuration file."""

    verilog: str
    vlt: str = ""


def gateware_digest(config: AcceleratorConfig) -> str:
    """A hash of all that the Verilog of a configuration is made of: another digest need not mean
    other Verilog. Raises UserError when Amaranth is missing."""
    import terntable.hw

    digest = hashlib.sha256(config.model_dump_json().encode())
    try:
        digest.update(metadata.version("amaranth").encode())
    except metadata.PackageNotFoundError:
        raise UserError(
            "Amaranth is missing: install the generator's packages (pip install 'terntable[hw]')"
        ) from None
    for folder in terntable.hw.__path__:
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:24]


def design_of(config: AcceleratorConfig, progress: Progress | None = None) -> Design:
    """The generated Verilog of a configuration for simulation, cached by the gateware's sources."""
    name = f"{config.name}-{gateware_digest(config)}.json"
    cached = toolchain.cache_folder() / "verilog" / name
    with contextlib.suppress(OSError, ValueError, TypeError):
        design = Design(**json.loads(cached.read_text(encoding="utf-8")))
        os.utime(cached)  # for prune
        return design
    if progress:
        progress(f"generating the Verilog of {config.name}")
    generated = importlib.import_module("terntable.hw.generate").generate(config)
    design = Design(generated.simulation, generated.vlt)
    cached.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".") as folder:
        file = Path(folder) / cached.name
        file.write_text(json.dumps(design.__dict__), encoding="utf-8")
        file.replace(cached)
    build.prune(cached.parent)
    return design


def compile_accelerator(
    config: AcceleratorConfig,
    design: Design,
    *,
    trace: bool = False,
    power_up: bool = False,
    quick: bool = False,
    thorough: bool = False,
    progress: Progress | None = None,
) -> Path:
    """The compiled model's folder. With `power_up` its registers and memories begin with contents
    that are chosen when it starts. With `quick` it is compiled in half the time and runs slower,
    for runs of under a hundred thousand cycles; with `thorough` the other way round, for millions.
    Raises as `build.compile_model`."""
    files = {
        name: resources.files("terntable.sim").joinpath(name).read_text(encoding="utf-8")
        for name in ("tb.sv", *_CPP)
    }
    defines = {
        "PORTS": str(config.ports),
        "BUS_BITS": str(config.bus_bits),
        "BURST_BEATS": str(config.burst_beats),
    }
    defines |= {f"PORT{n}": "1" for n in range(1, config.ports)}
    verilog = without_initial_values(design.verilog) if power_up else design.verilog
    sources = build.Sources(
        top="tb",
        verilog={"terntable.v": verilog, "tb.sv": files["tb.sv"]},
        cpp={name: files[name] for name in _CPP},
        vlt=design.vlt,
        defines=defines,
        public_ports=False,
        trace=trace,
        quick=quick and not trace,
        thorough=thorough,
        options=VERILATOR_OPTIONS if power_up else (),
    )
    return build.compile_model(sources, progress)


_BROKEN = "AXI protocol: "
"""How a line of the simulator's log begins that tells of a broken protocol."""


class SimulationError(RuntimeError):
    """The simulator refused a request, or died. `registers` holds what its watchdog read."""

    def __init__(self, text: str, registers: dict[str, int] | None = None) -> None:
        super().__init__(text)
        self.registers = registers or {}


class Simulation:
    """A running simulator.

    `memory` is an open file that becomes the DRAM's contents, shared with the caller. The process
    ends when `close` is called, when the caller's process dies, or when its socket closes. It is
    in a session of its own: Ctrl-C reaches the caller only. `power_up` is the seed of a model
    that was compiled for it.
    """

    def __init__(
        self,
        model: Path,
        *,
        memory: int,
        clock_hz: int,
        dram: DramModel,
        waves: Path | None = None,
        power_up: int | None = None,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._clock_hz = clock_hz
        self._settings = dram.settings(clock_hz)
        host, server = socket.socketpair()
        env = cocotb_env("tb", "terntable.sim.server", [])
        env |= {
            "TERNTABLE_SIM_FD": str(server.fileno()),
            "TERNTABLE_SIM_PERIOD": str(2 * round(5e11 / clock_hz)),
            "TERNTABLE_DRAM_FD": str(memory),
            "TERNTABLE_DRAM": self._settings,
            "COCOTB_RESULTS_FILE": os.devnull,
            "COCOTB_RANDOM_SEED": "1",
            "COCOTB_LOG_LEVEL": "WARNING",
            "GPI_LOG_LEVEL": "WARNING",
            "COCOTB_REWRITE_ASSERTION_FILES": "",
        }
        command = [str(model / "model")]
        if waves is not None:
            command += ["--trace", "--trace-file", str(waves)]
        if power_up is not None:
            command += model_options(power_up)
        with server:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=env,
                pass_fds=(server.fileno(), memory),
                start_new_session=True,
                preexec_fn=toolchain.dies_with_parent(),
            )
        self._link = host
        self._lines = host.makefile("rb")
        self.cycle = 0
        self._waves = waves

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def write_registers(self, registers: Iterable[tuple[int, int]]) -> None:
        """Write (address, value) pairs in order."""
        self._request(op="write", registers=list(registers))

    def read_registers(self, addresses: Sequence[int]) -> list[int]:
        return self._request(op="read", addresses=list(addresses))["values"]

    def wait(self, budget: int, stuck: int, progress: Callable[[int], None] | None = None) -> None:
        """Run until the interrupt, at most `budget` cycles, at most `stuck` without progress.

        `progress` is called every PROGRESS_SECONDS with the cycles that have gone by.
        """
        began, again, running = self.cycle, False, True
        seconds = PROGRESS_SECONDS if progress else 1e9
        while running:
            answer = self._request(
                op="wait", budget=budget, stuck=stuck, seconds=seconds, again=again
            )
            running, again = answer["running"], True
            if progress:
                progress(self.cycle - began)

    def reset(self, dram: DramModel | None = None) -> None:
        """A hardware reset. The memory keeps its contents; `dram` replaces its behaviour."""
        if dram is not None:
            self._settings = dram.settings(self._clock_hz)
        self._request(op="reset", dram=self._settings)

    def run(self, cycles: int) -> None:
        """Let time pass."""
        self._request(op="run", cycles=cycles)

    def log(self, lines: int = 30) -> str:
        """The last lines that the simulator printed."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-lines:])

    def _request(self, **request: Any) -> dict[str, Any]:
        if self._process is None:
            raise SimulationError("the simulation is closed")
        try:
            self._link.sendall(json.dumps(request).encode() + b"\n")
            line = self._lines.readline()
        except OSError:
            line = b""
        except BaseException:
            # Interrupted: the answer would be taken for that of the next request.
            self.close(at_once=True)
            raise
        if not line:
            status = self._process.wait()
            raise SimulationError(f"the simulator died (status {status})\n{self.log()}".rstrip())
        answer = json.loads(line)
        self.cycle = answer["cycle"]
        if "error" in answer:
            log = self.log()
            broken = [line for line in log.splitlines() if line.startswith(_BROKEN)]
            text = answer["error"] + (f"\n{log}" if log else "")
            raise SimulationError(broken[-1] if answer.get("broken") else text, answer["registers"])
        return answer

    def close(self, at_once: bool = False) -> None:
        """End the simulator. `at_once` leaves no time to complete the waves: they are removed."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(OSError):
            if not at_once:
                self._link.sendall(b'{"op": "quit"}\n')
        self._link.close()
        self._lines.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            if not at_once:
                process.wait(60 if self._waves else 5)
        toolchain.end_group(process)
        self._log.close()
        if at_once and self._waves is not None and self._waves.is_file():
            self._waves.unlink(missing_ok=True)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close(at_once=True)
