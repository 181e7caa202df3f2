"""Bitstreams that are kept with the sources, against their manifests and the gateware of today.

python -m terntable.host.flows.committed bitstreams
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError

from ..boards.board import load_board

MANIFEST = "manifest.json"


def folders(root: Path) -> list[Path]:
    """Folders with a manifest, sorted."""
    return sorted(file.parent for file in root.glob(f"*/{MANIFEST}"))


def contradictions(folder: Path) -> Iterator[str]:
    """What the manifest says that is not so, whatever the gateware is today."""
    try:
        made = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as e:
        yield f"not JSON: {e}"
        return
    try:
        bitstream = made["bitstream"]
        file = folder / bitstream["name"]
        if not file.is_file():
            yield f"{file.name} is missing"
        elif hashlib.sha256(file.read_bytes()).hexdigest() != bitstream["sha256"]:
            yield f"{file.name} has another SHA-256"
        AcceleratorConfig.model_validate(made["config"])
        if made["config"]["name"] != made["config_name"]:
            yield f"config is {made['config']['name']!r}, config_name {made['config_name']!r}"
        if made["fmax_mhz"] < made["clock_mhz"]:
            yield f"fmax_mhz {made['fmax_mhz']} is below clock_mhz {made['clock_mhz']}"
        if made["clock_mhz"] != made["config"]["clock_hz"] / 1e6:
            yield f"clock_mhz is {made['clock_mhz']}, clock_hz {made['config']['clock_hz']}"
        for name, of in made["utilisation"].items():
            if of["used"] > of["available"]:
                yield f"{name}: {of['used']} used of {of['available']}"
        part = load_board(made["board"]).part
        if made["config"]["part"] != part:
            yield f"config is for {made['config']['part']}, board {made['board']} has {part}"
    except KeyError as e:
        yield f"{e.args[0]!r} is missing"
    except (TypeError, ValueError, UserError) as e:
        yield " ".join(str(e).split())


def moved_on(made: dict[str, Any], generate: Callable[[AcceleratorConfig], Any]) -> Iterator[str]:
    """How the gateware of today differs from what the bitstream was made of."""
    config = AcceleratorConfig.model_validate(made["config"])
    if f"{config.hash:08x}" != made["config_hash"]:
        yield f"the configuration's hash is {config.hash:08x}, it was {made['config_hash']}"
    texts = generate(config).texts()
    for name, old in made["files"].items():
        if name not in texts:
            yield f"{name} is generated no more"
        elif hashlib.sha256(texts[name].encode()).hexdigest() != old:
            yield f"{name} has become another"


def main(root: Path) -> int:
    """Print findings, one a line. 1 when a manifest contradicts itself; that gateware has moved on
    is a warning."""
    from terntable.hw.generate import generate

    status = 0
    for folder in folders(root):
        wrong = list(contradictions(folder))
        for line in wrong:
            print(f"{folder}: {line}", file=sys.stderr)
        if wrong:
            status = 1
            continue
        made = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        changes = list(moved_on(made, generate))
        for line in changes:
            print(f"{folder}: warning: {line}", file=sys.stderr)
        print(f"{folder}: {'of older gateware' if changes else 'up to date'}")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
