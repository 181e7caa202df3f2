"""Compares the two forms of a block as Verilog: its twin and the one of device primitives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amaranth import Value
from amaranth.back import verilog
from amaranth.lib.wiring import Component, In

from terntable.sim.harness import run_block

HERE = Path(__file__).parent


def check_forms(
    twin: Component,
    device: Component,
    models: Sequence[Path],
    *,
    cycles: int = 500,
    warm_up: int = 4,
    seed: int = 1,
    held: Sequence[str] = (),
) -> None:
    """Random inputs in every cycle: the outputs of both forms must be equal in every cycle after
    `warm_up`, when the control registers of primitives hold what they always do. `models` describe
    the primitives. Inputs named in `held` are zero."""
    assert twin.signature == device.signature
    ports = [
        ("__".join(map(str, path)), len(Value.cast(value)), member.flow is In)
        for path, member, value in twin.signature.flatten(twin)
    ]
    texts = [
        verilog.convert(form, name=name, emit_src=False, strip_internal_attrs=True)
        for name, form in (("twin", twin), ("device", device))
    ]
    run_block(
        "\n".join([_pair(ports), *texts]),
        top="pair",
        module=HERE / "forms_cocotb.py",
        params={
            "inputs": [(name, width) for name, width, is_in in ports if is_in],
            "outputs": [name for name, _, is_in in ports if not is_in],
            "held": list(held), "cycles": cycles, "warm_up": warm_up, "seed": seed,
        },
        extra_sources=models,
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
