"""From a board's name to the way its registers and memory are reached."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from terntable.hw.config import AcceleratorConfig, load_config, named_configs
from terntable.hw.errors import UserError

from ..devices.base import DeviceError
from ..devices.register_device import IDENTITY, identify
from ..devices.transport import Transport
from ..link.port import SerialPort, port_choice
from ..link.serial_transport import SerialTransport
from ..uio.open import Machine, open_transport
from ..uio.sysfs import find_buffer, find_uio
from .board import Board, Serial, load_board, named_boards
from .clock import check_clock

T = TypeVar("T")


def check_connection(device: str, board: str | None, port: str | None) -> Board | None:
    """The board that the options --board and --port name; None for devices without one. Raises
    UserError where they don't go with the device, or with each other."""
    if device != "board":
        if board is not None or port is not None:
            option = "--board" if board is not None else "--port"
            raise UserError(f"device {device} is on no board: {option} goes with --device board")
        return None
    if board is None:
        raise UserError(f"which board? Name it with --board: {', '.join(named_boards())}")
    found = load_board(board)
    serial = isinstance(found.connect, Serial)
    if serial and port is None:
        raise UserError(f"{board} is at a serial port: name it with --port; {port_choice()}")
    if not serial and port is not None:
        raise UserError(f"{board} is not at a serial port: leave --port away")
    return found


@dataclass(frozen=True)
class Check:
    """One thing on the way to a board: what was found, or what is wrong and what to do."""

    name: str
    found: str | None
    remedy: str = ""


def connect(
    board: Board,
    config: AcceleratorConfig,
    port: str | None = None,
    *,
    machine: Machine | None = None,
    report: Callable[[Check], None] = lambda check: None,
) -> Transport:
    """Reach a board that has `config` in it, for this process alone.

    `report` is called with each thing that is looked at. Raises UserError, with the remedy, or
    DeviceError for the first that is not as it must be.
    """

    def step(name: str, action: Callable[[], T], describe: Callable[[T], str]) -> T:
        try:
            got = action()
        except (UserError, DeviceError) as e:
            report(Check(name, None, str(e)))
            raise
        report(Check(name, describe(got)))
        return got

    with contextlib.ExitStack() as stack:
        transport: Transport
        if isinstance(board.connect, Serial):
            assert port is not None  # see check_connection
            baud = board.connect.baud
            line = step("serial port", lambda: SerialPort(port, baud), lambda _: port)
            stack.callback(line.close)
            transport = step(
                "link", lambda: SerialTransport(line), lambda t: f"answers at {baud:,} baud"
            )
        else:
            uio, here = board.connect, machine or Machine()
            device = step(
                "registers",
                lambda: find_uio(here, uio.device),
                lambda d: f"{d.file}, {d.size} bytes",
            )
            buffer = step(
                "memory",
                lambda: find_buffer(here, uio.buffer, uio.buffer_bytes),
                lambda b: f"{b.size / (1 << 20):g} MiB at {b.address:#x}, {b.file}",
            )
            transport = step(
                "access", lambda: open_transport(here, uio, device, buffer), lambda t: "granted"
            )
        stack.callback(transport.close)
        step("design", lambda: check_design(transport, config), str)
        step("clock", lambda: check_clock(transport, config), str)
        stack.pop_all()
        return transport


def check_design(transport: Transport, config: AcceleratorConfig) -> str:
    """What is in the fabric, in words. Raises UserError where it is not `config`."""
    there = identify(transport.get(*IDENTITY), f"the board ({transport.name})")
    if there != config.hash:
        names = [name for name in named_configs() if load_config(name).hash == there]
        raise UserError(
            f"the board ({transport.name}) has configuration {there:08x}"
            f"{f' ({names[0]})' if names else ''}, {config.name!r} is {config.hash:08x}: load the"
            " bitstream that terntable build makes of it, or name the one it has with --config"
        )
    return f"configuration {config.name} ({there:08x})"
