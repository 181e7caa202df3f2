"""`terntable bench` without a simulator: its options, its figures, the cycle model's answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pytest

from terntable.host.bench.figures import Figures, bench_object
from terntable.host.bench.roofline import bits_per_weight, roofline
from terntable.host.bench.runner import Measured
from terntable.host.bench.workload import fill_cache, make_image, make_workload
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.named_shapes import named_shape
from terntable.hw.config import load_config
from terntable.hw.isa import KvFormat

KV260 = load_config("kv260")
BITNET = named_shape("bitnet-0.73b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shape", "bitnet-9b"], ["bitnet-9b", "bitnet-0.73b"]),
        (["--config", "kv261"], ["kv261", "kv260"]),
        (["--config", "tiny"], ["hidden size is 1536", "larger configuration"]),
        (["--context", "0"], ["context is 0", "1 to 2047"]),
        (["--context", "2048"], ["context is 2048", "2047"]),
        (["--context", "-3"], ["context is -3"]),
        (["--context", "12k"], ["'12k'", "128"]),
        (["--context", "128", "x"], ["'x'"]),
        (["--prompt", "99999"], ["prompt is 99999", "2048"]),
        (["--prompt", "1.5"], ["'1.5'"]),
        (["--kv", "int7"], ["'int7'", "int8"]),
        (["--planes", "3"], ["planes is 3", "5 or 4"]),
        (["--layers", "0"], ["layers is 0", "24"]),
        (["--layers", "25"], ["layers is 25", "24"]),
        (["--layers", "2", "--predict"], ["--layers"]),
        (["64"], ["64"]),
    ],
)
def test_mistakes_cost_one_line(
    cli: Callable[..., object], options: list[str], words: list[str]
) -> None:
    base = {"--config": "kv260", "--shape": "bitnet-0.73b"}
    given = [part for pair in base.items() if pair[0] not in options for part in pair]
    outcome = cli("bench", *given, *options)
    assert outcome.status == 2
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    for word in words:
        assert word in outcome.err


def test_prediction_in_json(cli: Callable[..., object]) -> None:
    began = time.perf_counter()
    outcome = cli(
        "bench", "--config", "kv260", "--shape", "bitnet-0.73b", "--context", "128", "1024",
        "--prompt", "64,128", "--predict", "--json",
    )  # fmt: skip
    seconds = time.perf_counter() - began
    assert outcome.status == 0 and outcome.err == ""
    result = json.loads(outcome.out)
    assert result.keys() >= {
        "config", "shape", "kv", "clock_hz", "dram_model_gbps", "decode", "prefill",
        "bits_per_weight", "layers_simulated", "layers_total", "bit_exact", "wall_s",
    }  # fmt: skip
    assert result["kind"] == "predicted"
    assert result["bit_exact"] is None and result["layers_simulated"] == 0
    assert [d["context"] for d in result["decode"]] == [128, 1024]
    assert [p["tokens"] for p in result["prefill"]] == [64, 128]
    near, far = result["decode"]
    assert near["cycles"] < far["cycles"]
    assert near["tok_s"] == pytest.approx(250e6 / near["cycles"])
    assert result["prefill"][0]["ttft_s"] == pytest.approx(result["prefill"][0]["cycles"] / 250e6)
    assert seconds < 5  # of four points; a second each would be too slow for anybody


def test_text_says_what_is_predicted_and_what_others_measured(cli: Callable[..., object]) -> None:
    outcome = cli(
        "bench", "--config", "kv260", "--shape", "bitnet-2b-4t", "--context", "128", "--predict"
    )
    assert outcome.status == 0
    assert "predicted by the cycle model" in outcome.out
    assert "simulated" not in outcome.out
    assert "measured on the board" in outcome.out and "16.8 to 18.6 tok/s" in outcome.out


def test_stored_bits_per_weight() -> None:
    # 24 layers of 576 + 192 + 1,024 words of 16 K tiles and 192 words of 43: 768 trits a word.
    words = 24 * (16 * (576 + 192 + 1024) + 43 * 192)
    assert bits_per_weight(KV260, BITNET) == pytest.approx(
        8 * words * 768 / 5 / BITNET.ternary_weights, rel=1e-6
    )
    assert bits_per_weight(KV260, BITNET) < 1.62


def test_roofline_of_a_decode_step_is_its_bytes() -> None:
    work = make_workload(KV260, "bitnet-0.73b", [128, 1024], [], kv=KvFormat.INT8)
    few, many = (roofline(work, point) for point in work.points)
    assert few.bound == many.bound == "memory"
    record = 208  # 2 * 96 codes and two scales, padded to 16 bytes
    assert many.memory_cycles - few.memory_cycles == pytest.approx(896 * 24 * 16 * record / 56)
    weights = BITNET.ternary_weights * 1.6 / 8
    assert few.memory_cycles > (weights + 32002 * 1536) / 56


def test_figures_of_a_known_call() -> None:
    work = make_workload(KV260, "bitnet-0.73b", [128], [])
    beats = {"read_beats": 14_000_000, "write_beats": 0}
    figures = Figures(work, Measured(work.points[0], 4_000_000, 4_000_000, beats, True))
    assert figures.tok_s == pytest.approx(62.5)
    assert figures.dram_gbps == pytest.approx(14.0)
    assert figures.dram_utilisation == pytest.approx(1.0)
    assert bench_object(work, [figures.measured], "simulated", 1.0)["bit_exact"] is True


def test_one_difference_is_reported() -> None:
    work = make_workload(KV260, "bitnet-0.73b", [1, 2], [])
    beats = {"read_beats": 1, "write_beats": 1}
    measured = [Measured(p, 10, 10, beats, p.position == 1) for p in work.points]
    assert bench_object(work, measured, "simulated", 1.0)["bit_exact"] is False


def test_a_filled_cache_reaches_as_far_as_asked() -> None:
    tiny = load_config("tiny")
    work = make_workload(tiny, "tiny", [40], [], layers=2)
    image = make_image(work)
    assert image.spec.layers == 2
    with EmulatorDevice(tiny) as emulator:
        emulator.load(image)
        region = image.regions["kv"]
        empty = emulator.read(region.offset, region.size)
        fill_cache(emulator.machine, 40)
        full = np.frombuffer(emulator.read(region.offset, region.size), np.uint8)
    assert not any(empty)
    # 40 of 41 positions (rounded up to 64) have records; codes are rarely 0.
    assert 0.9 * 40 / 64 < np.count_nonzero(full) / full.size < 40 / 64
