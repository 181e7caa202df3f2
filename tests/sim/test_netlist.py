"""Levels on netlists whose depth is known, and counts of cells."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from terntable.sim.levels import LoopError, logic_levels
from terntable.sim.netlist import Netlist, read_netlist, resources

DIRECTIONS = {
    "LUT2": {"I0": "input", "I1": "input", "O": "output"},
    "FDRE": {"C": "input", "CE": "input", "D": "input", "R": "input", "Q": "output"},
    "CARRY4": {
        "CI": "input", "CYINIT": "input", "DI": "input", "S": "input", "O": "output",
        "CO": "output",
    },
    "RAM32X1D": {"A": "input", "DPRA": "input", "D": "input", "WE": "input", "DPO": "output"},
    "DSP48E2": {"A": "input", "P": "output"},
}  # fmt: skip

Bits = list[int | str]


def cell(kind: str, **pins: Bits) -> dict[str, Any]:
    directions = DIRECTIONS.get(kind, {})
    return {"type": kind, "port_directions": directions, "connections": pins}


def module(
    cells: dict[str, dict[str, Any]],
    inputs: dict[str, Bits] | None = None,
    outputs: dict[str, Bits] | None = None,
    names: dict[str, Bits] | None = None,
) -> dict[str, Any]:
    """A module as Yosys writes it."""
    ports = {name: {"direction": "input", "bits": bits} for name, bits in (inputs or {}).items()}
    ports |= {n: {"direction": "output", "bits": bits} for n, bits in (outputs or {}).items()}
    nets = {name: {"hide_name": 0, "bits": bits} for name, bits in (names or {}).items()}
    return {"ports": ports, "cells": cells, "netnames": nets}


def netlist(found: dict[str, Any], *units: str) -> Netlist:
    return read_netlist(found, frozenset(units))


def chain(start: int, length: int, end: int) -> dict[str, dict[str, Any]]:
    """`length` LUTs in a row from one net to another."""
    nets = [start, *range(1000 * end, 1000 * end + length - 1), end]
    return {
        f"lut{end}_{n}": cell("LUT2", I0=[a], I1=["0"], O=[b])
        for n, (a, b) in enumerate(itertools.pairwise(nets))
    }


def test_luts_between_registers_are_counted() -> None:
    """Five LUTs between two registers, two more behind: a register ends a path."""
    cells = {
        "first": cell("FDRE", C=[2], D=[9], CE=["1"], R=["0"], Q=[3]),
        **chain(3, 5, 4),
        "second": cell("FDRE", C=[2], D=[4], CE=["1"], R=["0"], Q=[5]),
        **chain(5, 2, 6),
        "third": cell("FDRE", C=[2], D=[6], CE=["1"], R=["0"], Q=[7]),
    }
    flat = netlist(module(cells, {"clk": [2], "i": [9]}, {}, {"a": [3], "b": [5], "c": [7]}))
    found = logic_levels({"top": flat}, "top")
    assert found.most == 5
    assert found.paths[""] == ("FDRE a", "FDRE b")


def test_every_pin_of_a_register_and_the_pins_of_the_design_end_paths() -> None:
    enable = {
        "a": cell("FDRE", C=[2], D=[9], CE=["1"], R=["0"], Q=[3]),
        **chain(3, 3, 4),
        "b": cell("FDRE", C=[2], D=[9], CE=[4], R=["0"], Q=[5]),
    }
    assert logic_levels({"top": netlist(module(enable, {"i": [9]}))}, "top").most == 3
    out = chain(9, 4, 4)
    assert logic_levels({"top": netlist(module(out, {"i": [9]}, {"o": [4]}))}, "top").most == 4


def test_carries_cost_nothing_and_lead_upwards_only() -> None:
    """A sum's low bit may feed its high bits; the path takes the LUTs on the way."""
    cells = {
        "a": cell("FDRE", C=[2], D=[9], CE=["1"], R=["0"], Q=[3]),
        **chain(3, 2, 4),
        "sum": cell(
            "CARRY4", CI=["0"], CYINIT=["0"], DI=["0", "0", "0", "0"], S=[4, 3, 8, 3],
            O=[5, 6, 7, 10], CO=[11, 12, 13, 14],
        ),
        **chain(5, 3, 8),
        **chain(10, 1, 15),
        "b": cell("FDRE", C=[2], D=[15], CE=["1"], R=["0"], Q=[16]),
    }  # fmt: skip
    assert logic_levels({"top": netlist(module(cells))}, "top").most == 2 + 3 + 1


def test_a_read_of_lut_memory_is_a_level_and_its_write_port_an_end() -> None:
    cells = {
        "a": cell("FDRE", C=[2], D=[9], CE=["1"], R=["0"], Q=[3]),
        **chain(3, 6, 20),
        **chain(3, 1, 4),
        "memory": cell("RAM32X1D", A=[3], D=[20], DPRA=[4], WE=["1"], DPO=[5]),
        **chain(5, 2, 6),
        "dsp": cell("DSP48E2", A=[6], P=[7]),
        **chain(7, 3, 8),
        "b": cell("FDRE", C=[2], D=[8], CE=["1"], R=["0"], Q=[10]),
    }
    flat = netlist(module(cells))
    assert logic_levels({"top": flat}, "top").most == 6  # to the data of the write port
    cells |= chain(3, 2, 20)
    for name in ("lut20_2", "lut20_3", "lut20_4", "lut20_5"):
        del cells[name]
    assert logic_levels({"top": netlist(module(cells))}, "top").most == 1 + 1 + 2


def test_paths_go_through_units() -> None:
    """Two LUTs in one unit, three in the other, placed twice in a row: eight levels."""
    inner = netlist(module(chain(2, 3, 3), {"i": [2]}, {"o": [3]}))
    outer = module(
        {
            "a": cell("FDRE", C=[2], D=[9], CE=["1"], R=["0"], Q=[3]),
            **chain(3, 2, 4),
            "one": {"type": "unit", "connections": {"i": [4], "o": [5]}},
            "two": {"type": "unit", "connections": {"i": [5], "o": [6]}},
            "b": cell("FDRE", C=[2], D=[6], CE=["1"], R=["0"], Q=[7]),
        }
    )
    found = logic_levels({"top": netlist(outer, "unit"), "unit": inner}, "top")
    assert found.most == 8
    ends = netlist(module({"c": cell("FDRE", C=[4], D=[2], Q=[3])}, {"i": [2]}, {"o": [3]}))
    found = logic_levels({"top": netlist(outer, "unit"), "unit": ends}, "top")
    assert found.levels == {"": 0, "one": 2, "two": 0}


def test_a_loop_is_an_error() -> None:
    with pytest.raises(LoopError):
        logic_levels({"top": netlist(module({**chain(2, 2, 3), **chain(3, 1, 2)}))}, "top")


def test_cells_count_as_the_luts_they_take() -> None:
    cells = {"LUT6": 3, "LUT1": 1, "CARRY4": 9, "MUXF7": 2, "RAM32M16": 2, "RAM64M8": 1}
    cells |= {"SRL16E": 5, "SRLC32E": 1, "FDRE": 7, "FDSE": 1, "RAMB36E2": 2, "RAMB18E2": 3}
    found = resources(cells | {"URAM288": 4, "DSP48E2": 6})
    assert found == {
        "lut": 4 + 3 * 8 + 6, "lutram": 24, "ff": 8, "bram36": 3.5, "uram": 4, "dsp": 6,
    }  # fmt: skip
