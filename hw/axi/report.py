"""Error reports of the ports."""

from __future__ import annotations

from amaranth import Module, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..regs import Error


def error_layout() -> data.StructLayout:
    """What went wrong (regs.Error), for which requester, at which offset."""
    return data.StructLayout(
        {"valid": unsigned(1), "code": unsigned(8), "unit": unsigned(8), "address": unsigned(32)}
    )


class FirstError(Component):
    """Keeps the first of the errors that are reported, the lowest input on a tie, until `clear`
    or reset.

    Latency: one cycle. `clear` wins over a report of the same cycle.
    """

    LATENCY = 1

    o: data.View
    clear: Signal

    def __init__(self, inputs: int) -> None:
        self._inputs = inputs
        super().__init__(
            {
                **{f"i{n}": In(error_layout()) for n in range(inputs)},
                "o": Out(error_layout()),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The later assignment wins, so the first input comes last.
        for n in reversed(range(self._inputs)):
            report = getattr(self, f"i{n}")
            with m.If(report.valid & ~self.o.valid):
                m.d.sync += self.o.eq(report)
        with m.If(self.clear):
            m.d.sync += self.o.eq(0)
        return m


def report(m: Module, to: data.View, code: Error, unit: Value, address: Value) -> None:
    """Drive the report `to` combinationally; for use inside a condition."""
    m.d.comb += [to.valid.eq(1), to.code.eq(code), to.unit.eq(unit), to.address.eq(address)]
