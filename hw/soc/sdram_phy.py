"""Registers in the pins of an SDR SDRAM."""

from __future__ import annotations

from typing import Any

from amaranth import C, Module
from amaranth.lib import io
from amaranth.lib.wiring import Component, In

from .sdram_bus import SdramSignature
from .sdram_part import SdramPart

IO_CYCLES = 2
"""Cycles that the pins add to the way of a command there and of its data back."""


class SdramPhy(Component):
    """Puts a register into every pin. The SDRAM's clock is the inverse of the controller's.

    So it samples in the middle of the cycle in which a pin is driven. A word that it drives
    t_ac after its edge arrives in the next half cycle, and is sampled by the clock edge after its
    next: with 4 to 9 ns for the ways out (the clock's) and in (the data's) together at 100 MHz.

    ports: clk_en, cs, ras, cas, we, ba, a, dqm, dq of the board. No reset.
    """

    def __init__(self, part: SdramPart, ports: Any) -> None:
        self._ports = ports
        super().__init__({"pins": In(SdramSignature(part))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports, pins = self._ports, self.pins
        bits = pins.command.as_value()
        outputs = {
            "clk_en": pins.cke,
            "cs": C(1),
            "ras": ~bits[2],
            "cas": ~bits[1],
            "we": ~bits[0],
            "ba": pins.ba,
            "a": pins.a,
            "dqm": pins.dqm,
        }
        for name, value in outputs.items():
            m.submodules[name] = buffer = io.FFBuffer("o", getattr(ports, name))
            m.d.comb += buffer.o.eq(value)
        m.submodules.dq = dq = io.FFBuffer("io", ports.dq)
        m.d.comb += [dq.o.eq(pins.dq_o), dq.oe.eq(pins.dq_oe), pins.dq_i.eq(dq.i)]
        return m
