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
from .flat import Flat, to_verilog
from .modules import ModuleLibrary
from .top import Terntable

TOP = "terntable"
"""Name of the top module."""

FILES = (f"{TOP}.v", f"{TOP}.vlt", "registers.json", "manifest.json")
"""Names of the files that `terntable generate` writes."""


@dataclass(frozen=True)
class Generated:
    """Text of everything that `terntable generate` writes."""

    config: AcceleratorConfig
    verilog: str
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
            self.vlt,
            json.dumps(register_map(), indent=2) + "\n",
            json.dumps(self.manifest, indent=2) + "\n",
        )
        return dict(zip(FILES, texts, strict=True))


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
        verilog = to_verilog(Flat(Terntable(config, library)), TOP, library)
    return Generated(config, verilog, "`verilator_config\n" + library.verilator_config())
