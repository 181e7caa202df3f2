"""From a configuration to files: Verilog and all that describes it to other tools."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from .c_header import c_header
from .config import GATEWARE_VERSION, AcceleratorConfig, weight_memory_plan
from .flat import Flat
from .fusesoc import core_file
from .modules import ModuleLibrary
from .register_map import register_map
from .top import Terntable

TOP = "terntable"
"""Name of the top module."""

SIMULATION = f"{TOP}_sim.v"
"""The design without a device's primitives."""

REGISTER_MAP = "regmap.json"
HEADER = f"{TOP}.h"
CORE = f"{TOP}.core"
MANIFEST = "manifest.json"

FILES = (f"{TOP}.v", SIMULATION, f"{TOP}.vlt", REGISTER_MAP, HEADER, CORE, MANIFEST)
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

    def texts(self) -> dict[str, str]:
        """Text by file name, of all files but the manifest."""
        texts = {f"{TOP}.v": self.verilog}
        if self.simulation != self.verilog:
            texts[SIMULATION] = self.simulation
        texts[f"{TOP}.vlt"] = self.vlt
        texts[REGISTER_MAP] = json.dumps(register_map(), indent=2) + "\n"
        texts[HEADER] = c_header(self.config)
        texts[CORE] = core_file(self.config, TOP, SIMULATION if SIMULATION in texts else f"{TOP}.v")
        return texts

    @property
    def manifest(self) -> dict[str, object]:
        """What identifies the gateware, and the SHA-256 of every other file."""
        c = self.config
        plan = weight_memory_plan(c)
        return {
            "name": c.name,
            "top": TOP,
            "config_hash": f"{c.hash:08x}",
            "gateware_version": GATEWARE_VERSION,
            "verilog_sha256": _sha256(self.verilog),
            "files": {name: _sha256(text) for name, text in self.texts().items()},
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
        return self.texts() | {MANIFEST: json.dumps(self.manifest, indent=2) + "\n"}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
    library = ModuleLibrary(config.family)
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
