"""The generated Verilog in Verilator, with the DRAM of the image behind it."""

from __future__ import annotations

import mmap
import struct
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from terntable.host.devices.base import (
    WATCHDOG_CYCLES,
    CallResult,
    Device,
    DeviceError,
    check_image,
    check_room,
)
from terntable.host.image import Image
from terntable.hw import isa, regs
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError
from terntable.hw.limits import violation
from terntable.hw.regs import Control

if TYPE_CHECKING:
    from terntable.sim import accelerator
    from terntable.sim.dram import DramModel

COUNTERS = {
    "fetch": "CYCLES_FETCH",
    "load": "CYCLES_LOAD",
    "vector": "CYCLES_VECTOR",
    "linear": "CYCLES_LINEAR",
    "attention": "CYCLES_ATTENTION",
    "weight_wait": "CYCLES_WEIGHT_WAIT",
    "read_beats": "READ_BEATS",
    "write_beats": "WRITE_BEATS",
}

T = TypeVar("T")


def _first_error(log: str) -> str:
    """The first line of a failed build's text, and the first error in the log below it."""
    what, *lines = log.splitlines()
    error = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    return f"{what} {error.strip()}"


class SimDevice(Device):
    """Runs the register-transfer level of a configuration, clock by clock.

    The model is compiled when the device is made (once per content, see sim/build.py); `status`
    receives a line before steps that take time. `dram` replaces the memory's parameters and
    `stress_seed` makes it stall at random. `waves` names an FST file that `close` completes.
    `verilog` replaces the generated design (a text, or an object with `verilog` and `vlt`).
    `power_up` is a seed, from 1: registers and memories begin with random contents instead of the
    initial values that an FPGA loads, to find what is read before it is written. `quick` shortens
    the compilation for the price of a slower simulation, `thorough` is the opposite.

    A call ends with DeviceError when it takes over `budget` cycles, or when bus and units do not
    get on for `stuck` cycles: that is the accelerator's watchdog, and the simulator has another
    for designs whose own fails.
    """

    name = "sim"
    on_cycle: Callable[[int], None] | None = None
    """Called about once a second while a call runs, with the cycles that it has taken."""

    def __init__(
        self,
        config: AcceleratorConfig,
        *,
        waves: Path | str | None = None,
        stress_seed: int | None = None,
        dram: DramModel | None = None,
        verilog: Any = None,
        power_up: int | None = None,
        quick: bool = False,
        thorough: bool = False,
        budget: int = 10**12,
        stuck: int | None = None,
        status: Callable[[str], None] | None = None,
    ) -> None:
        from terntable.sim import accelerator
        from terntable.sim.build import BuildError
        from terntable.sim.dram import DramModel

        self.config = config
        self._dram = dram or DramModel()
        if stress_seed is not None:
            self._dram = replace(self._dram, stress_seed=stress_seed)
        self._waves = Path(waves).absolute() if waves is not None else None
        if self._waves is not None and not self._waves.parent.is_dir():
            raise UserError(f"no folder {str(self._waves.parent)!r} for the waves")
        self._power_up = power_up
        self._budget = budget
        self._stuck = WATCHDOG_CYCLES if stuck is None else stuck
        # The simulator sees registers only. A tile of weights may be swept for all token groups
        # before one of them changes.
        groups = -(-config.chunk // config.tokens)
        self._patience = 2 * (self._stuck + config.weight_depth * groups)
        if verilog is None:
            design = accelerator.design_of(config, status)
        elif isinstance(verilog, str):
            design = accelerator.Design(verilog)
        else:
            design = accelerator.Design(verilog.verilog, verilog.vlt)
        try:
            self._model = accelerator.compile_accelerator(
                config,
                design,
                trace=waves is not None,
                power_up=power_up is not None,
                quick=quick,
                thorough=thorough,
                progress=status,
            )
        except BuildError as e:
            raise DeviceError(_first_error(str(e))) from e
        self._simulation: accelerator.Simulation | None = None
        self._memory: mmap.mmap | None = None
        self._image: Image | None = None
        self._called = False

    def load(self, image: Image) -> None:
        from terntable.sim.accelerator import Simulation

        check_image(self.config, image)
        self.close()
        with tempfile.TemporaryFile(prefix="terntable-dram-") as file:
            file.truncate(image.size)
            self._memory = mmap.mmap(file.fileno(), image.size)
            np.frombuffer(self._memory, np.uint8)[: image.data.size] = image.data
            self._simulation = Simulation(
                self._model,
                memory=file.fileno(),
                clock_hz=self.config.clock_hz,
                dram=self._dram,
                waves=self._waves,
                power_up=self._power_up,
            )
        magic, version, config_hash = self._registers("MAGIC", "VERSION", "CONFIG_HASH")
        if magic != regs.MAGIC or version >> 16 != regs.VERSION >> 16:
            raise UserError(
                f"the design is no terntable of version {regs.VERSION >> 16}:"
                f" MAGIC {magic:#010x}, VERSION {version:#010x}"
            )
        if config_hash != image.config.hash:
            raise UserError(
                f"the image is for configuration {image.config.hash:08x}, the gateware has"
                f" {config_hash:08x}: compile the model again"
            )
        self._image, self._called = image, False
        self._prepare(image)

    def reset(self, dram: DramModel | None = None) -> None:
        """A hardware reset, whatever is going on: a call in progress is given up. The memory keeps
        its contents; `dram` replaces its parameters."""
        if self._image is None:
            raise DeviceError("no image is loaded")
        if dram is not None:
            self._dram = dram
        self._called = False
        self._guard(self._running.reset, self._dram)
        self._prepare(self._image)

    def abort(self) -> None:
        """Give a call in progress up by the accelerator's own reset, which waits for the bus."""
        self._called = False
        self._set(CONTROL=Control.CLEAR | Control.RESET)

    def run(self, cycles: int) -> None:
        """Let a call go on for some cycles without waiting for its end."""
        self._guard(self._running.run, cycles)

    def write(self, offset: int, data: bytes) -> None:
        memory = self._mapped(offset, len(data))
        memory[offset : offset + len(data)] = bytes(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._mapped(offset, size)[offset : offset + size]

    def start(self, tokens: int, position: int, chunk: int | None = None) -> None:
        if self._image is None:
            raise DeviceError("no image is loaded")
        if self._called:
            raise DeviceError("start while a call runs")
        if chunk is None:
            chunk = self.config.chunk
        # What is beyond the configuration's maximum the gateware itself refuses.
        if position + tokens <= self.config.max_context:
            check_room(self._image, tokens, position)
        self._called = True
        self._set(TOKENS=tokens, POSITION=position, CHUNK=chunk, CONTROL=Control.START)

    def wait(self) -> CallResult:
        if not self._called:
            raise DeviceError("wait without a call")
        self._called = False
        self._guard(self._running.wait, self._budget, self._patience, self.on_cycle)
        names = ["STATUS", "ERROR_CODE", "ERROR_UNIT", "ERROR_ADDRESS", "ERROR_COMMAND",
                 "ARGMAX", "ARGMAX_LOGIT", "CYCLES", *COUNTERS.values()]  # fmt: skip
        values = dict(zip(names, self._registers(*names), strict=True))
        if values["STATUS"] & regs.Status.ERROR:
            text = self._describe(values)
            self._set(CONTROL=Control.CLEAR | Control.RESET)
            raise self._error(text, values)
        self._set(CONTROL=Control.CLEAR)
        logit = struct.unpack("<f", struct.pack("<I", values["ARGMAX_LOGIT"]))[0]
        return CallResult(
            argmax=values["ARGMAX"],
            argmax_logit=logit,
            cycles=values["CYCLES"],
            unit_cycles={name: values[register] for name, register in COUNTERS.items()},
        )

    def close(self) -> None:
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        self._image, self._called = None, False

    @property
    def cycle(self) -> int:
        """Cycles simulated since `load`."""
        return self._running.cycle

    @property
    def _running(self) -> accelerator.Simulation:
        if self._simulation is None:
            raise DeviceError("no image is loaded")
        return self._simulation

    def _mapped(self, offset: int, size: int) -> mmap.mmap:
        if self._memory is None:
            raise DeviceError("no image is loaded")
        if offset < 0 or size < 0 or offset + size > len(self._memory):
            raise DeviceError(
                f"{size} bytes are not inside the image of {len(self._memory)}", address=offset
            )
        return self._memory

    def _prepare(self, image: Image) -> None:
        """Registers that a reset has cleared."""
        self._set(
            BASE_LO=self._dram.base & 0xFFFFFFFF,
            BASE_HI=self._dram.base >> 32,
            LIMIT=image.size,
            WRITE_BASE=image.write_base,
            PROGRAM=image.program,
            IRQ_ENABLE=1,
            WATCHDOG=self._stuck,
        )

    def _registers(self, *names: str) -> list[int]:
        return self._guard(self._running.read_registers, [regs.ADDRESS[n] for n in names])

    def _set(self, **values: int) -> None:
        registers = [(regs.ADDRESS[n], v) for n, v in values.items()]
        self._guard(self._running.write_registers, registers)

    def _guard(self, request: Callable[..., T], *args: Any) -> T:
        """What the simulator answers; its errors become DeviceErrors."""
        from terntable.sim.accelerator import SimulationError

        try:
            return request(*args)
        except SimulationError as e:
            raise self._error(str(e), e.registers) from None

    def _describe(self, values: dict[str, int]) -> str:
        """What went wrong, by the registers: the error's name, and the field that did not fit."""
        try:
            code = regs.Error(values["ERROR_CODE"])
        except ValueError:
            return f"error {values['ERROR_CODE']}"
        if code is regs.Error.BAD_DIMENSION:
            data = self.read(values["ERROR_ADDRESS"], isa.COMMAND_BYTES)
            return f"{code.name}: {violation(self.config, isa.decode(data))}"
        return code.name

    def _error(self, text: str, values: dict[str, int]) -> DeviceError:
        """A fault, with what the registers say."""
        if not values:
            return DeviceError(text)
        if "UNIT_STATE" in values:
            busy = [u.name for u in isa.Unit if values["UNIT_STATE"] >> u & 1]
            text += f"; busy: {', '.join(busy) or 'no unit'}; " + ", ".join(
                f"{name} {value:#x}" for name, value in values.items()
            )
        unit = values["ERROR_UNIT"]
        return DeviceError(
            text,
            unit=regs.ERROR_UNITS.get(unit, str(unit)) if values["ERROR_CODE"] else None,
            address=values["ERROR_ADDRESS"] if values["ERROR_CODE"] else None,
            command=values["ERROR_COMMAND"],
        )
