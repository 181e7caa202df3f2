"""The generated Verilog in Verilator, with the DRAM of the image behind it."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from terntable.host.devices.base import WATCHDOG_CYCLES, CallResult, DeviceError, check_image
from terntable.host.devices.register_device import RegisterDevice, check_inside
from terntable.host.image import Image
from terntable.hw import regs
from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError

if TYPE_CHECKING:
    from terntable.sim import accelerator
    from terntable.sim.dram import DramModel

T = TypeVar("T")


def _first_error(log: str) -> str:
    """The first line of a failed build's text, and the first error in the log below it."""
    what, *lines = log.splitlines()
    error = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    return f"{what} {error.strip()}"


class SimDevice(RegisterDevice):
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

        super().__init__()
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
        self._identify(image, "the design")
        self._image, self._called = image, False
        self._prepare(image, self._dram.base, self._stuck)

    def reset(self, dram: DramModel | None = None) -> None:
        """A hardware reset, whatever is going on: a call in progress is given up. The memory keeps
        its contents; `dram` replaces its parameters."""
        if self._image is None:
            raise DeviceError("no image is loaded")
        if dram is not None:
            self._dram = dram
        self._called = False
        self._guard(self._running.reset, self._dram)
        self._prepare(self._image, self._dram.base, self._stuck)

    def run(self, cycles: int) -> None:
        """Let a call go on for some cycles without waiting for its end."""
        self._guard(self._running.run, cycles)

    def write(self, offset: int, data: bytes) -> None:
        memory = self._mapped(offset, len(data))
        memory[offset : offset + len(data)] = bytes(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._mapped(offset, size)[offset : offset + size]

    def wait(self) -> CallResult:
        if not self._called:
            raise DeviceError("wait without a call")
        self._called = False
        self._guard(self._running.wait, self._budget, self._patience, self.on_cycle)
        return self._result()

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
        check_inside(len(self._memory), offset, size)
        return self._memory

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
