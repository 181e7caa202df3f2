"""The system on chip in Verilator: accelerator, memory controller, SDRAM; a host at its ports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from terntable.host.compiler import compile_model
from terntable.host.devices import open_device
from terntable.host.model import ModelSpec, random_model
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.soc.sdram_part import ULX3S_SDRAM
from terntable.sim.harness import run_block
from terntable.sim.soc import SimulatedSoc, soc_verilog

CONFIG = AcceleratorConfig.model_validate(
    load_config("test").model_dump() | {"name": "soc", "ports": 1, "clock_hz": 50_000_000}
)
SPEC = ModelSpec(
    name="soc", layers=1, hidden=24, ffn=36, heads=4, kv_heads=2, head_dim=8, vocab=50,
    context=64, rope_theta=1e4, eps=1e-5, activation="relu2", attn_sub_norm=True,
    ffn_sub_norm=True,
)  # fmt: skip
IDS = [7, 31, 2, 40, 11]
PART = replace(ULX3S_SDRAM, t_power_up=2000)


def test_prefill_and_decode_equal_the_emulator(tmp_path: Path) -> None:
    """An image goes over the host's port into the SDRAM; a call of five tokens and one of a single
    token leave the emulator's logits there, bit for bit, at the SDRAM's own pace."""
    model = random_model(SPEC, seed=3)
    image = compile_model(model, CONFIG)
    calls = []
    with open_device("emulator", CONFIG, model=model) as emulator:
        emulator.load(image)
        position = 0
        for ids in (IDS, [9]):
            rows = image.embed(ids).tobytes()
            emulator.write(image.regions["input"].offset, rows)
            emulator.start(len(ids), position)
            argmax = emulator.wait().argmax
            logits = emulator.read(image.regions["logits"].offset, 4 * SPEC.vocab)
            calls.append(
                {
                    "rows": rows.hex(), "tokens": len(ids), "position": position,
                    "argmax": argmax, "logits": logits.hex(),
                }
            )  # fmt: skip
            position += len(ids)
    whole = np.zeros(image.size, np.uint8)
    whole[: image.data.size] = image.data
    (tmp_path / "image").write_bytes(whole.tobytes())
    verilog, vlt = soc_verilog(SimulatedSoc(CONFIG, PART, 100_000_000), CONFIG)
    run_block(
        verilog,
        top="soc",
        module=Path(__file__).parent / "soc_cocotb.py",
        vlt=vlt,
        params={
            "image": str(tmp_path / "image"),
            "hash": CONFIG.hash,
            "chunk": CONFIG.chunk,
            "write_base": image.write_base,
            "program": image.program,
            "input": image.regions["input"].offset,
            "logits": image.regions["logits"].offset,
            "calls": calls,
        },
    )
