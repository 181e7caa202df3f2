"""Importing checkpoints of published shapes: time and memory.

The weights are random; time and memory don't depend on them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from terntable.host.checkpoints.config_json import LINEARS, NORMS
from terntable.host.checkpoints.tensor_writer import TensorWriter
from terntable.host.model import ModelSpec
from terntable.host.named_shapes import NAMED_SHAPES

LARGE, TWO_BILLION = NAMED_SHAPES["bitnet-0.73b"], NAMED_SHAPES["bitnet-2b-4t"]
CODES = np.array([sum((n // 3**i % 3) << 2 * i for i in range(4)) for n in range(81)], np.uint8)
"""Bytes of four two-bit trits."""


def bfloat16(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random numbers of magnitude 2^-7 to 2^-6, as bits."""
    bits = rng.integers(0, 1 << 16, shape, np.uint16)
    bits &= 0x807F
    bits |= 0x3C00
    return bits


def write_folder(folder: Path, spec: ModelSpec, packed: bool) -> Path:
    """A BitNet folder of random weights, packed or as bfloat16 masters, a tensor at a time."""
    rng = np.random.default_rng(0)
    quantisation = {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "offline" if packed else "online",
    }
    config = {
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "hidden_size": spec.hidden,
        "intermediate_size": spec.ffn,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "vocab_size": spec.vocab,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.eps,
        "rope_theta": spec.rope_theta,
        "hidden_act": spec.activation,
        "tie_word_embeddings": True,
        "quantization_config": quantisation,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    names = [f"model.layers.{n}.{'x' * 40}" for n in range(spec.layers) for _ in range(18)]
    with TensorWriter(folder / "model.safetensors", names) as writer:
        writer.add("model.embed_tokens.weight", bfloat16(rng, spec.vocab, spec.hidden))
        writer.add("model.norm.weight", bfloat16(rng, spec.hidden))
        for n in range(spec.layers):
            for name, (rows, columns) in spec.linear_shapes.items():
                at = f"model.layers.{n}.{LINEARS[name]}.weight"
                if packed:
                    codes = rng.integers(0, 81, (rows // 4, columns), np.uint8)
                    writer.add(at, CODES[codes])
                    writer.add(f"{at}_scale", bfloat16(rng, 1) & 0x7FFF)
                else:
                    writer.add(at, bfloat16(rng, rows, columns))
            for name, size in spec.norm_sizes.items():
                writer.add(f"model.layers.{n}.{NORMS[name]}.weight", bfloat16(rng, size))
        writer.finish()
    return folder


class Cost(NamedTuple):
    seconds: float
    gigabytes: float


CHILD = """
import atexit, pathlib, sys
from terntable.host.cli import main
status = pathlib.Path(sys.argv.pop())
atexit.register(lambda: status.write_text(pathlib.Path("/proc/self/status").read_text()))
main()
"""


def run_import(folder: Path, out: Path) -> tuple[Cost, dict]:
    """Import in a process of its own: time, largest resident memory (binary GB), its report.

    The process reads its peak itself: what wait4 tells includes the parent's size at the fork.
    """
    status = out.with_suffix(".status")
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "import", folder, "--out", out, "--json", status],
        stdout=subprocess.PIPE,
        check=True,
    )
    seconds = time.perf_counter() - began
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    cost = Cost(seconds, int(peak.split()[1]) / 2**20)
    print(f"{folder.name}: {cost.seconds:.1f} s, {cost.gigabytes:.2f} GB")
    return cost, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "packed", "seconds", "gigabytes"),
    [
        (LARGE, True, 60, 3),
        (LARGE, False, 90, 3),
        (TWO_BILLION, True, 180, 4),
    ],
    ids=["large-packed", "large-masters", "2B-packed"],
)
def test_time_and_memory(
    tmp_path: Path, spec: ModelSpec, packed: bool, seconds: float, gigabytes: float
) -> None:
    folder = write_folder(tmp_path / spec.name, spec, packed)
    try:
        cost, report = run_import(folder, tmp_path / "out")
    finally:
        for name in (folder, tmp_path / "out"):  # gigabytes, which pytest would keep
            shutil.rmtree(name, ignore_errors=True)
    assert report["ternary_weights"] == spec.ternary_weights
    # 1.6 bits a weight, two bytes an embedding's element, and little else.
    least = spec.ternary_weights / 5 + 2 * spec.vocab * spec.hidden
    assert least < report["bundle_bytes"] < 1.01 * least
    assert cost.seconds < seconds
    assert cost.gigabytes < gigabytes
