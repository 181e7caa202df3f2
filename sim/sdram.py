"""A model of an SDR SDRAM that checks what is done to it: times, states, refreshes, the data pins.

It knows nothing of a simulator. Whoever drives it calls `edge` at every rising edge of its clock,
with what is on the pins, and puts on them what it returns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from terntable.hw.soc.sdram_bus import PRECHARGE_ALL, Command, mode
from terntable.hw.soc.sdram_part import SdramPart

_LONG_AGO = -1e12
_REFRESHES_AT_START = 8
_LATE = 2
"""Refresh intervals that may go by until the next, and that may be owed."""


class SdramError(AssertionError):
    """The part's data sheet forbids what was done; the text names command, time and rule."""


@dataclass
class _Bank:
    row: int | None = None
    activated: float = _LONG_AGO
    precharged: float = _LONG_AGO
    written: float = _LONG_AGO
    """Edge at which the last word was taken."""
    read: float = _LONG_AGO
    """Edge from which on a PRECHARGE does not cut a read short."""


@dataclass
class SdramModel:
    """Contents and state of a part that runs at a period in ns.

    Raises SdramError when a command comes too early for the one before or is none that the state
    allows, when a refresh is late, and when two drive the data pins in a cycle or neither drives
    them for a word that is written. Words that were never written read as `unwritten` of their
    address.
    """

    part: SdramPart
    period: float
    burst: int = 1
    words: dict[int, int] = field(default_factory=dict)
    commands: dict[Command, int] = field(default_factory=dict)
    """Of each kind, how many came."""

    def __post_init__(self) -> None:
        self._banks = [_Bank() for _ in range(self.part.banks)]
        self._time = 0.0
        self._cycle = 0
        self._cas: int | None = None
        self._precharged_all = _LONG_AGO
        self._refreshed = _LONG_AGO
        self._mode_set = _LONG_AGO
        self._first_refresh = 0.0
        self._refreshes = 0
        self._output: dict[int, int] = {}  # words by cycle
        self._masks = [0, 0]  # DQM of the last cycles
        self._last_driven = -10
        self._writing: list[int] = []

    @property
    def started(self) -> bool:
        return self._cas is not None

    def unwritten(self, address: int) -> int:
        """What a word that nobody wrote reads as."""
        return address * 40503 >> 3 & (1 << self.part.data_bits) - 1

    def edge(
        self, command: Command, ba: int, a: int, dqm: int, dq: int | None, cke: bool = True
    ) -> int | None:
        """A rising edge. dq: what the controller drives, or None. Returns the word that the SDRAM
        drives from this edge on (t_ac later, until t_oh after the next), or None."""
        self._time, self._cycle = self._time + self.period, self._cycle + 1
        if not cke:
            self._fail("CKE is low")
        if command is not Command.NOP:
            self.commands[command] = self.commands.get(command, 0) + 1
            self._wait("power-up", 0.0, self.part.t_power_up)
            self._wait("LOAD MODE", self._mode_set, max(self.part.t_mrd, 2 * self.period))
            self._wait("REFRESH", self._refreshed, self.part.t_rc)
            getattr(self, f"_{command.name.lower()}")(ba, a)
        self._check_refresh()
        if self._writing:
            self._take(dqm, dq)
        # What was asked for CAS - 1 edges ago appears now. The pins are free a cycle after the
        # next edge: they are released a few ns after it.
        driven = self._output.pop(self._cycle, None)
        mask, self._masks = self._masks[0], [self._masks[1], dqm]
        if dq is not None and (driven is not None or self._cycle - self._last_driven <= 2):
            self._fail("both sides drive DQ")
        if driven is None:
            return None
        if mask:
            self._fail("DQM masks a word that is read")
        self._last_driven = self._cycle
        return driven

    # Commands.
    def _load_mode(self, ba: int, a: int) -> None:
        self._all_closed("LOAD MODE")
        self._wait_for_precharge()
        if self._refreshes < _REFRESHES_AT_START:
            self._fail(f"LOAD MODE after {self._refreshes} refreshes")
        cas = a >> 4 & 7
        if a != mode(self.burst, cas) or ba:
            self._fail(f"mode {a:#x} in bank {ba}")
        if self.part.min_period.get(cas, 1e9) > self.period + 1e-6:
            self._fail(f"CAS latency {cas} at {self.period} ns")
        self._cas, self._mode_set = cas, self._time
        self._first_refresh, self._refreshes = self._time, 0

    def _refresh(self, ba: int, a: int) -> None:
        if self._precharged_all == _LONG_AGO:
            self._fail("no PRECHARGE before")
        self._all_closed("REFRESH")
        self._wait_for_precharge()
        self._refreshed, self._refreshes = self._time, self._refreshes + 1

    def _precharge(self, ba: int, a: int) -> None:
        every = bool(a & PRECHARGE_ALL)
        for n, bank in enumerate(self._banks):
            if every or n == ba:
                if bank.row is not None:
                    self._wait("ACTIVATE", bank.activated, self.part.t_ras)
                    self._wait("the last word", bank.written, self.part.t_wr)
                    if bank.read > self._time + 1e-6:
                        self._fail("a read is cut short")
                    bank.precharged = self._time
                bank.row = None
        if every:
            self._precharged_all = self._time
            for bank in self._banks:
                bank.precharged = self._time

    def _activate(self, ba: int, a: int) -> None:
        self._is_ready()
        bank = self._banks[ba]
        if bank.row is not None:
            self._fail(f"bank {ba} is open")
        self._wait("PRECHARGE", bank.precharged, self.part.t_rp)
        self._wait("ACTIVATE", bank.activated, self.part.t_rc)
        for other in self._banks:
            self._wait("another bank's ACTIVATE", other.activated, self.part.t_rrd)
        bank.row, bank.activated = a, self._time

    def _read(self, ba: int, a: int) -> None:
        addresses = self._column(ba, a)
        assert self._cas is not None
        for n, address in enumerate(addresses):
            self._output[self._cycle + self._cas - 1 + n] = self.words.get(
                address, self.unwritten(address)
            )
        self._banks[ba].read = self._time + self.burst * self.period

    def _write(self, ba: int, a: int) -> None:
        self._writing = self._column(ba, a)
        self._banks[ba].written = self._time + (self.burst - 1) * self.period

    def _column(self, ba: int, a: int) -> list[int]:
        """Word addresses of a burst."""
        self._is_ready()
        bank = self._banks[ba]
        if bank.row is None:
            self._fail(f"bank {ba} is closed")
        self._wait("ACTIVATE", bank.activated, self.part.t_rcd)
        if self._writing:
            self._fail("a write is cut short")
        if any(cycle >= self._cycle + (self._cas or 0) - 1 for cycle in self._output):
            self._fail("a read is cut short")
        if a & PRECHARGE_ALL:
            self._fail("automatic precharge is not modelled")
        column = a & self.part.columns - 1
        if column % self.burst:
            self._fail(f"column {column} wraps in a burst of {self.burst}")
        start = (bank.row << self.part.bank_bits | ba) << self.part.column_bits | column
        return list(range(start, start + self.burst))

    def _take(self, dqm: int, dq: int | None) -> None:
        """A word is written."""
        if dq is None:
            self._fail("nobody drives the word that is written")
        address = self._writing.pop(0)
        old = self.words.get(address, self.unwritten(address))
        keep = sum(0xFF << 8 * n for n in range(self.part.data_bits // 8) if dqm >> n & 1)
        self.words[address] = old & keep | dq & ~keep

    # Rules.
    def _is_ready(self) -> None:
        if self._cas is None:
            self._fail("the mode is not set")

    def _all_closed(self, what: str) -> None:
        for n, bank in enumerate(self._banks):
            if bank.row is not None:
                self._fail(f"bank {n} is open at {what}")

    def _wait_for_precharge(self) -> None:
        for bank in self._banks:
            self._wait("PRECHARGE", bank.precharged, self.part.t_rp)

    def _check_refresh(self) -> None:
        if self._cas is None:
            return
        interval = self.part.t_refi
        since = self._time - max(self._refreshed, self._first_refresh)
        owed = (self._time - self._first_refresh) / interval - self._refreshes
        if since > _LATE * interval or owed > _LATE:
            self._fail(f"refreshes are late: {owed:.1f} owed, the last {since:.0f} ns ago")

    def _wait(self, what: str, since: float, least: float) -> None:
        if self._time - since < least - 1e-6:
            self._fail(f"{self._time - since:.1f} ns after {what}, {least} are needed")

    def _fail(self, text: str) -> NoReturn:
        raise SdramError(f"SDRAM, {self._time:.0f} ns: {text}")
