"""`terntable compile`: a model's DRAM image, its map, and the image as a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ..output import check_writable
from .setup import load_setup


def compile_command(
    model: str,
    kv: str | None,
    planes: int | None,
    config: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compile, print the map, write the image if asked to. Raises UserError."""
    if out is not None:
        check_writable(out, "image file")
    setup = load_setup(model, config, "emulator", kv, planes)
    image = setup.image
    if out is not None:
        image.save(out)
    if as_json:
        print(
            json.dumps(
                {
                    "config": setup.config.name,
                    "kv": image.kv.label,
                    "bytes": image.size,
                    "write_base": image.write_base,
                    "context": image.context,
                    "regions": [asdict(r) for r in image.regions.values()],
                }
            )
        )
    else:
        print(image.describe())
