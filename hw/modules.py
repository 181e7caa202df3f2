"""Blocks that are emitted once as a Verilog module and placed many times.

Amaranth writes one module per submodule object. An array of equal lanes would explode the Verilog
and the time that simulators and synthesis take over it, so such a block is converted on its own
and placed with `Instance`.

A block may have two forms with the same ports and the same behaviour: a twin, which any simulator
and any device understands, and one that places primitives of a device.
"""

from __future__ import annotations

from amaranth import ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.back import verilog
from amaranth.lib.wiring import Component, In

from .memories import MemoryPlatform


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
    """Registered modules by name; deterministic Verilog of all of them, for a device's `family`."""

    def __init__(self, family: str | None = None) -> None:
        self._twins: dict[str, Component] = {}
        self._devices: dict[str, Component] = {}
        self._texts: dict[tuple[str, bool], str] = {}
        self._memories = MemoryPlatform(family)

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
        elif self.convert(name, twin) != self._text(name, False) or (
            self.convert(name, device or twin) != self._text(name, True)
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

    def convert(self, name: str, component: Component) -> str:
        """Verilog of `component` as module `name`, which is not registered. Memories become modules
        of the library's."""
        return verilog.convert(
            component, name, self._memories, emit_src=False, strip_internal_attrs=True
        )

    def verilog(self, device: bool = False) -> str:
        """Text of all modules, sorted by name: the twins, or with `device` the forms for the
        configuration's part where there are any. Then that of their memories, and of those of all
        that was converted."""
        texts = [self._text(name, device) for name in self.names]
        return "\n".join([*texts, self._memories.verilog()])

    def verilator_config(self) -> str:
        """Lines of a Verilator configuration file that keep the modules from being inlined."""
        return "".join(f'no_inline -module "{name}"\n' for name in self.names)

    def _text(self, name: str, device: bool) -> str:
        device = device and name in self._devices
        if (name, device) not in self._texts:
            forms = self._devices if device else self._twins
            self._texts[name, device] = self.convert(name, forms[name])
        return self._texts[name, device]
