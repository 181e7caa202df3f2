"""`terntable generate`: a folder with the Verilog, the register map and a manifest."""

from __future__ import annotations

import json
from pathlib import Path

from terntable.hw.config import load_config
from terntable.hw.errors import UserError

from ..output import check_folder, write_folder
from .run import say


def generate_command(config_name: str, out: Path, as_json: bool) -> None:
    """Write the folder whole or not at all."""
    config = load_config(config_name)
    try:
        from terntable.hw.generate import FILES, generate
    except ImportError as e:
        raise UserError(f"generating Verilog needs {e.name}: pip install 'terntable[hw]'") from None
    check_folder(out, FILES)
    say(f"generating the Verilog of {config.name}")
    generated = generate(config)
    files = generated.files()
    write_folder(out, files)
    for name in FILES:
        if name not in files:  # of another configuration
            (out / name).unlink(missing_ok=True)
    if as_json:
        print(json.dumps(generated.manifest | {"out": str(out)}))
    else:
        print(f"{out}: {', '.join(files)}")
