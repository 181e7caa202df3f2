"""Commands that an SDRAM refuses, for both of its models."""

from __future__ import annotations

from terntable.hw.soc.sdram_bus import PRECHARGE_ALL, Command, mode

C = Command
Step = tuple[Command, int, int, int]
"""Command, bank, address, and the cycles until the next."""

OPEN = (C.ACTIVATE, 1, 5, 3)
START = [
    (C.NOP, 0, 0, 6),
    (C.PRECHARGE, 0, PRECHARGE_ALL, 3),
    *[(C.REFRESH, 0, 0, 7)] * 8,
    (C.LOAD_MODE, 0, mode(2, 3), 2),
]
"""At 100 MHz, of a part that takes 50 ns to power up."""

REFUSED: list[tuple[list[Step], str, str]] = [
    # After START; what the model in Python says, and the one in Verilog.
    ([(C.READ, 1, 0, 2)], "bank 1 is closed", "the bank is closed"),
    ([(C.ACTIVATE, 1, 5, 2), (C.READ, 1, 0, 2)], "20.0 ns after ACTIVATE, 21", "after ACTIVATE"),
    ([OPEN, OPEN], "bank 1 is open", "the bank is open"),
    (
        [(C.ACTIVATE, 1, 5, 1), (C.ACTIVATE, 2, 5, 1)],
        "after another bank's ACTIVATE", "after another bank's ACTIVATE",
    ),
    ([OPEN, (C.PRECHARGE, 1, 0, 1)], "30.0 ns after ACTIVATE, 44", "after ACTIVATE"),
    (
        [(C.ACTIVATE, 1, 5, 5), (C.PRECHARGE, 1, 0, 2), OPEN],
        "after PRECHARGE, 21", "after PRECHARGE",
    ),
    (
        [(C.ACTIVATE, 1, 5, 5), (C.PRECHARGE, 0, PRECHARGE_ALL, 3), OPEN, OPEN],
        "is open", "is open",
    ),
    ([OPEN, (C.REFRESH, 0, 0, 7)], "bank 1 is open at REFRESH", "a bank is open"),
    ([(C.REFRESH, 0, 0, 6), OPEN], "60.0 ns after REFRESH, 66", "after REFRESH"),
    ([OPEN, (C.READ, 1, 0, 1), (C.READ, 1, 2, 1)], "a read is cut short", "a read is cut short"),
    (
        [(C.ACTIVATE, 1, 5, 5), (C.READ, 1, 0, 1), (C.PRECHARGE, 1, 0, 1)],
        "cut short", "cut short",
    ),
    ([OPEN, (C.READ, 1, 1, 1)], "column 1 wraps", "the column wraps"),
    ([OPEN, (C.READ, 1, PRECHARGE_ALL, 1)], "automatic precharge", "automatic precharge"),
    ([OPEN, (C.WRITE, 1, 0, 1)], "nobody drives", "nobody drives"),
    ([(C.LOAD_MODE, 0, mode(2, 3), 2)], "LOAD MODE after 0 refreshes", "too few refreshes"),
    ([(C.NOP, 0, 0, 1600)], "refreshes are late", "refreshes are late"),
    (
        [(C.REFRESH, 0, 0, 1000), (C.REFRESH, 0, 0, 1000), (C.NOP, 0, 0, 1600)],
        "late", "refreshes are late",
    ),
]  # fmt: skip

REFUSED_AT_START: list[tuple[list[Step], str, str]] = [
    ([(C.PRECHARGE, 0, PRECHARGE_ALL, 1)], "after power-up", "after power-up"),
    ([(C.NOP, 0, 0, 6), (C.REFRESH, 0, 0, 7)], "no PRECHARGE before", "no PRECHARGE before"),
    ([(C.NOP, 0, 0, 6), OPEN], "the mode is not set", "the mode is not set"),
]
