"""A board at a serial port: lines that lose and damage bytes, cables that are pulled, boards that
are reset, calls that do not end. Each is retried or one clear error, and no token is ever wrong."""

from __future__ import annotations

import contextlib
import fcntl
import json
import random
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terntable.host.boards.connect import check_connection
from terntable.host.compiler import compile_model
from terntable.host.devices.base import DeviceError
from terntable.host.devices.board import BLOCK_BYTES, BoardDevice
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.link.port import Port, SerialPort
from terntable.host.link.serial_transport import SerialTransport
from terntable.host.session import Session
from terntable.hw.axi.bus import Response
from terntable.hw.config import load_config
from terntable.hw.errors import UserError
from terntable.hw.link.protocol import Command
from terntable.hw.regs import Status

from ..far_end import FarEnd, Line
from .conftest import Outcome
from .pty_board import BAUD, BoardOnPty, PtyBoard
from .test_devices import CONFIG, IDS, MODEL, SPEC

IMAGE = compile_model(MODEL, CONFIG)


class LoopPort(Port):
    """A line to a far end in this process, whose clock goes on only while the host waits: silence
    costs nothing. `faults` decides what becomes of each octet, both ways."""

    name, baud = "loop", BAUD

    def __init__(self, far_end: FarEnd, faults: Callable[[bytes], bytes] = bytes) -> None:
        self.far_end = far_end
        self.faults = faults
        self._line = Line()
        self._came = b""
        self._now = 0.0

    def write(self, data: bytes) -> None:
        for octet in self.faults(data):
            frame = self._line.push(octet)
            if frame is not None:
                self._came += self.faults(self.far_end.answer(frame))

    def read(self, timeout: float) -> bytes:
        self._now += 1e-4 if self._came else timeout
        came, self._came = self._came, b""
        return came

    def clock(self) -> float:
        return self._now

    def close(self) -> None:
        pass


class Faults:
    """Drops, repeats and changes octets, each with probability `rate`; sometimes a whole burst."""

    def __init__(self, seed: int, rate: float) -> None:
        self._rng = random.Random(seed)
        self._rate = rate
        self.count = 0

    def __call__(self, octets: bytes) -> bytes:
        out = bytearray()
        for octet in octets:
            if self._rng.random() >= self._rate:
                out.append(octet)
                continue
            self.count += 1
            kind = self._rng.randrange(4)
            if kind == 1:
                out += bytes([octet, octet])
            elif kind == 2:
                out.append(octet ^ 1 << self._rng.randrange(8))
            elif kind == 3:
                out += self._rng.randbytes(self._rng.randrange(1, 9))
        return bytes(out)


def registers() -> tuple[dict[int, int], list[tuple[int, int]], FarEnd]:
    """A far end with plain registers; its words, and the log of its writes."""
    words = {address: address for address in range(0, 0x80, 4)}
    log: list[tuple[int, int]] = []

    def write(address: int, word: int) -> int:
        log.append((address, word))
        words[address] = word
        return Response.OKAY.value

    far_end = FarEnd(
        lambda at: (words[at], 0), write, bytearray(1 << 15), lambda milliseconds: True
    )
    return words, log, far_end


# ---------------------------------------------------------------- the protocol


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([0.0, 0.0005, 0.002, 0.01]),
    operations=st.lists(st.sampled_from(["write", "read", "set", "sum", "fill"]), max_size=12),
)
def test_whatever_the_line_does(seed: int, rate: float, operations: list[str]) -> None:
    """Operations end as they would on a perfect line, or in a DeviceError; a register is written
    once, in order, or in the error's case perhaps."""
    rng = random.Random(seed)
    _, log, far_end = registers()
    port = LoopPort(far_end)
    transport = SerialTransport(port, timeout=0.1, tries=20, session=1 + seed % 65535)
    port.faults = Faults(seed, rate)
    expected, asked = bytearray(1 << 15), []
    for n, operation in enumerate(operations):
        at, size = rng.randrange(1 << 14), rng.randrange(1, 1 << rng.randrange(1, 14))
        try:
            if operation == "write":
                data = rng.randbytes(size)
                transport.write_memory(at, data)
                expected[at : at + size] = data
            elif operation == "read":
                assert transport.read_memory(at, size) == expected[at : at + size]
            elif operation == "sum":
                assert transport.checksum_memory(at, size) == zlib.crc32(expected[at : at + size])
            elif operation == "fill":
                transport.fill_memory(at, size)
                expected[at : at + size] = bytes(size)
            else:
                asked += [(0x20, n), (0x24, n)]
                transport.write_registers(asked[-2:])
                assert transport.read_registers([0x24, 0x20]) == [n, n]
        except DeviceError as e:
            assert rate >= 0.01 and "does not answer" in str(e)
            return
    assert far_end.memory == expected
    assert log == asked


def test_faults_are_many() -> None:
    """A transfer over a bad line: that it ends well is not for want of faults."""
    _, _, far_end = registers()
    port = LoopPort(far_end)
    transport = SerialTransport(port, timeout=0.1, tries=20, session=80)
    port.faults = faults = Faults(1, 0.002)
    data = random.Random(2).randbytes(1 << 15)
    transport.write_memory(0, data)
    assert transport.read_memory(0, 1 << 15) == data
    assert faults.count > 100


def test_a_window_fits_the_boards_buffer() -> None:
    """Requests under way are never more than it holds, and many of them are."""
    _, _, far_end = registers()

    class Slow(LoopPort):
        most = 0
        waiting = b""

        def write(self, data: bytes) -> None:
            self.waiting += data
            self.most = max(self.most, len(self.waiting))

        def read(self, timeout: float) -> bytes:
            super().write(self.waiting)
            self.waiting = b""
            return super().read(timeout)

    port = Slow(far_end)
    transport = SerialTransport(port)
    transport.write_memory(0, bytes(1 << 15))
    assert 3000 < port.most < 4200
    executed = [command for command, _ in far_end.executed]
    assert executed.count(Command.WRITE_MEMORY) == 64


def test_numbers_come_round_without_a_mistake() -> None:
    """After more requests in vain than there are numbers, no old reply is taken for a new one."""
    words, log, far_end = registers()
    port = LoopPort(far_end)
    transport = SerialTransport(port, timeout=0.1, tries=1, session=82)
    transport.write_register(0x20, 1)
    port.faults = lambda octets: b""
    for _ in range(600):
        with pytest.raises(DeviceError, match="does not answer"):
            transport.write_register(0x20, 2)
    port.faults = bytes
    for n in range(3, 600):
        transport.write_register(0x20, n)
        assert transport.read_register(0x20) == words[0x20] == n
    assert [word for _, word in log] == [1, *range(3, 600)]


# ---------------------------------------------------------------- calls


@pytest.fixture
def device() -> Iterator[BoardOnPty]:
    with BoardOnPty(CONFIG, poll=0.05, patience=0.3) as device:
        yield device


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    with EmulatorDevice(CONFIG) as emulator:
        return Session(emulator, IMAGE).generate(IDS, 4).tokens


@pytest.mark.parametrize("seed", range(3))
def test_tokens_over_a_bad_line(seed: int, tokens: list[int]) -> None:
    board = PtyBoard(CONFIG)
    with contextlib.closing(SerialPort(board.path, BAUD)) as port:
        transport = SerialTransport(port, timeout=0.1, tries=100, session=81)
        to_board, to_host = Faults(seed, 0.002), Faults(100 + seed, 0.002)
        board.to_board, board.to_host = to_board, to_host
        with BoardDevice(CONFIG, transport) as device:
            assert Session(device, IMAGE).generate(IDS, 4).tokens == tokens
        assert to_board.count + to_host.count > 20
    board.unplug()


def test_an_image_that_is_there_is_not_sent_again(device: BoardOnPty, tokens: list[int]) -> None:
    """Only what differs is, even of a board whose host was another program."""
    device.load(IMAGE)
    far_end = device.board.far_end

    def written() -> int:
        count = sum(command == Command.WRITE_MEMORY for command, _ in far_end.executed)
        far_end.executed.clear()
        return count

    blocks = -(-IMAGE.data.size // BLOCK_BYTES)
    assert written() > 100 * (blocks - 1)
    device.load(IMAGE)
    assert written() == 0
    far_end.memory[IMAGE.data.size // 2] ^= 1
    seen: list[tuple[int, int]] = []
    device.loading = lambda done, total: seen.append((done, total))
    device.load(IMAGE)
    assert 0 < written() <= BLOCK_BYTES // 512
    assert seen[-1] == (IMAGE.data.size, IMAGE.data.size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert Session(device, IMAGE).generate(IDS, 4).tokens == tokens


def test_octets_of_a_decode_step(device: BoardOnPty) -> None:
    """The formula of docs/link.md."""
    session = Session(device, IMAGE)
    session.call(IDS)
    octets = 0

    def counted(line: bytes) -> bytes:
        nonlocal octets
        octets += len(line)
        return line

    device.board.to_board = device.board.to_host = counted
    row, logits = 4 * IMAGE.input_width, 4 * SPEC.vocab
    session.advance([3])
    assert octets == pytest.approx(row + 30 * -(-row // 512) + 265, rel=0.05)
    octets = 0
    session.logits()
    assert octets == pytest.approx(logits + 30 * -(-logits // 512), rel=0.05)


def test_memory_that_keeps_nothing_is_found(device: BoardOnPty) -> None:
    class Stuck(bytearray):
        def __setitem__(self, key, value):
            super().__setitem__(key, bytes(value[:-1]) + b"\xa5")

    device.board.far_end.memory = Stuck(device.board.far_end.memory)
    with pytest.raises(DeviceError, match=r"does not keep what is written.*address 0x0"):
        device.load(IMAGE)


def test_another_gateware_is_refused(device: BoardOnPty) -> None:
    words = device.board.accelerator.words
    words["CONFIG_HASH"] ^= 1
    with pytest.raises(UserError, match=r"the board \(serial port .*\) has .*compile the model"):
        device.load(IMAGE)
    words["MAGIC"] = 0
    with pytest.raises(UserError, match=r"is no terntable of version 1: MAGIC 0x00000000"):
        device.load(IMAGE)


def test_an_image_larger_than_the_boards_memory(device: BoardOnPty) -> None:
    device._transport.memory_bytes = IMAGE.size - 1
    with pytest.raises(
        UserError, match=f"{IMAGE.size:,} bytes.*{IMAGE.size - 1:,}: take a smaller"
    ):
        device.load(IMAGE)


def call(device: BoardDevice) -> np.ndarray:
    device.write(IMAGE.regions["input"].offset, IMAGE.embed(IDS).tobytes())
    device.start(len(IDS), 0)
    device.wait()
    return np.frombuffer(device.read(IMAGE.regions["logits"].offset, 4 * SPEC.vocab), np.float32)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("mute", r"has ended, its interrupt has not come.*STATUS 0x2"),
        ("stuck", r"nothing has moved for 0.3 s; busy: no unit"),
    ],
    ids=["a lost interrupt", "a call that stands still"],
)
def test_a_call_without_an_end_is_named_and_over(
    device: BoardOnPty, fault: str, words: str
) -> None:
    device.load(IMAGE)
    expected = call(device)
    setattr(device.board.accelerator, fault, True)
    with pytest.raises(DeviceError, match=words):
        call(device)
    assert device.board.accelerator.words["STATUS"] == 0
    setattr(device.board.accelerator, fault, False)
    device.load(IMAGE)
    assert np.array_equal(call(device), expected)


def test_a_fault_names_unit_address_and_command(device: BoardOnPty) -> None:
    device.load(IMAGE)
    expected = call(device)
    kept = device.read(IMAGE.program, 64)
    device.write(IMAGE.program, b"\xff" * 64)
    with pytest.raises(DeviceError, match=r"BAD_COMMAND \(unit sequencer, address .*, command 0\)"):
        call(device)
    device.write(IMAGE.program, kept)
    device.load(IMAGE)
    assert np.array_equal(call(device), expected)


def test_closing_ends_a_call() -> None:
    with BoardOnPty(CONFIG) as device:
        device.load(IMAGE)
        device.board.accelerator.stuck = True
        device.start(1, 0)
        words = device.board.accelerator.words
        assert words["STATUS"] == Status.BUSY
    assert words["STATUS"] == 0


# ---------------------------------------------------------------- boards that go away


def test_an_unplugged_cable(device: BoardOnPty) -> None:
    device.load(IMAGE)
    device.board.unplug()
    with pytest.raises(DeviceError, match="is gone: plug the cable in"):
        device.read(0, 8)
    with pytest.raises(DeviceError, match="is closed"):
        device.start(1, 0)


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2])
def test_a_cable_that_is_pulled_in_the_middle(device: BoardOnPty, after: float) -> None:
    """While the image is loaded, or tokens come: an error, and soon."""
    pull = threading.Timer(after, device.board.unplug)
    pull.start()
    with pytest.raises(DeviceError, match=r"gone|closed|no more bytes"):
        session = Session(device, IMAGE)
        while True:
            session.reset()
            session.generate(IDS, 4)
    pull.join()


def test_a_board_that_is_reset_is_no_board_with_zeros(device: BoardOnPty) -> None:
    device.load(IMAGE)
    device.board.reset()
    with pytest.raises(DeviceError, match="was reset or loaded again"):
        call(device)


def test_a_silent_port(tmp_path: Path) -> None:
    board = PtyBoard(CONFIG)
    board.to_host = lambda octets: b""
    with contextlib.closing(SerialPort(board.path, BAUD)) as port:
        with pytest.raises(UserError, match=r"no terntable answers .* at 3000000 baud: load the"):
            SerialTransport(port, timeout=0.05, tries=3)
        board.to_host = lambda octets: bytes(200)
        with pytest.raises(UserError, match="no terntable answers"):
            SerialTransport(port, timeout=0.05, tries=3)
    board.unplug()


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), r"which board\? Name it with --board: .*ulx3s"),
        (("--board", "none"), r"unknown board 'none': choose from .*ulx3s"),
        (("--board", "ulx3s"), r"ulx3s is at a serial port: name it with --port"),
        (("--board", "kv260", "--port", "x"), r"kv260 is not at a serial port: leave --port away"),
        (("--board", "ulx3s", "--port", "/dev/nosuch"), r"no serial port '/dev/nosuch': plug"),
        (("--board", "ulx3s", "--port", "/dev/null"), r"/dev/null is no serial port: name"),
    ],
)
def test_mistakes(cli: Callable[..., Outcome], options: tuple[str, ...], line: str) -> None:
    outcome = cli("run", "--device", "board", *options, "--prompt", "x")
    assert outcome.status == 2 and outcome.out == ""
    assert re.fullmatch(rf"terntable: {line}.*\n", outcome.err)


def test_options_of_a_board_without_one(cli: Callable[..., Outcome]) -> None:
    for option in (("--board", "ulx3s"), ("--port", "x")):
        outcome = cli("run", "--device", "emulator", *option, "--prompt", "x")
        assert outcome.status == 2
        assert f"{option[0]} goes with --device board" in outcome.err
    outcome = cli("eval", "--device", "board", "--text", __file__)
    assert outcome.status == 2 and "goes with terntable run" in outcome.err


def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    board = PtyBoard(CONFIG)
    with Path(board.path).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is in use: close the program that has it"):
            SerialPort(board.path, BAUD)
    SerialPort(board.path, BAUD).close()
    board.unplug()


def test_doctor_finds_a_board(cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    board = check_connection("board", "ulx3s", "x")
    assert board is not None
    standing = PtyBoard(load_config(board.config))
    command = ("doctor", "--board", "ulx3s", "--port", standing.path, "--json")

    def checks(status: int) -> list[dict[str, str]]:
        got = cli(*command)
        assert got.status == status, got.out
        found: list[dict[str, str]] = json.loads(got.out)["checks"]
        assert all(check["found"] and not check["remedy"] for check in found[: -status or None])
        return found

    good = checks(0)
    assert [check["name"] for check in good] == ["serial port", "link", "design", "clock"]
    clock = re.fullmatch(r"([\d.]+) MHz, within .*, measured", good[-1]["found"])
    assert clock and 45 < float(clock[1]) < 55
    standing.accelerator.clock_hz //= 2
    assert "is for 50 MHz: load the bitstream" in checks(1)[-1]["remedy"]
    standing.accelerator.words["CONFIG_HASH"] ^= 1
    assert "'ulx3s' is" in checks(1)[-1]["remedy"]
    standing.to_host = lambda octets: b""
    monkeypatch.setattr(
        "terntable.host.boards.connect.SerialTransport",
        lambda line: SerialTransport(line, timeout=0.05, tries=2),
    )
    (*_, silent) = checks(1)
    assert (silent["name"], silent["found"]) == ("link", None)
    assert "no terntable answers" in silent["remedy"]
    with Path(standing.path).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "is in use" in checks(1)[-1]["remedy"]
    standing.unplug()
    (gone,) = checks(1)
    assert gone["name"] == "serial port" and "no serial port" in gone["remedy"]


def test_run_on_the_command_line(
    cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo model on what stands for a ULX3S, tokens as the emulator's."""
    board = check_connection("board", "ulx3s", "x")
    assert board is not None
    standing = PtyBoard(load_config(board.config), memory_bytes=8 << 20)
    options = ("--model", "tiny", "--prompt-ids", "7,14,21", "--max-tokens", "3", "--json")
    place = ("--device", "board", "--board", "ulx3s", "--port", standing.path)
    got = cli("run", *place, *options)
    assert got.status == 0, got.err
    standing.unplug()
    expected = cli("run", "--device", "emulator", "--config", board.config, *options)
    said, emulated = json.loads(got.out), json.loads(expected.out)
    assert said["tokens"] == emulated["tokens"]
    assert (said["device"], said["config"]) == ("board", board.config)
    assert len(said["decode_cycles"]) == 2 and said["clock_hz"] == 50_000_000
