"""Shift registers that keep a signal in step with a pipeline of fixed latency."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal


def delay(m: Module, signal: Any, cycles: int, *, reset_less: bool = False) -> Any:
    """`signal` (a value or a view) as it was `cycles` cycles ago; the signal itself for 0.

    Valid flags need the reset. Data does not, and without one a long delay maps to LUT shift
    registers: pass `reset_less=True`.
    """
    for _ in range(cycles):
        later = Signal(signal.shape(), reset_less=reset_less, name="delay")
        m.d.sync += later.eq(signal)
        signal = later
    return signal


def register(m: Module, value: Any) -> Any:
    """A pipeline register for data: `value` one cycle ago, without reset."""
    return delay(m, value, 1, reset_less=True)
