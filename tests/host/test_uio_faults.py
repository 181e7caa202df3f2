"""Calls on a board behind UIO whose accelerator is the simulated Verilog: every fault is one clear
error, and the next run is right."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from terntable.host.boards.clock import measure_clock, waiting_program
from terntable.host.compiler import compile_model
from terntable.host.devices.base import DeviceError
from terntable.host.devices.board import BoardDevice
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.session import Session
from terntable.host.uio.interrupt import UioInterrupt
from terntable.hw import isa
from terntable.hw.config import load_config, named_configs
from terntable.hw.errors import UserError
from terntable.hw.isa import Op
from terntable.hw.limits import violation
from terntable.hw.regs import ADDRESS, Status
from terntable.sim.dram import Fault

from .test_devices import CONFIG, IDS, MODEL
from .uio_board import SimulatedAccelerator, UioBoard
from .uio_tree import serve_interrupt, serve_registers

IMAGE = compile_model(MODEL, CONFIG)
STUCK = 3000
"""Cycles after which the watchdog ends a call."""
REPOSITORY = Path(__file__).parents[2]

# ---------------------------------------------------------------- calls on the gateware


@pytest.fixture(scope="module")
def board() -> Iterator[UioBoard]:
    board = UioBoard(CONFIG)
    yield board
    board.close()


@pytest.fixture
def accelerator(board: UioBoard) -> Iterator[SimulatedAccelerator]:
    """A design that was just loaded."""
    accelerator = board.accelerator
    accelerator.reset()
    accelerator.mute = False
    yield accelerator


def on(board: UioBoard, **parameters: float) -> BoardDevice:
    """A device that waits as long as a busy machine takes, unless `parameters` say otherwise."""
    usual = {"poll": 5.0, "patience": 60.0, "watchdog": STUCK}
    return BoardDevice(CONFIG, board.open(), **(usual | parameters))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    with EmulatorDevice(CONFIG) as emulator:
        return Session(emulator, IMAGE).generate(IDS, 3).tokens


def is_right(device: BoardDevice, tokens: list[int]) -> bool:
    """The next run, after the soft reset that followed a fault."""
    return Session(device, IMAGE).generate(IDS, 3).tokens == tokens


gateware = pytest.mark.xdist_group("test-rtl")


@gateware
@pytest.mark.parametrize(
    ("region", "kind", "code", "unit"),
    [
        ("weights", "r", "READ_RESPONSE", "weights"),
        ("kv", "r", "READ_RESPONSE", "KV"),
        ("input", "r", "READ_RESPONSE", "load"),
        ("kv", "w", "WRITE_RESPONSE", "KV write"),
        ("logits", "w", "WRITE_RESPONSE", "logits write"),
    ],
)
def test_an_error_of_the_bus(
    board: UioBoard, accelerator: SimulatedAccelerator, tokens: list[int],
    region: str, kind: str, code: str, unit: str,
) -> None:  # fmt: skip
    where = IMAGE.regions[region]
    accelerator.reset(errors=(Fault(where.offset, where.size, kind, 1),))
    with on(board) as device:
        with pytest.raises(DeviceError, match=rf"^{code} \(unit {unit}, address 0x") as error:
            is_right(device, tokens)
        assert where.offset <= (error.value.address or 0) < where.end
        assert is_right(device, tokens)


@gateware
def test_memory_that_is_not_on_the_bus(
    board: UioBoard, accelerator: SimulatedAccelerator, tokens: list[int]
) -> None:
    """DECERR, as where the fabric's ports do not reach the buffer."""
    base = ADDRESS["BASE_HI"]
    with on(board) as device:
        device.load(IMAGE)
        accelerator.write32(base, accelerator.read32(base) + 1)
        device.start(1, 0)
        with pytest.raises(DeviceError, match=r"^READ_RESPONSE \(unit program, address 0x"):
            device.wait()
        assert is_right(device, tokens)


@gateware
@pytest.mark.parametrize(
    ("op", "address", "code", "unit"),
    [
        (Op.FETCH, IMAGE.size, "READ_FENCE", "weights"),
        (Op.KV_QUANT, IMAGE.size, "WRITE_FENCE", "KV write"),
        (Op.KV_QUANT, 0, "WRITE_FENCE", "KV write"),  # below WRITE_BASE
    ],
)
def test_the_fence(
    board: UioBoard, accelerator: SimulatedAccelerator, tokens: list[int],
    op: Op, address: int, code: str, unit: str,
) -> None:  # fmt: skip
    commands = isa.decode_program(IMAGE.region("program").tobytes())
    index = next(n for n, command in enumerate(commands) if command.op is op)
    command = commands[index]
    with on(board) as device:
        device.load(IMAGE)
        at = IMAGE.program + isa.COMMAND_BYTES * index
        bad = isa.encode(op, command.wait, **(command.values | {"address": address}))
        device.write(at, bad)
        device.start(1, 0)
        with pytest.raises(DeviceError, match=rf"^{code} \(unit {unit}, address 0x") as error:
            device.wait()
        assert error.value.command == index and (error.value.address or 0) >= address
        assert device.read(at, 64) == bad
        assert is_right(device, tokens)  # the image is whole again


@gateware
def test_the_watchdog(
    board: UioBoard, accelerator: SimulatedAccelerator, tokens: list[int]
) -> None:
    """A memory that never answers; only a new bitstream helps the bus, and a host that says so."""
    where = IMAGE.regions["weights"]
    accelerator.reset(lost=(Fault(where.offset, where.size, "r", 1),))
    with on(board) as device:
        with pytest.raises(DeviceError, match=r"^NO_PROGRESS \(unit weights, address 0x"):
            is_right(device, tokens)
        accelerator.reset()
        assert is_right(device, tokens)


@gateware
def test_a_watchdog_that_fails(
    board: UioBoard, accelerator: SimulatedAccelerator, tokens: list[int]
) -> None:
    """The host has another."""
    where = IMAGE.regions["weights"]
    accelerator.reset(lost=(Fault(where.offset, where.size, "r", 1),))
    with on(board, watchdog=0, poll=0.1, patience=1.0) as device:
        with pytest.raises(DeviceError, match=r"nothing has moved for 1 s; busy: FETCH.*STATUS"):
            is_right(device, tokens)
    accelerator.reset()
    with on(board) as device:
        assert is_right(device, tokens)


@gateware
def test_a_lost_interrupt(
    board: UioBoard, accelerator: SimulatedAccelerator, tokens: list[int]
) -> None:
    accelerator.mute = True
    with on(board, poll=0.1) as device:
        with pytest.raises(DeviceError, match=r"has ended, its interrupt has not come.*STATUS 0x2"):
            is_right(device, tokens)
    accelerator.mute = False
    with on(board) as device:
        assert is_right(device, tokens)


@gateware
def test_a_stale_interrupt_does_not_end_a_call(
    board: UioBoard, accelerator: SimulatedAccelerator, tokens: list[int]
) -> None:
    """One that was counted and not read, of a call that was given up."""
    near, far = socket.socketpair()
    stale = threading.Thread(target=serve_interrupt, args=(accelerator, far), daemon=True)
    far.send((41).to_bytes(4, "little"))
    stale.start()
    with on(board) as device:
        device._transport._interrupt.close()  # type: ignore[attr-defined]
        device._transport._interrupt = UioInterrupt(near.detach(), "x")  # type: ignore[attr-defined]
        assert is_right(device, tokens)
    stale.join(30)


@gateware
def test_an_interrupt_that_comes_before_the_wait(
    board: UioBoard, accelerator: SimulatedAccelerator
) -> None:
    with on(board) as device:
        device.load(IMAGE)
        device.start(1, 0)
        while accelerator.read32(ADDRESS["STATUS"]) == Status.BUSY:
            accelerator.run(1000)
        device.wait()


@gateware
def test_a_host_that_is_killed_in_a_call(
    board: UioBoard, accelerator: SimulatedAccelerator, tokens: list[int]
) -> None:
    """The call goes on without it. The next program gives it up and is right."""
    links = [board.serve(what) for what in (serve_registers, serve_interrupt)]
    files = [link.fileno() for link in links]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.host.uio_board", str(board.tree.folder), *map(str, files)],
        pass_fds=files, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        with pytest.raises(UserError, match="in use: end the program that runs on the board"):
            board.open()
    finally:
        process.kill()
        process.wait()
        for link in links:
            link.close()
    accelerator.run(5000)
    assert accelerator.read32(ADDRESS["STATUS"]) == Status.BUSY
    with on(board) as device:
        assert is_right(device, tokens)


@gateware
def test_the_clock_of_the_gateware(board: UioBoard, accelerator: SimulatedAccelerator) -> None:
    """By simulated time; afterwards the accelerator is free."""
    transport = board.open()
    low, high = measure_clock(
        transport, CONFIG, seconds=20_000 / CONFIG.clock_hz, clock=accelerator.seconds,
        sleep=lambda seconds: accelerator.run(round(seconds * CONFIG.clock_hz)),
    )  # fmt: skip
    assert low <= CONFIG.clock_hz <= high < 1.02 * low
    assert accelerator.read32(ADDRESS["STATUS"]) == 0
    where = IMAGE.regions["program"]
    accelerator.reset(errors=(Fault(0, where.end, "r"),))
    with pytest.raises(DeviceError, match=r"did not run .* at 0x800000000.*READ_RESPONSE"):
        measure_clock(
            transport,
            CONFIG,
            clock=accelerator.seconds,
            sleep=lambda seconds: accelerator.run(5000),
        )
    transport.close()


def test_the_program_that_waits_is_one_of_every_configuration() -> None:
    for config in map(load_config, named_configs()):
        program = waiting_program(config)
        assert len(program) == 4096
        command = isa.decode(program[:64])
        assert violation(config, command) is None, config.name
