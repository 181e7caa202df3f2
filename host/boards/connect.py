"""From a board's name to the way its registers and memory are reached."""

from __future__ import annotations

from terntable.hw.errors import UserError

from ..devices.transport import Transport
from ..link.port import SerialPort, port_choice
from ..link.serial_transport import SerialTransport
from .board import Board, Serial, load_board, named_boards


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


def connect(board: Board, port: str | None = None) -> Transport:
    """Reach a board. Raises UserError, with the remedy, where that can't be done."""
    if isinstance(board.connect, Serial):
        assert port is not None  # see check_connection
        line = SerialPort(port, board.connect.baud)
        try:
            return SerialTransport(line)
        except BaseException:
            line.close()
            raise
    raise UserError(
        f"{board.name} runs its own Linux: this release reaches boards at a serial port only"
    )
