"""Results of full-size runs: data files with what made them, and whether they still hold."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from terntable.host.bench.workload import Workload, make_workload
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.isa import KvFormat


@dataclass(frozen=True)
class Run:
    """A full-size run of one point: decode behind `context` tokens, or prefill of `prompt`."""

    shape: str
    context: int | None = None
    prompt: int | None = None
    kv: KvFormat = KvFormat.INT8
    planes: int = 5
    config: str = "kv260"

    @property
    def name(self) -> str:
        what = f"decode-{self.context}" if self.context else f"prefill-{self.prompt}"
        planes = "" if self.planes == 5 else f"-{self.planes}planes"
        return f"{self.shape}-{what}-{self.kv.label}{planes}"

    @property
    def command(self) -> str:
        """What a user types to do it again."""
        point = f"--context {self.context}" if self.context else f"--prompt {self.prompt}"
        planes = "" if self.planes == 5 else f" --planes {self.planes}"
        return (
            f"terntable bench --config {self.config} --shape {self.shape} {point}"
            f" --kv {self.kv.label}{planes}"
        )

    @property
    def workload(self) -> Workload:
        contexts = [self.context] if self.context else []
        prompts = [self.prompt] if self.prompt else []
        config = load_config(self.config)
        return make_workload(config, self.shape, contexts, prompts, kv=self.kv, planes=self.planes)


RUNS = (
    Run("bitnet-0.73b", context=128),
    Run("bitnet-0.73b", context=1024),
    Run("bitnet-0.73b", prompt=64),
    Run("bitnet-0.73b", prompt=128),
    Run("bitnet-2b-4t", context=128),
    Run("bitnet-2b-4t", context=128, planes=4),
    Run("bitnet-2b-4t", prompt=128),
    Run("bitnet-0.73b", prompt=1000),
)
"""The full-size runs, quick ones first: `make bench-full`."""


@dataclass(frozen=True)
class Gateware:
    """What a result was simulated on: the configuration's hash, the digest of the generator's
    sources (see sim/accelerator.py) and the SHA-256 of the Verilog."""

    config_hash: str
    sources: str
    verilog_sha256: str


@dataclass(frozen=True)
class Record:
    """A result: the JSON object of `terntable bench` and where it comes from."""

    command: str
    date: str
    gateware: Gateware
    result: dict[str, Any]

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def parse(cls, text: str) -> Record:
        fields = json.loads(text)
        return cls(**fields | {"gateware": Gateware(**fields["gateware"])})


FOLDER = Path(__file__).parent / "data"
"""Where the data files lie."""


def load(run: Run) -> Record | None:
    """A run's result, None where there is none."""
    file = FOLDER / f"{run.name}.json"
    return Record.parse(file.read_text(encoding="utf-8")) if file.is_file() else None


def record(run: Run, result: dict[str, Any], gateware: Gateware) -> Record:
    """A result of today."""
    return Record(run.command, datetime.date.today().isoformat(), gateware, result)


def current_gateware(config: AcceleratorConfig) -> Gateware:
    """That of this checkout. Generates the Verilog, unless it is in the cache; raises UserError
    when the generator's packages are missing."""
    from terntable.sim.accelerator import design_of, gateware_digest

    verilog = design_of(config).verilog
    digest = hashlib.sha256(verilog.encode()).hexdigest()
    return Gateware(f"{config.hash:08x}", gateware_digest(config), digest)


def is_stale(found: Record, config: AcceleratorConfig) -> bool:
    """Whether the gateware has changed since. Verilog is generated only when sources differ."""
    from terntable.sim.accelerator import gateware_digest

    if found.gateware.config_hash != f"{config.hash:08x}":
        return True
    if found.gateware.sources == gateware_digest(config):
        return False
    return found.gateware.verilog_sha256 != current_gateware(config).verilog_sha256
