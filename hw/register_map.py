"""The register table for software that doesn't import this package."""

from __future__ import annotations

from . import regs


def register_map() -> dict[str, object]:
    """Registers, bits and codes, as `regmap.json` has them."""
    return {
        "magic": regs.MAGIC,
        "version": regs.VERSION,
        "registers": [
            {"name": r.name, "address": r.address, "access": r.access.value, "doc": r.doc}
            for r in regs.REGISTERS
        ],
        "status": {s.name: s.value for s in regs.Status},
        "control": {c.name: c.value for c in regs.Control},
        "errors": {e.name: e.value for e in regs.Error},
        "error_meanings": {e.name: meaning for e, meaning in regs.ERROR_MEANINGS.items()},
        "error_units": {str(number): name for number, name in regs.ERROR_UNITS.items()},
    }
