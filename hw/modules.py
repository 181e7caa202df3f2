"""Blocks that are emitted once as a Verilog module and placed many times.

Amaranth writes one module per submodule object. An array of equal lanes would explode the Verilog
and the time that simulators and synthesis take over it, so such a block is converted on its own
and placed with `Instance`.

A block may have two forms with the same ports and the same behaviour: a twin, which any simulator
and any device understands, and one that places primitives of a device.
"""

from __future__ import annotations

import re

from amaranth import ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.back import verilog
from amaranth.lib.wiring import Component, In

_MEMORY_INIT = re.compile(r"  initial begin\n((?: +\S+\[\d+\] = \d+'h0+;\n)+)  end\n")


def without_zero_memories(text: str) -> str:
    """Verilog without the lines that set every word of a memory to zero.

    Thousands of lines for a weight ring, over which Yosys takes minutes; gateware does not read a
    word that it has not written, and FPGAs and Verilator start memories at zero anyway.
    """
    return _MEMORY_INIT.sub("", text)


class PlacedModule(Component):
    """An instance of a registered module: same ports, same timing as the component.

    An enclosing ResetInserter does not reach into it: a component that is placed keeps nothing
    that depends on a soft reset.
    """

    def __init__(self, name: str, component: Component) -> None:
        self._name = name
        super().__init__(component.signature)

    def elaborate(self, platform: object) -> Module:
        ports = {"i_clk": ClockSignal("sync"), "i_rst": ResetSignal("sync")}
        for path, member, value in self.signature.flatten(self):
            side = "i" if member.flow is In else "o"
            ports[f"{side}_{'__'.join(map(str, path))}"] = Value.cast(value)
        m = Module()
        m.submodules.block = Instance(self._name, **ports)
        return m


class ModuleLibrary:
    """Registered modules by name; deterministic Verilog of all of them."""

    def __init__(self) -> None:
        self._twins: dict[str, Component] = {}
        self._devices: dict[str, Component] = {}
        self._texts: dict[tuple[str, bool], str] = {}

    def register(self, name: str, twin: Component, device: Component | None = None) -> None:
        """Make `twin` a module, and `device`, if given, its form for the configuration's part.

        Raises ValueError when another block has the name, and when the forms' ports differ.
        """
        if device is not None and device.signature != twin.signature:
            raise ValueError(f"the forms of module {name!r} have other ports")
        if name not in self._twins:
            self._twins[name] = twin
            if device is not None:
                self._devices[name] = device
        elif self._convert(name, twin) != self._text(name, False) or (
            self._convert(name, device or twin) != self._text(name, True)
        ):
            raise ValueError(f"module {name!r} is registered with another content")

    def place(self, name: str) -> PlacedModule:
        """One more instance of a registered module."""
        return PlacedModule(name, self._twins[name])

    @property
    def names(self) -> list[str]:
        """The modules, sorted: a simulator must not inline them."""
        return sorted(self._twins)

    @property
    def has_devices(self) -> bool:
        """Some modules have a form of a device's primitives."""
        return bool(self._devices)

    def verilog(self, device: bool = False) -> str:
        """Text of all modules, sorted by name: the twins, or with `device` the forms for the
        configuration's part where there are any."""
        return "\n".join(self._text(name, device) for name in self.names)

    def verilator_config(self) -> str:
        """Lines of a Verilator configuration file that keep the modules from being inlined."""
        return "".join(f'no_inline -module "{name}"\n' for name in self.names)

    def _text(self, name: str, device: bool) -> str:
        device = device and name in self._devices
        if (name, device) not in self._texts:
            forms = self._devices if device else self._twins
            self._texts[name, device] = self._convert(name, forms[name])
        return self._texts[name, device]

    @staticmethod
    def _convert(name: str, component: Component) -> str:
        text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
        return without_zero_memories(text)
