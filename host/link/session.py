"""A session with the board over a line that may lose, repeat and damage bytes."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from terntable.host.devices.base import DeviceError
from terntable.hw.errors import UserError
from terntable.hw.link.protocol import BITS, CRC_BYTES, HELLO_DATA, REQUEST, VERSION, Command, Reply

from .frames import Answer, Decoder, Request, encode
from .port import Port


@dataclass(frozen=True)
class Identity:
    """What a board says of itself (protocol.HELLO_DATA)."""

    version: int
    data_bytes: int
    buffer_bytes: int
    buffer_frames: int
    memory_base: int
    memory_bytes: int
    clock_hz: int
    magic: int
    register_version: int
    config_hash: int


class LinkSession:
    """Requests and their answers, each right or a DeviceError, in bounded time.

    A single request is sent until it is answered, under one sequence number: the board executes it
    once. Requests that may be executed twice go many at a time (`window`); those that remain
    without an answer are sent again under new numbers.

    `timeout` are the seconds, besides the time on the line, in which an answer is expected, and
    `tries` how often in a row it may be missing. A board that was reset in the meantime has lost
    its session, and is an error: what was in its registers and memory is gone. A session's name is
    drawn at random unless `session` gives one, from 1 to 65,535.
    """

    def __init__(
        self, port: Port, *, timeout: float = 0.5, tries: int = 10, session: int | None = None
    ) -> None:
        self._port = port
        self._timeout = timeout
        self._tries = tries
        self._decoder = Decoder()
        self._answers: deque[Answer] = deque()
        self._session = session or secrets.randbelow((1 << 16) - 1) + 1
        self._sequence = 0
        self._agreed = True  # the board's last number is ours, or one that is under way
        self.identity = self._hello()

    def request(self, request: Request, seconds: float = 0.0) -> Answer:
        """Have a request executed exactly once; it may take the board `seconds`."""
        if not self._agreed:
            self._sync()
        sequence = self._next()
        for _ in range(self._tries):
            self._send(request, sequence)
            answer = self._await(sequence, self._patience([request]) + seconds)
            if answer is None:
                continue
            if answer.status is not Reply.OUT_OF_ORDER:
                return self._checked(answer, request)
            # Not executed: something before it, which was given up, has not arrived.
            self._sync()
            sequence = self._next()
        raise self._silent()

    def window(self, requests: Iterable[Request], done: Callable[[Request, Answer], None]) -> None:
        """Have requests executed, each at least once and in any order; `done` is called for each,
        once. The board's buffer holds all that are under way."""
        if not self._agreed:
            self._sync()
        waiting = deque(requests)
        flying: dict[int, Request] = {}
        misses = 0
        while waiting or flying:
            while waiting and self._room(flying.values(), waiting[0]):
                sequence = self._next()
                flying[sequence] = waiting.popleft()
                self._send(flying[sequence], sequence)
            answer = self._receive(self._patience(flying.values()))
            if answer is None or answer.status is Reply.OUT_OF_ORDER:
                before = len(flying)
                # Answers that are on their way still count; after that nothing is.
                self._sync(lambda late: self._finish(late, flying, done))
                misses = misses + 1 if len(flying) == before else 0
                if misses >= self._tries:
                    raise self._silent()
                waiting.extendleft(reversed(flying.values()))
                flying.clear()
            elif answer.sequence in flying:
                misses = 0
                # The board answers in order: what is older was answered, and the answer lost.
                older = list(flying)[: list(flying).index(answer.sequence)]
                waiting.extendleft(flying.pop(sequence) for sequence in reversed(older))
                self._finish(answer, flying, done)
            else:
                self._check_session(answer)

    def close(self) -> None:
        """Release the port."""
        self._port.close()

    def _hello(self) -> Identity:
        request = Request(Command.HELLO)
        for _ in range(self._tries):
            self._send(request, self._sequence)
            answer = self._await(self._sequence, self._patience([request]))
            if answer is not None:
                break
        else:
            raise UserError(
                f"no terntable answers on serial port {self._port.name} at {self._port.baud} baud:"
                " load the board's bitstream, or name another port with --port"
            )
        if self._checked(answer, request).status is not Reply.OK:
            raise DeviceError(
                f"the accelerator on serial port {self._port.name} does not answer its host link:"
                " load the bitstream again"
            )
        version = int.from_bytes(answer.data[:2], "little")
        if version != VERSION or len(answer.data) != HELLO_DATA.size:
            raise UserError(
                f"the board's link has protocol version {version}, this release {VERSION}: build"
                " and load the bitstream again"
            )
        return Identity(*HELLO_DATA.unpack(answer.data))

    def _sync(self, late: Callable[[Answer], None] | None = None) -> None:
        """Agree on a sequence number again; `late` hears of answers that come before."""
        sequence = self._next()
        request = Request(Command.SYNC)
        for _ in range(self._tries):
            self._send(request, sequence)
            answer = self._await(sequence, self._patience([request]), late)
            if answer is not None:
                self._checked(answer, request)
                self._agreed = True
                return
        raise self._silent()

    def _await(
        self, sequence: int, seconds: float, late: Callable[[Answer], None] | None = None
    ) -> Answer | None:
        """The answer to the request of this number, or to none in the board's view; None when it
        does not come in time."""
        until = self._port.clock() + seconds
        while (left := until - self._port.clock()) > 0:
            answer = self._receive(left)
            if answer is None:
                return None
            if answer.sequence == sequence:
                return answer
            if late is not None:
                late(answer)
        return None

    def _finish(
        self, answer: Answer, flying: dict[int, Request], done: Callable[[Request, Answer], None]
    ) -> None:
        if answer.sequence in flying and answer.status is not Reply.OUT_OF_ORDER:
            request = flying.pop(answer.sequence)
            done(request, self._checked(answer, request))

    def _receive(self, seconds: float) -> Answer | None:
        """The next answer of this session."""
        until = self._port.clock() + seconds
        while not self._answers:
            left = until - self._port.clock()
            if left <= 0:
                return None
            for octets in self._decoder.push(self._port.read(left)):
                answer = Answer.of(octets)
                if answer is not None and answer.session == self._session:
                    self._answers.append(answer)
        return self._answers.popleft()

    def _send(self, request: Request, sequence: int) -> None:
        self._port.write(encode(request.octets(sequence, self._session)))

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) % 256
        return self._sequence

    def _room(self, flying: Iterable[Request], request: Request) -> bool:
        """Whether the board's buffer takes one more."""
        sizes = [REQUEST.size + CRC_BYTES + len(r.data) for r in (*flying, request)]
        who = self.identity
        return sum(sizes) <= who.buffer_bytes and len(sizes) <= who.buffer_frames

    def _patience(self, requests: Iterable[Request]) -> float:
        """Seconds in which requests and their answers are over."""
        octets = 0
        for request in requests:
            back = request.count if request.command is Command.READ_MEMORY else 0
            octets += 2 * (len(request.data) + back) + 64
        return self._timeout + octets * BITS / self._port.baud

    def _check_session(self, answer: Answer) -> None:
        if answer.status is Reply.NO_SESSION:
            raise DeviceError(
                f"the board on serial port {self._port.name} was reset or loaded again: what was in"
                " its memory is gone, start again"
            )

    def _checked(self, answer: Answer, request: Request) -> Answer:
        """The answer to `request`, if it was executed."""
        self._check_session(answer)
        if answer.status is Reply.OUT_OF_ORDER or answer.command != request.command:
            raise DeviceError(
                f"the link to the board lost count: {request.command.name} was answered"
                f" {answer.status.name}"
            )
        if answer.status is Reply.REFUSED:
            raise DeviceError(
                f"the board refuses {request.command.name} of {request.count}",
                address=request.address,
            )
        return answer

    def _silent(self) -> DeviceError:
        # Numbers that never arrived may come round again: the next request begins with SYNC.
        self._agreed = False
        return DeviceError(
            f"the board on serial port {self._port.name} does not answer any more: check cable and"
            " power, and load the bitstream again"
        )
