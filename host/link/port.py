"""The line itself: a serial port, or what stands for one."""

from __future__ import annotations

import abc
import contextlib
import errno
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from terntable.host.devices.base import DeviceError
from terntable.hw.errors import UserError

if TYPE_CHECKING:
    import serial

T = TypeVar("T")

WRITE_SECONDS = 5.0
"""A port that takes nothing for so long is taken for dead."""

_READ_BYTES = 1 << 16


class Port(abc.ABC):
    """Bytes to and from the far end. Raises DeviceError when the line is no more."""

    name: str
    baud: int

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of `data`, in bounded time."""

    @abc.abstractmethod
    def read(self, timeout: float) -> bytes:
        """What has come, as soon as there is something; nothing after `timeout` seconds."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release it. May be called twice."""

    def clock(self) -> float:
        """Seconds, as `timeout` counts them."""
        return time.monotonic()


class SerialPort(Port):
    """A serial port of this machine, for this program alone (POSIX).

    Raises UserError, with the remedy, when there is none of that name or it can't be opened.
    """

    def __init__(self, path: str, baud: int) -> None:
        try:
            import serial
        except ModuleNotFoundError:
            raise UserError(
                "serial ports need the Python package pyserial: pip install 'terntable[board]'"
            ) from None
        self.name, self.baud = path, baud
        self._port: serial.Serial | None = None
        try:
            self._port = serial.Serial(
                path, baud, timeout=0, write_timeout=WRITE_SECONDS, exclusive=True
            )
        except ValueError:
            raise UserError(
                f"serial port {path} can't do {baud} baud: take the board's own converter"
            ) from None
        except OSError as e:
            raise UserError(_why_not(path, e)) from None
        # Converters from USB hold bytes back for up to 16 ms otherwise. Not all have the setting.
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            self._port.set_low_latency_mode(True)
        self._try(self._port.reset_input_buffer)

    def write(self, data: bytes) -> None:
        port = self._open
        self._try(lambda: port.write(data))

    def read(self, timeout: float) -> bytes:
        port = self._open

        def take() -> bytes:
            ready, _, _ = select.select([port], [], [], max(timeout, 0))
            return port.read(_READ_BYTES) if ready else b""

        return self._try(take)

    def close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(OSError):
                port.close()

    @property
    def _open(self) -> serial.Serial:
        if self._port is None:
            raise DeviceError(f"serial port {self.name} is closed")
        return self._port

    def _try(self, what: Callable[[], T]) -> T:
        """What a call on the port gives; a port that is gone is a DeviceError."""
        import termios

        import serial

        try:
            return what()
        except serial.SerialTimeoutException:
            raise DeviceError(
                f"serial port {self.name} takes no more bytes: is the cable plugged in?"
            ) from None
        except (OSError, termios.error):
            self.close()
            raise DeviceError(
                f"serial port {self.name} is gone: plug the cable in and start again"
            ) from None


def _why_not(path: str, error: OSError) -> str:
    """Why a port could not be opened, and what to do."""
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return (
            f"no serial port {path!r}: plug the board in, or name another with --port;"
            f" {port_choice()}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"no permission for serial port {path}: become a member of its group{_group(path)}, and"
            " log in again"
        )
    if error.errno in (errno.EBUSY, errno.EAGAIN):
        return f"serial port {path} is in use: close the program that has it"
    return f"{path} is no serial port: name another with --port; {port_choice()}"


def port_choice() -> str:
    """The serial ports of this machine, for a message."""
    try:
        from serial.tools.list_ports import comports
    except ModuleNotFoundError:
        return "such as /dev/ttyUSB0"
    there = sorted(port.device for port in comports())
    return f"choose from {', '.join(there)}" if there else "there is none on this machine now"


def _group(path: str) -> str:
    try:
        return f" ({Path(path).group()})"
    except (OSError, KeyError):
        return ""
