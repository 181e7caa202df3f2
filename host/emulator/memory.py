"""The image's memory as the units see it: inside the fence, in contract numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terntable.host.devices.base import DeviceError
from terntable.hw import numeric
from terntable.hw.isa import COMMAND_BYTES


class Memory:
    """Bytes of an image. Accesses outside the fence raise DeviceError.

    program, command  where the program lies and which command is being executed, for errors
    """

    def __init__(self, data: NDArray[np.uint8], write_base: int) -> None:
        self.data = data
        self.write_base = write_base
        self.program = 0
        self.command = 0
        self._constants: dict[tuple[int, int], NDArray[np.float32]] = {}

    def fence(self, unit: str, start: int, end: int, write: bool = False) -> None:
        """Check an access to bytes start..end-1."""
        if end > self.data.size:
            raise DeviceError(
                f"{'write' if write else 'read'} beyond the image's {self.data.size} bytes",
                unit=unit,
                address=max(start, self.data.size),
                command=self.command,
            )
        if write and start < self.write_base:
            raise DeviceError(
                f"write below the run-time regions ({self.write_base:#x})",
                unit=unit,
                address=start,
                command=self.command,
            )

    def bad(self, what: str, why: str, unit: str = "sequencer") -> DeviceError:
        """The error of a command that can't be executed."""
        address = self.program + COMMAND_BYTES * self.command
        return DeviceError(f"bad {what}: {why}", unit=unit, address=address, command=self.command)

    def floats(self, unit: str, start: int, count: int) -> NDArray[np.float32]:
        """Contract numbers; those of constant regions are kept."""
        end = start + 4 * count
        self.fence(unit, start, end)
        if (kept := self._constants.get((start, count))) is not None:
            return kept
        values = numeric.sanitise(self.data[start:end].view(np.uint32))
        if end <= self.write_base:
            self._constants[start, count] = values
        return values

    def write_floats(self, unit: str, start: int, values: NDArray[np.float32]) -> None:
        self.fence(unit, start, start + values.nbytes, write=True)
        self.data[start : start + values.nbytes] = values.view(np.uint8)
