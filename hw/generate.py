"""From a configuration to files: Verilog, simulator settings, register map, manifest."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from . import regs
from .config import GATEWARE_VERSION, AcceleratorConfig, weight_memory_plan
from .flat import Flat
from .modules import ModuleLibrary
from .top import Terntable

TOP = "terntable"
"""Name of the top module."""

SIMULATION = f"{TOP}_sim.v"
"""The design without a device's primitives."""

FILES = (f"{TOP}.v", SIMULATION, f"{TOP}.vlt", "registers.json", "manifest.json")
"""Names of the files that `terntable generate` writes, SIMULATION only where it differs."""


@dataclass(frozen=True)
class Generated:
    """Text of everything that `terntable generate` writes.

    verilog: for synthesis; a configuration with a part has the part's primitives in it.
    simulation: the same design, each block of primitives replaced by its behavioural twin; the
    same text where there are none. vlt: Verilator's settings for the latter.
    """

    config: AcceleratorConfig
    verilog: str
    simulation: str
    vlt: str

    @property
    def manifest(self) -> dict[str, object]:
        """What identifies the gateware."""
        c = self.config
        plan = weight_memory_plan(c)
        return {
            "name": c.name,
            "top": TOP,
            "config_hash": f"{c.hash:08x}",
            "gateware_version": GATEWARE_VERSION,
            "verilog_sha256": hashlib.sha256(self.verilog.encode()).hexdigest(),
            "macs_per_cycle": c.macs_per_cycle,
            "weight_ring": {
                "primitive": plan.primitive,
                "wide": plan.wide,
                "deep": plan.deep,
                "count": plan.primitives,
                "utilisation": round(plan.utilisation, 4),
            },
            "config": c.model_dump(),
        }

    def files(self) -> dict[str, str]:
        """Text by file name."""
        texts = (
            self.verilog,
            self.simulation,
            self.vlt,
            json.dumps(register_map(), indent=2) + "\n",
            json.dumps(self.manifest, indent=2) + "\n",
        )
        files = dict(zip(FILES, texts, strict=True))
        if self.simulation == self.verilog:
            del files[SIMULATION]
        return files


def register_map() -> dict[str, object]:
    """The register table for software that doesn't import this package."""
    return {
        "magic": regs.MAGIC,
        "version": regs.VERSION,
        "registers": [
            {"name": r.name, "address": r.address, "access": r.access.value, "doc": r.doc}
            for r in regs.REGISTERS
        ],
        "status": {s.name: s.value for s in regs.Status},
        "errors": {e.name: e.value for e in regs.Error},
    }


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector, which finds little among millions of live objects and takes
    nearly half of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@functools.lru_cache(maxsize=4)
def generate(config: AcceleratorConfig) -> Generated:
    """Verilog of an accelerator. The same configuration gives the same bytes."""
    library = ModuleLibrary()
    with _no_collection():
        top = library.convert(TOP, Flat(Terntable(config, library)))
        verilog = f"{top}\n{library.verilog(device=True)}"
        simulation = f"{top}\n{library.verilog()}"
    if library.has_devices:
        verilog, simulation = _for_synthesis(config) + verilog, _FOR_SIMULATION + simulation
    vlt = "`verilator_config\n" + library.verilator_config()
    return Generated(config, verilog, simulation, vlt)


def _for_synthesis(config: AcceleratorConfig) -> str:
    return (
        f"// For synthesis: places primitives of the {config.part}.\n"
        f"// {SIMULATION} is the same design without them, for simulation.\n"
    )


_FOR_SIMULATION = (
    f"// For simulation: {TOP}.v is the same design, cycle by cycle, of a device's primitives.\n"
)
