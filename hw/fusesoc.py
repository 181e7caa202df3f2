"""The FuseSoC core file (CAPI2) beside the generated Verilog."""

from __future__ import annotations

from typing import Any

import yaml

from .config import GATEWARE_VERSION, AcceleratorConfig

SIMULATORS = ("verilator", "icarus")
"""Tools of FuseSoC that take the design without a device's primitives."""


def core_file(config: AcceleratorConfig, top: str, simulation: str) -> str:
    """Text of the core `terntable:accelerator:NAME`.

    `top` names the module and its Verilog file, `simulation` the file that simulators take. Target
    `default` is what a core that depends on this one gets, `lint` runs Verilator's lint.
    """
    synthesis = f"{top}.v"
    filesets: dict[str, Any] = {
        "synthesis": {"files": [synthesis], "file_type": "verilogSource-2005"},
        "verilator": {"files": [f"{top}.vlt"], "file_type": "vlt"},
    }
    of_default = ["synthesis"]
    if simulation != synthesis:
        filesets["simulation"] = {"files": [simulation], "file_type": "verilogSource-2005"}
        no_simulator = "synthesis"
        for tool in SIMULATORS:
            no_simulator = f"!tool_{tool} ? ({no_simulator})"
        of_default = [*(f"tool_{tool} ? (simulation)" for tool in SIMULATORS), no_simulator]
    of_default.append("tool_verilator ? (verilator)")
    core = {
        "name": f"terntable:accelerator:{config.name}:{GATEWARE_VERSION}",
        "description": f"Accelerator of ternary language models, configuration {config.name}"
        f" ({config.hash:08x})",
        "filesets": filesets,
        "targets": {
            "default": {"filesets": of_default, "toplevel": top},
            "lint": {
                "description": "Verilator's lint",
                "filesets": ["verilator", "synthesis" if simulation == synthesis else "simulation"],
                "toplevel": top,
                "flow": "lint",
                "flow_options": {"tool": "verilator", "verilator_options": ["-Wno-fatal"]},
            },
        },
    }
    return "CAPI=2:\n" + yaml.safe_dump(core, sort_keys=False, width=100)
