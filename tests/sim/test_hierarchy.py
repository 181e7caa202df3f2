"""Equal modules of generated Verilog made one; units cut apart and mapped, cached, added up."""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from terntable.hw.flat import to_verilog
from terntable.hw.modules import ModuleLibrary
from terntable.sim.hierarchy import Hierarchy
from terntable.sim.netlist import resources
from terntable.sim.rtlil import split_design
from terntable.sim.synthesis import map_design


class Adder(Component):
    """a + b a cycle later."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        super().__init__({"a": In(bits), "b": In(bits), "o": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(self._bits)
        m.d.sync += total.eq(self.a + self.b)
        m.d.comb += self.o.eq(total)
        return m


class Sums(Component):
    """Adders of equal and of other width side by side, one of them emitted once."""

    def __init__(self, library: ModuleLibrary) -> None:
        self._library = library
        super().__init__({"i": In(64), "o": Out(8), "wide": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._library.register("placed_adder", Adder(8))
        outs = []
        for n in range(4):
            adder = self._library.place("placed_adder") if n == 3 else Adder(8)
            m.submodules[f"adder{n}"] = adder
            # Parts of a signal: the writer makes a name up for one port of both.
            pair = self.i.word_select(n, 16)
            m.d.comb += [adder.a.eq(pair[:8]), adder.b.eq(pair[8:])]
            outs.append(adder.o)
        m.submodules.wide = wide = Adder(16)
        m.d.comb += [wide.a.eq(self.i[:16]), wide.b.eq(self.i[16:32]), self.wide.eq(wide.o)]
        m.d.comb += self.o.eq(outs[0] ^ outs[1] ^ outs[2] ^ outs[3])
        return m


@pytest.fixture(scope="module")
def verilog() -> str:
    library = ModuleLibrary()
    return to_verilog(Sums(library), "sums") + library.verilog()


def test_equal_modules_become_one(verilog: str) -> None:
    assert verilog.count("\nmodule ") == 7  # five adders and what is placed once, and its place
    shared = Hierarchy(verilog)
    names = [line.split()[1] for line in shared.verilog.splitlines() if line.startswith("module ")]
    # The first adder stands for three; the place of the fourth, and the wide one, stay.
    assert len([name for name in names if name.startswith("\\sums.adder")]) == 2
    assert len([name for name in names if name.startswith("\\sums.wide")]) == 1
    assert shared.units("sums") == ["sums", "placed_adder"]


def test_the_parts_add_up_to_the_whole(
    verilog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A design in two units has the registers and carries that it has; the second time no unit is
    mapped, and the result is the same."""
    monkeypatch.setenv("TERNTABLE_CACHE", str(tmp_path))
    mapped: list[str] = []
    first = map_design(verilog, "sums", progress=mapped.append)
    assert len(mapped) == 1
    again = map_design(verilog, "sums", progress=mapped.append)
    assert len(mapped) == 1
    assert again == first
    cells = first.cells()
    assert cells == first.cells("sums")
    assert cells["FDRE"] == 4 * 8 + 16
    assert cells["CARRY4"] == 4 * 2 + 4
    assert first.cells("placed_adder")["FDRE"] == 8
    assert resources(cells)["lut"] >= 8 + 4 * 8 + 16
    # An exclusive or of four sums behind registers; one LUT in front of a sum.
    assert first.levels.most == 1


def test_a_unit_s_text_does_not_depend_on_other_units() -> None:
    """Numbers in names that Yosys made up are the unit's own: the cache finds it again."""
    unit = "module \\unit\n  wire width 2 $auto$x.cc:1:f${}\n  wire input 1 \\a\nend\n"
    first, second = (split_design(f"# Yosys\nautoidx {n}\n" + unit.format(n)) for n in (7, 90))
    assert first == second
    assert first["unit"].stub == "attribute \\blackbox 1\nmodule \\unit\n  wire input 1 \\a\nend\n"
