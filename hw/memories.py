"""Memories as Verilog that says nothing of their first contents.

Amaranth writes every word of a memory down, megabytes of zeros, which take most of the time of
writing the Verilog and reading it again. Gateware reads no word that it has not written.
"""

from __future__ import annotations

from typing import Any

from amaranth import ClockSignal, Instance, Shape, Value
from amaranth.lib.memory import Memory


class MemoryPlatform:
    """A platform for Amaranth's converters that makes memories instances of modules of its own.

    Memories with contents, and those whose ports Verilog's `reg` array does not give (transparent
    ones, other clocks), stay Amaranth's.

    `family` is the device's, for blocks that are cut otherwise for it; None where there is none.
    """

    def __init__(self, family: str | None = None) -> None:
        self.family = family
        self._modules: dict[str, str] = {}

    def verilog(self) -> str:
        """Text of the modules so far."""
        return "\n".join(f"module \\{name} {body}" for body, name in self._modules.items())

    def get_memory(self, memory: Memory) -> Any:
        """What stands for `memory` in the design (called by Amaranth)."""
        if not _plain(memory):
            return memory.elaborate(None)
        ports: dict[str, Value] = {"i_clk": ClockSignal("sync")}
        for n, write in enumerate(memory.write_ports):
            ports |= {f"i_w{n}_addr": write.addr, f"i_w{n}_en": write.en}
            ports[f"i_w{n}_data"] = Value.cast(write.data)
        for n, read in enumerate(memory.read_ports):
            ports[f"i_r{n}_addr"] = read.addr
            ports[f"o_r{n}_data"] = Value.cast(read.data)
            if read.domain != "comb":
                ports[f"i_r{n}_en"] = read.en
        name = self._modules.setdefault(_body(memory), self._name(memory))
        return Instance(name, **ports)

    def _name(self, memory: Memory) -> str:
        # Dots as in the name of a block's part: what keeps the boundaries of units does not keep
        # this one.
        width, style = Shape.cast(memory.shape).width, memory.attrs.get("ram_style", "any")
        return f"terntable.memory.{width}x{memory.depth}.{style}.{len(self._modules)}"


def _plain(memory: Memory) -> bool:
    domains = {port.domain for port in (*memory.write_ports, *memory.read_ports)}
    transparent = any(read.transparent_for for read in memory.read_ports)
    plain = memory.depth > 1 and domains <= {"sync", "comb"} and not transparent
    return plain and all(isinstance(word, int) and word == 0 for word in memory.init)


def _body(memory: Memory) -> str:
    """A module's text after its name."""
    width = Shape.cast(memory.shape).width
    ports, lines = ["input clk"], []
    attrs = ", ".join(f'{name} = "{value}"' for name, value in sorted(memory.attrs.items()))
    lines.append(
        f"{f'(* {attrs} *) ' if attrs else ''}reg {_range(width)} contents [0:{memory.depth - 1}];"
    )
    for n, write in enumerate(memory.write_ports):
        enables = len(write.en)
        ports += [
            f"input {_range(len(write.addr))} w{n}_addr",
            f"input {_range(enables)} w{n}_en",
            f"input {_range(width)} w{n}_data",
        ]
        lines.append("always @(posedge clk) begin")
        part = width // enables
        for e in range(enables):
            bits = f"[{e * part + part - 1}:{e * part}]" if enables > 1 else ""
            lines.append(f"  if (w{n}_en[{e}]) contents[w{n}_addr]{bits} <= w{n}_data{bits};")
        lines.append("end")
    for n, read in enumerate(memory.read_ports):
        ports.append(f"input {_range(len(read.addr))} r{n}_addr")
        if read.domain == "comb":
            ports.append(f"output {_range(width)} r{n}_data")
            lines.append(f"assign r{n}_data = contents[r{n}_addr];")
        else:
            ports += [f"input r{n}_en", f"output reg {_range(width)} r{n}_data"]
            lines.append(f"always @(posedge clk) if (r{n}_en) r{n}_data <= contents[r{n}_addr];")
    head = ",\n  ".join(ports)
    return f"(\n  {head}\n);\n" + "".join(f"  {line}\n" for line in lines) + "endmodule\n"


def _range(width: int) -> str:
    return f"[{width - 1}:0]"
