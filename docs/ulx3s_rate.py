"""Tokens a second of the demo model on the ULX3S: the board simulated, its serial line counted.

python docs/ulx3s_rate.py [--tokens N]     minutes

Accelerator and SDRAM are simulated at their clocks; what goes over the line is counted at the
pseudo-terminal, and takes BITS bits an octet; USB takes a turn whenever the host waits for the
board. Nothing of this has run on a board.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from terntable.host.boards.board import load_board
from terntable.host.commands.setup import load_setup
from terntable.host.devices import open_device
from terntable.host.devices.board import BoardDevice
from terntable.host.link.port import Port
from terntable.host.link.serial_transport import SerialTransport
from terntable.host.session import Session
from terntable.hw.link.protocol import BITS
from terntable.hw.soc.sdram_part import ULX3S_SDRAM
from terntable.sim.serial_board import SimulatedBoard

BOARD, MODEL = "ulx3s", "tiny"
PROMPT = "It was a truth universally acknowledged, that"
TURNS_MS = (1, 2)
"""What a turn takes over USB, at least and at most, with a converter set to low latency."""
PATIENCE = 600.0
"""Seconds for an answer of a simulated board."""


@dataclass
class Counts:
    """octets: both ways. turns: how often the host began to wait after it had sent something."""

    octets: int = 0
    turns: int = 0


class CountedPort(Port):
    """`port`, and what goes over it."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._sent = False
        self.name, self.baud = port.name, port.baud
        self.counts = Counts()

    def take(self) -> Counts:
        """What has been counted since the last time."""
        counts, self.counts = self.counts, Counts()
        return counts

    def write(self, data: bytes) -> None:
        self.counts.octets += len(data)
        self._sent = True
        self._port.write(data)

    def read(self, timeout: float) -> bytes:
        self.counts.turns += self._sent
        self._sent = False
        data = self._port.read(timeout)
        self.counts.octets += len(data)
        return data

    def close(self) -> None:
        self._port.close()


@dataclass
class Row:
    """One call. The line's part and the accelerator's come one after the other."""

    what: str
    tokens: int
    cycles: int
    counts: Counts

    def seconds(self, clock_hz: int, baud: int, turn_ms: float) -> float:
        line = self.counts.octets * BITS / baud
        return self.cycles / clock_hz + line + self.counts.turns * turn_ms / 1000


def measure(tokens: int) -> tuple[list[Row], int, int]:
    """Rows of a prefill, `tokens` decode steps and reading the last one's logits; clock and baud.
    Raises AssertionError when a token differs from the emulator's."""
    board = load_board(BOARD)
    setup = load_setup(MODEL, board.config, "board")
    config, image, baud = setup.config, setup.image, board.serial.baud
    prompt = setup.encode(PROMPT, None)
    with open_device("emulator", config) as emulator:
        expected = Session(emulator, image).generate(prompt, tokens + 1).tokens
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="terntable-board-") as text:
        simulated = SimulatedBoard(
            config, ULX3S_SDRAM, baud, Path(text), image=image, timeout=3600 * 6
        )
        simulated.start()
        port = CountedPort(simulated.opened())
        transport = SerialTransport(port, timeout=PATIENCE)
        with BoardDevice(config, transport, poll=30.0, patience=PATIENCE) as device:
            session = Session(device, image)
            port.take()
            ids = prompt
            for token in expected:
                result = session.advance(ids)
                assert result.argmax == token, (result.argmax, token)
                what = "prefill" if not rows else "decode"
                rows.append(Row(what, len(ids), result.cycles or 0, port.take()))
                ids = [token]
            session.logits()
            rows.append(Row("reading the logits", 0, 0, port.take()))
        simulated.stop()
    return rows, config.clock_hz, baud


def table(rows: list[Row], clock_hz: int, baud: int) -> str:
    """The rows as a table."""
    lines = [
        f"| call | cycles | octets | turns | {TURNS_MS[0]} ms a turn | {TURNS_MS[1]} ms a turn |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        times = [row.seconds(clock_hz, baud, turn) for turn in TURNS_MS]
        rates = [
            f"{1000 * t:.1f} ms" + (f", {row.tokens / t:.1f} tok/s" if row.tokens else "")
            for t in times
        ]
        name = f"{row.what} of {row.tokens}" if row.tokens > 1 else row.what
        lines.append(
            f"| {name} | {row.cycles:,} | {row.counts.octets:,} | {row.counts.turns} |"
            f" {' | '.join(rates)} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=3, help="decode steps")
    print(table(*measure(parser.parse_args().tokens)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
