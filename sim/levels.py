"""LUTs between registers, over the boundaries of units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from .netlist import Netlist


class LoopError(RuntimeError):
    """Gates drive one another in a circle."""


@dataclass
class _Graph:
    """The design with every instance of a unit in it; nets are numbers."""

    nets: int = 0
    gates: list[tuple[int, list[int], list[int]]] = field(default_factory=list)
    ends: list[tuple[str, str, list[int]]] = field(default_factory=list)
    """Path of the instance, what ends there, the nets that lead to it."""
    starts: dict[int, str] = field(default_factory=dict)
    """What begins at a net."""


@dataclass(frozen=True)
class Levels:
    """The most LUTs of a path that ends in each instance, and where that one begins and ends."""

    levels: dict[str, int]
    paths: dict[str, tuple[str, str]]

    @property
    def most(self) -> int:
        return max(self.levels.values(), default=0)


def logic_levels(netlists: Mapping[str, Netlist], top: str) -> Levels:
    """LUTs on the longest path between two registers, memories, DSPs or pins of `top`.

    A LUT and the read of a memory made of LUTs count one; carry cells and wide multiplexers none.
    A memory of LUTs ends the paths to its write port, and those of its address go on. Instances
    are named by their path, the top by "". Raises LoopError when there is no longest path.
    """
    graph = _Graph()
    _place(graph, netlists, top, "", {})
    depth, before = _depths(graph)
    levels: dict[str, int] = {}
    last: dict[str, tuple[int, str]] = {}
    for path, name, nets in graph.ends:
        net = max(nets, key=depth.__getitem__, default=-1)
        reached = depth[net] if nets else 0
        if reached > levels.get(path, -1):
            levels[path], last[path] = reached, (net, name)
    paths = {}
    for path, (net, name) in last.items():
        while net in before:
            net = before[net]
        paths[path] = (graph.starts.get(net, "a pin or a constant"), _label(path, name))
    return Levels(levels, paths)


def _label(path: str, name: str) -> str:
    return f"{path}: {name}" if path else name


def _place(
    graph: _Graph, netlists: Mapping[str, Netlist], unit: str, path: str, outer: dict[int, int]
) -> None:
    """Add an instance; `outer` are the nets of its input bits."""
    netlist = netlists[unit]
    nets = dict(outer)

    def net(bit: int) -> int:
        if bit not in nets:
            nets[bit] = graph.nets
            graph.nets += 1
        return nets[bit]

    def all_of(bits: list[int]) -> list[int]:
        return [net(bit) for bit in bits]

    graph.gates += [(cost, all_of(i), all_of(o)) for cost, i, o in netlist.arcs]
    for name, ins, outs in netlist.ends:
        graph.ends.append((path, name, all_of(ins)))
        graph.starts.update((each, _label(path, name)) for each in all_of(outs))
    for instance, kind, pins in netlist.children:
        child = netlists[kind]
        inside: dict[int, int] = {}
        leaving = []
        for port, bits in child.ports.items():
            for bit, pin in zip(bits, pins.get(port, []), strict=False):
                if not (isinstance(bit, int) and isinstance(pin, int)):
                    continue
                if port in child.outputs:
                    leaving.append((bit, net(pin)))
                else:
                    inside[bit] = net(pin)
        for bit, _ in leaving:
            if bit not in inside:
                inside[bit] = graph.nets
                graph.nets += 1
        graph.gates += [(0, [inside[bit]], [pin]) for bit, pin in leaving]
        _place(graph, netlists, kind, f"{path}.{instance}" if path else instance, inside)
    if not path:
        for port in netlist.outputs:
            wires = [bit for bit in netlist.ports[port] if isinstance(bit, int)]
            graph.ends.append((path, f"pin {port}", all_of(wires)))


def _depths(graph: _Graph) -> tuple[list[int], dict[int, int]]:
    """LUTs on the longest path to each net, and the net before it on that path."""
    driver = {net: gate for gate, (_, _, outs) in enumerate(graph.gates) for net in outs}
    order = TopologicalSorter(
        {
            gate: {driver[net] for net in ins if net in driver}
            for gate, (_, ins, _) in enumerate(graph.gates)
        }
    )
    depth = [0] * graph.nets
    before: dict[int, int] = {}
    try:
        for gate in order.static_order():
            cost, ins, outs = graph.gates[gate]
            if not ins:
                continue
            latest = max(ins, key=depth.__getitem__)
            for net in outs:
                depth[net], before[net] = depth[latest] + cost, latest
    except CycleError as e:
        raise LoopError(f"a loop of {len(e.args[1]) - 1} gates") from None
    return depth, before
