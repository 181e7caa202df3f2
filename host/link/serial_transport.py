"""A board on the other end of a serial line."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from terntable.host.devices.base import DeviceError
from terntable.host.devices.transport import Moved, Transport
from terntable.hw import regs
from terntable.hw.link.protocol import MOST_BYTES, Command, Reply

from .frames import Answer, Request
from .port import Port
from .session import LinkSession

_PAIR = struct.Struct("<II")
_WORD = struct.Struct("<I")

STEP_BYTES = 1 << 20
"""Bytes that one request fills, or sums up."""

_RESPONSES = {2: "SLVERR", 3: "DECERR"}


class SerialTransport(Transport):
    """Registers and memory by the requests of the serial link.

    `timeout`, `tries` and `session` are LinkSession's.
    """

    def __init__(
        self, port: Port, *, timeout: float = 0.5, tries: int = 10, session: int | None = None
    ) -> None:
        self.name = f"serial port {port.name}"
        self._link = LinkSession(port, timeout=timeout, tries=tries, session=session)
        self.identity = self._link.identity
        self.memory_base = self.identity.memory_base
        self.memory_bytes = self.identity.memory_bytes

    def read_register(self, address: int) -> int:
        return self.read_registers([address])[0]

    def write_register(self, address: int, value: int) -> None:
        self.write_registers([(address, value)])

    def read_registers(self, addresses: Sequence[int]) -> list[int]:
        """One request for all that lie between the lowest and the highest: their words are of
        nearly the same time."""
        first, last = min(addresses), max(addresses)
        count = (last - first) // 4 + 1
        request = Request(Command.READ_REGISTERS, first, count)
        data = self._sized(self._checked(self._link.request(request)), 4 * count)
        words = struct.unpack(f"<{count}I", data)
        return [words[(address - first) // 4] for address in addresses]

    def write_registers(self, registers: Iterable[tuple[int, int]]) -> None:
        pairs = [_PAIR.pack(address, value) for address, value in registers]
        most = self.identity.data_bytes // _PAIR.size
        for at in range(0, len(pairs), most):
            part = pairs[at : at + most]
            request = Request(Command.WRITE_REGISTERS, 0, len(part), b"".join(part))
            self._checked(self._link.request(request))

    def read_memory(self, offset: int, size: int, moved: Moved | None = None) -> bytes:
        got = bytearray(size)

        def done(request: Request, answer: Answer) -> None:
            at = request.address - offset
            got[at : at + request.count] = self._sized(self._checked(answer), request.count)
            if moved is not None:
                moved(request.count)

        step = self.identity.data_bytes
        self._link.window(
            (
                Request(Command.READ_MEMORY, at, min(step, offset + size - at))
                for at in range(offset, offset + size, step)
            ),
            done,
        )
        return bytes(got)

    def write_memory(self, offset: int, data: bytes, moved: Moved | None = None) -> None:
        def done(request: Request, answer: Answer) -> None:
            self._checked(answer)
            if moved is not None:
                moved(request.count)

        step = self.identity.data_bytes
        parts = ((offset + at, data[at : at + step]) for at in range(0, len(data), step))
        self._link.window(
            (Request(Command.WRITE_MEMORY, at, len(part), part) for at, part in parts), done
        )

    def fill_memory(self, offset: int, size: int) -> None:
        for at in range(offset, offset + size, STEP_BYTES):
            count = min(STEP_BYTES, offset + size - at)
            request = Request(Command.FILL_MEMORY, at, count)
            self._checked(self._link.request(request, self._seconds(count)))

    def checksum_memory(self, offset: int, size: int) -> int:
        if not 0 < size <= MOST_BYTES:
            raise ValueError(f"a checksum of {size} bytes: 1 to {MOST_BYTES} are possible")
        request = Request(Command.CHECKSUM_MEMORY, offset, size)
        answer = self._checked(self._link.request(request, self._seconds(size)))
        return int(_WORD.unpack(self._sized(answer, _WORD.size))[0])

    def wait_interrupt(self, timeout: float) -> bool:
        milliseconds = min(round(1000 * timeout), (1 << 16) - 1)
        request = Request(Command.WAIT, count=milliseconds)
        answer = self._checked(self._link.request(request, milliseconds / 1000))
        return bool(answer.detail)

    def close(self) -> None:
        self._link.close()

    def _seconds(self, count: int) -> float:
        """In which the board goes through so many bytes of its memory: a few cycles for each, of
        which the accelerator may have most."""
        return 16 * count / self.identity.clock_hz

    @staticmethod
    def _sized(answer: Answer, size: int) -> bytes:
        if len(answer.data) != size:
            raise DeviceError(f"the board answered {len(answer.data)} bytes instead of {size}")
        return answer.data

    @staticmethod
    def _checked(answer: Answer) -> Answer:
        """An answer without an error of the board's buses."""
        if answer.status is Reply.OK:
            return answer
        at = _WORD.unpack(answer.data)[0] if len(answer.data) == _WORD.size else None
        if answer.status is Reply.MEMORY_ERROR:
            name = regs.error_name(answer.detail)
            raise DeviceError(f"{name} at the board's memory", unit="host link", address=at)
        name = _RESPONSES.get(answer.detail, f"response {answer.detail}")
        raise DeviceError(f"{name} of the control port", unit="host link", address=at)
