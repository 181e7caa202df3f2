"""Watches every stream of a design, inside and out: monitors in gateware, for simulations.

    with watched():
        simulator = Simulator(WidthConverter(8, 32))

Every component of terntable.hw that is elaborated in between gets a monitor on each stream that it
gives. The monitors are assertions: Amaranth's simulator raises AssertionError, a model of
terntable.sim.build stops; either names the stream.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from amaranth import C, DomainRenamer, Instance, Module, Signal, Value
from amaranth.hdl import Assert, Format
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from terntable.hw.config import AcceleratorConfig
from terntable.hw.generate import Generated, generate

WITHDRAWING = ("clear", "flush", "halt")
"""Inputs of a component that let it withdraw what it offers, but for the bus."""
TAP = "stream_tap"
_BUS = ("ar", "aw", "w")


class StreamMonitor(Component):
    """Asserts the contract of a stream: valid and payload are held until ready, but for a reset and
    the cycle after `drop`."""

    def __init__(self, width: int, name: str) -> None:
        self._name = name
        super().__init__({"valid": In(1), "ready": In(1), "payload": In(width), "drop": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held = Signal()
        was = Signal.like(self.payload)
        m.d.sync += [
            held.eq(self.valid & ~self.ready & ~self.drop),
            was.eq(self.payload),
        ]
        with m.If(held):
            m.d.sync += [
                Assert(self.valid, Format(f"{self._name}: valid fell before ready\n")),
                Assert(
                    ~self.valid | (self.payload == was),
                    Format(f"{self._name}: the payload changed before ready\n"),
                ),
            ]
        return m


def given_streams(component: Component) -> Iterator[tuple[str, Any]]:
    """Name and interface of each stream that a component gives, those within interfaces too."""
    for path, member, _ in component.signature.flatten(component):
        if path[-1] == "valid" and member.flow is Out:
            at: Any = component
            for part in path[:-1]:
                at = getattr(at, str(part))
            if isinstance(at, stream.Interface) and not at.signature.always_ready:
                yield ".".join(map(str, path[:-1])), at


def _watch(m: Module, component: Component, tap: bool) -> None:
    drops = [C(0, 1)]
    members = component.signature.members
    for name in WITHDRAWING:
        if name in members and members[name].is_port and members[name].flow is In:
            drops.append(getattr(component, name))
    for name, given in given_streams(component):
        payload = Value.cast(given.payload)
        where = "watch_" + name.replace(".", "_")
        if tap:
            m.submodules[where] = Instance(
                TAP, i_valid=given.valid, i_payload=payload, i_ready=given.ready
            )
            continue
        monitor = StreamMonitor(len(payload), f"{type(component).__name__}.{name}")
        # A component between clocks has them in `domains`, by the first name of a port.
        domain = getattr(component, "domains", {}).get(name.split(".")[0], "sync")
        m.submodules[where] = DomainRenamer(domain)(monitor)
        on_bus = name.rsplit(".", 1)[-1] in _BUS
        m.d.comb += [
            monitor.valid.eq(given.valid),
            monitor.payload.eq(payload),
            monitor.ready.eq(given.ready),
            monitor.drop.eq(0 if on_bus else functools.reduce(lambda a, b: a | b, drops)),
        ]


def _watching(elaborate: Any, tap: bool) -> Any:
    @functools.wraps(elaborate)
    def wrapper(self: Component, platform: object) -> Module:
        m = elaborate(self, platform)
        _watch(m, self, tap)
        return m

    return wrapper


def _components(of: type = Component) -> Iterator[type]:
    kinds: list[type] = of.__subclasses__()
    for kind in kinds:
        if kind.__module__.startswith("terntable.hw.") and "elaborate" in vars(kind):
            yield kind
        yield from _components(kind)


@contextlib.contextmanager
def watched(tap: bool = False) -> Iterator[None]:
    """Components that are elaborated in between have monitors; with `tap`, instances of the module
    TAP in their places, which mark the streams in a netlist.

    Not for `accelerator.design_of`, which keeps what it generates.
    """
    plain = {kind: vars(kind)["elaborate"] for kind in _components()}
    for kind, elaborate in plain.items():
        kind.elaborate = _watching(elaborate, tap)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for kind, elaborate in plain.items():
            kind.elaborate = elaborate  # type: ignore[attr-defined]


def watched_design(config: AcceleratorConfig, tap: bool = False) -> Generated:
    """The whole accelerator with all monitors, or taps."""
    with watched(tap):
        return generate.__wrapped__(config)
