"""The interrupt line, as UIO gives it to a process."""

from __future__ import annotations

import errno
import math
import os
import select
from typing import Protocol

from terntable.host.devices.base import DeviceError

_UNMASK = (1).to_bytes(4, "little")
_COUNT_BYTES = 4


class Interrupt(Protocol):
    """A level-sensitive line that the kernel masks when it is raised."""

    def wait(self, timeout: float) -> bool:
        """Unmask it and wait, `timeout` seconds at most: whether it was raised since the last wait.
        It may have been for something that is over."""

    def close(self) -> None:
        """Release it. May be called twice."""


class UioInterrupt:
    """The interrupt of an open UIO device `file`, which it takes over.

    The kernel masks the line with each interrupt and counts it; a written 1 unmasks. A line that is
    up then interrupts at once, so one that came before the wait is not lost, and to unmask twice
    does nothing. The count is of no use: an interrupt that was counted and not read belongs to a
    call that somebody gave up. A signal does not end the wait, unless its handler raises.
    """

    def __init__(self, file: int, name: str) -> None:
        os.set_blocking(file, False)
        self._file: int | None = file
        self._name = name
        self._poll = select.poll()
        self._poll.register(file, select.POLLIN)

    def wait(self, timeout: float) -> bool:
        if self._file is None:
            raise DeviceError(f"{self._name} is closed")
        try:
            os.write(self._file, _UNMASK)
            if not self._poll.poll(math.ceil(1000 * timeout)):
                return False
            return len(os.read(self._file, _COUNT_BYTES)) == _COUNT_BYTES
        except BlockingIOError:
            return False
        except OSError as e:
            what = "has no interrupt" if e.errno == errno.EIO else f"fails ({e.strerror})"
            raise DeviceError(f"{self._name} {what}: unload the design and load it again") from None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
