"""A mapped unit: how many cells of each type, and the graph of its paths."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

LUTRAM = {
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8,
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8,
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM64X8SW": 8,
}  # fmt: skip
"""LUTs of the memories that are made of them."""

SRL = {"SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1}
"""LUTs of shift registers."""

_LOGIC = ("LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "LUT6_2", "INV")
_CARRY = ("CARRY4", "CARRY8")
_FREE = ("MUXF7", "MUXF8", "MUXF9", "BUF", "BUFG", "BUFGCTRL")
_BRAM36 = {"RAMB36E2": 1.0, "RAMB18E2": 0.5}
_URAM = ("URAM288", "URAM288_BASE")
_DSP = ("DSP48E2",)
_FF = ("FDRE", "FDSE", "FDCE", "FDPE")

_KNOWN = {*LUTRAM, *SRL, *_LOGIC, *_CARRY, *_FREE, *_BRAM36, *_URAM, *_DSP, *_FF}

RESOURCES = ("lut", "lutram", "ff", "bram36", "uram", "dsp")
"""What is counted; `lut` holds logic, memories (`lutram`) and shift registers."""


@dataclass(frozen=True)
class Netlist:
    """What Yosys made of a unit.

    Nets are numbers from 2 on. `arcs` are the gates: levels that a path through one takes, nets in,
    nets out. `ends` are registers, memories and DSPs, where paths end and begin: the cell's type
    and the name of a net behind it, nets in, nets out. `ports` are nets by name, least significant
    first (a string is a constant); `outputs` names those that go out. `children` are instances of
    other units: name, unit, nets by port.
    """

    counts: dict[str, int]
    arcs: list[tuple[int, list[int], list[int]]]
    ends: list[tuple[str, list[int], list[int]]]
    ports: dict[str, list[int | str]]
    outputs: list[str]
    children: list[tuple[str, str, dict[str, list[int | str]]]]


def read_netlist(module: dict[str, Any], units: frozenset[str]) -> Netlist:
    """A module of Yosys' JSON format whose cells of the types `units` are instances of those."""
    arcs, ends, children = [], [], []
    counts: Counter[str] = Counter()
    names = _names(module)
    for instance, cell in module["cells"].items():
        kind = cell["type"]
        if kind in units:
            children.append((instance, kind, cell["connections"]))
            continue
        counts[kind] += 1
        ins: dict[str, list[int]] = {}
        outs: dict[str, list[int]] = {}
        for port, bits in cell["connections"].items():
            side = ins if cell["port_directions"][port] == "input" else outs
            side[port] = [bit for bit in bits if isinstance(bit, int)]
        if kind in _CARRY:
            arcs += _carry(cell["connections"])
        elif kind in _LOGIC or kind in _FREE:
            arcs.append((1 if kind in _LOGIC else 0, _all(ins), _all(outs)))
        else:
            if kind in LUTRAM or kind in SRL:
                arcs += [(1, _address(ins, port), bits) for port, bits in outs.items() if bits]
            behind = next((names[bit] for bit in _all(outs) if bit in names), instance)
            ends.append((f"{kind} {behind}", _all(ins), _all(outs)))
    ports = {name: port["bits"] for name, port in module["ports"].items()}
    outputs = [name for name, port in module["ports"].items() if port["direction"] == "output"]
    return Netlist(dict(sorted(counts.items())), arcs, ends, ports, outputs, children)


def resources(counts: dict[str, int]) -> dict[str, float]:
    """LUTs, registers, memories and DSPs that cells of these types take.

    Raises ValueError for a type that isn't known here.
    """
    if unknown := counts.keys() - _KNOWN:
        raise ValueError(f"what a cell {min(unknown)} takes is not known")
    lutram = sum(counts.get(cell, 0) * luts for cell, luts in LUTRAM.items())
    srl = sum(counts.get(cell, 0) * luts for cell, luts in SRL.items())
    return {
        "lut": sum(counts.get(cell, 0) for cell in _LOGIC) + lutram + srl,
        "lutram": lutram,
        "ff": sum(counts.get(cell, 0) for cell in _FF),
        "bram36": sum(counts.get(cell, 0) * part for cell, part in _BRAM36.items()),
        "uram": sum(counts.get(cell, 0) for cell in _URAM),
        "dsp": sum(counts.get(cell, 0) for cell in _DSP),
    }


def _all(pins: dict[str, list[int]]) -> list[int]:
    return [bit for bits in pins.values() for bit in bits]


def _carry(pins: dict[str, list[int | str]]) -> list[tuple[int, list[int], list[int]]]:
    """Paths through carry cells: to a bit of the sum from it and those below it."""
    arcs, reached = [], [*pins.get("CI", []), *pins.get("CI_TOP", []), *pins.get("CYINIT", [])]
    for place, sum_in in enumerate(pins["S"]):
        reached.append(sum_in)
        for port, more in (("O", []), ("CO", pins["DI"][place : place + 1])):
            reached += more
            into = [bit for bit in reached if isinstance(bit, int)]
            out = [bit for bit in pins.get(port, [])[place : place + 1] if isinstance(bit, int)]
            if out:
                arcs.append((0, into, out))
    return arcs


def _address(ins: dict[str, list[int]], out: str) -> list[int]:
    """The pins that choose what is read at `out` of a memory or shift register of LUTs."""
    if out.startswith("DO"):
        prefix = "ADDR" + out[2:]
    else:
        prefix = "DPRA" if out == "DPO" else "A"
    return [bit for port, bits in ins.items() if port.startswith(prefix) for bit in bits]


def _names(module: dict[str, Any]) -> dict[int, str]:
    """A name of a designer for each net that has one."""
    names: dict[int, str] = {}
    for name, net in module["netnames"].items():
        if net["hide_name"]:
            continue
        for place, bit in enumerate(net["bits"]):
            if isinstance(bit, int) and (bit not in names or len(name) < len(names[bit])):
                names[bit] = f"{name}[{place}]" if len(net["bits"]) > 1 else name
    return names
