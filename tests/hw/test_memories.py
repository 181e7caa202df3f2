"""Memories as modules of their own behave as Amaranth's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from amaranth import Module, unsigned
from amaranth.back import verilog
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from terntable.hw.modules import ModuleLibrary

from .primitives.forms import check_texts

WIDTH, DEPTH = 12, 21


class Block(Component):
    """A memory with a write port of three enables, and a read port of each kind."""

    def __init__(self, attrs: dict[str, str], init: list[int], transparent: bool) -> None:
        self.attrs, self.init, self.transparent = attrs, init, transparent
        super().__init__(
            {
                "at": In(range(DEPTH)), "en": In(3), "data": In(WIDTH), "read": In(1),
                "from_": In(range(DEPTH)), "now": Out(WIDTH), "later": Out(WIDTH),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=unsigned(WIDTH), depth=DEPTH, init=self.init, attrs=self.attrs
        )
        write = memory.write_port(granularity=4)
        now = memory.read_port(domain="comb")
        later = memory.read_port(transparent_for=(write,) if self.transparent else ())
        m.d.comb += [
            write.addr.eq(self.at), write.en.eq(self.en), write.data.eq(self.data),
            now.addr.eq(self.from_), later.addr.eq(self.from_), later.en.eq(self.read),
            self.now.eq(now.data), self.later.eq(later.data),
        ]  # fmt: skip
        return m


@pytest.mark.parametrize(
    "attrs, init, transparent",
    [({"ram_style": "block"}, [], False), ({}, [], True), ({}, [3, 0, 5], False)],
)
def test_same_behaviour(attrs: dict[str, str], init: list[int], transparent: bool) -> None:
    def block() -> Block:
        return Block(attrs, init, transparent)

    amaranth = verilog.convert(block(), "twin", emit_src=False, strip_internal_attrs=True)
    library = ModuleLibrary()
    ours = library.convert("device", block())
    own = not init and not transparent
    assert ("reg [11:0] contents [0:20];" in library.verilog()) == own
    numbers = {"at": (5, 0, DEPTH - 1), "from_": (5, 0, DEPTH - 1)}
    check_texts(block(), [amaranth, ours, library.verilog()], fields=numbers)


def test_equal_memories_are_one_module() -> None:
    class Two(Component):
        def __init__(self) -> None:
            super().__init__({"data": In(8), "out": Out(16)})

        def elaborate(self, platform: object) -> Module:
            m = Module()
            read: list[Callable[..., Any]] = []
            for n, style in enumerate(("block", "block", "ultra")):
                m.submodules[f"memory{n}"] = memory = Memory(
                    shape=unsigned(8), depth=64, init=[], attrs={"ram_style": style}
                )
                write, port = memory.write_port(), memory.read_port()
                m.d.comb += [write.data.eq(self.data), write.en.eq(1)]
                read.append(port)
            m.d.comb += self.out.eq(read[0].data + read[1].data + read[2].data)
            return m

    library = ModuleLibrary()
    text = library.convert("two", Two())
    assert library.verilog().count("\nendmodule") == 2
    assert text.count(r"\terntable.memory.8x64.block.0 ") == 2
    assert '(* ram_style = "ultra" *)' in library.verilog()
