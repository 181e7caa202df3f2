"""SDR SDRAM parts: geometry and timing in nanoseconds, and the same in clock cycles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from amaranth.utils import exact_log2


@dataclass(frozen=True)
class SdramPart:
    """A part, or the slowest of several that a board may carry. Times are minima in ns, but for
    t_refi and t_ac."""

    name: str
    banks: int
    rows: int
    columns: int
    data_bits: int
    t_rcd: float
    """ACTIVATE to READ or WRITE."""
    t_rp: float
    """PRECHARGE to ACTIVATE."""
    t_ras: float
    """ACTIVATE to PRECHARGE."""
    t_rc: float
    """ACTIVATE to ACTIVATE of the same bank, and REFRESH to any command."""
    t_rrd: float
    """ACTIVATE to ACTIVATE of another bank."""
    t_wr: float
    """Last word written to PRECHARGE."""
    t_mrd: float
    """LOAD MODE to any command; two cycles at least."""
    t_refi: float
    """Between refreshes, on average, at most."""
    t_power_up: float
    """Stable clock to the first command."""
    t_ac: float
    """Clock edge to data, at most."""
    t_oh: float
    """Clock edge to the end of the data before."""
    min_period: dict[int, float]
    """Shortest clock period by CAS latency."""

    @property
    def bytes(self) -> int:
        return self.banks * self.rows * self.columns * self.data_bits // 8

    @property
    def bank_bits(self) -> int:
        return exact_log2(self.banks)

    @property
    def row_bits(self) -> int:
        return exact_log2(self.rows)

    @property
    def column_bits(self) -> int:
        return exact_log2(self.columns)


@dataclass(frozen=True)
class SdramCycles:
    """Times of a part in cycles of a clock, for a CAS latency."""

    cas: int
    rcd: int
    rp: int
    ras: int
    rc: int
    rrd: int
    wr: int
    mrd: int
    refi: int
    power_up: int

    @classmethod
    def of(cls, part: SdramPart, clock_hz: int, cas: int) -> SdramCycles:
        """Raises ValueError when the part is too slow for the clock."""
        period = 1e9 / clock_hz
        if cas not in part.min_period or part.min_period[cas] > period + 1e-6:
            raise ValueError(
                f"{part.name} has no CAS latency {cas} at {clock_hz / 1e6:g} MHz: it has"
                + ",".join(f" {n} up to {1e3 / p:.0f} MHz" for n, p in part.min_period.items())
            )

        def up(ns: float) -> int:
            return max(1, math.ceil(ns / period - 1e-6))

        rp, ras, rc = up(part.t_rp), up(part.t_ras), up(part.t_rc)
        return cls(
            cas=cas,
            rcd=up(part.t_rcd),
            rp=rp,
            ras=max(ras, rc - rp),  # then ACTIVATE to ACTIVATE follows from the two
            rc=rc,
            rrd=up(part.t_rrd),
            wr=up(part.t_wr),
            mrd=max(2, up(part.t_mrd)),
            refi=int(part.t_refi / period),
            power_up=up(part.t_power_up),
        )


ULX3S_SDRAM = SdramPart(
    name="SDRAM of the ULX3S",
    banks=4,
    rows=8192,
    columns=512,
    data_bits=16,
    t_rcd=21,
    t_rp=21,
    t_ras=44,
    t_rc=66,
    t_rrd=15,
    t_wr=15,
    t_mrd=15,
    t_refi=64e6 / 8192,
    t_power_up=200e3,
    t_ac=6,
    t_oh=2.5,
    min_period={2: 10, 3: 7.5},
)
"""32 MB. The slower in each number of the parts that the board has been made with: MT48LC16M16A2-75
and AS4C16M16SA-7 (their data sheets); one of 64 MB, AS4C32M16SB-7, is used to its half."""
