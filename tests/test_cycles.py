"""The cycle model against simulated RTL, on points that none of its constants was fitted on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from terntable.host.bench.runner import predict_point, run_points
from terntable.host.bench.workload import Point, Workload, make_image
from terntable.host.devices.sim import SimDevice
from terntable.host.model import ModelSpec
from terntable.hw.config import load_config
from terntable.hw.isa import KvFormat

TOLERANCE = 0.03
"""What is promised of a call's cycles, and holds for the linear unit's too."""


def spec_of(**values: object) -> ModelSpec:
    common = {
        "name": "shape", "layers": 2, "hidden": 64, "ffn": 96, "heads": 4, "kv_heads": 4,
        "head_dim": 16, "vocab": 211, "context": 2048, "rope_theta": 1e4, "eps": 1e-5,
        "activation": "silu", "tied": True,
    }  # fmt: skip
    return ModelSpec.model_validate(common | values)


SUB_NORMS = {"attn_sub_norm": True, "ffn_sub_norm": True}
MHA = spec_of(hidden=256, ffn=768, head_dim=64, vocab=1024, **SUB_NORMS)
GQA = spec_of(hidden=512, ffn=1408, heads=8, kv_heads=2, head_dim=64, layers=1, activation="relu2")
DEEP = spec_of(hidden=192, ffn=480, heads=3, kv_heads=1, head_dim=32, layers=5, vocab=97)
SMALL = spec_of(ffn=128, kv_heads=2, context=128, **SUB_NORMS)
NARROW = spec_of(hidden=36, ffn=52, heads=5, kv_heads=1, head_dim=8, layers=3, context=96)

CASES = [
    ("tiny", MHA, KvFormat.INT16, [Point(1, 75), Point(1, 700), Point(21), Point(33, 15)]),
    ("tiny", GQA, KvFormat.INT8, [Point(1, 300), Point(37), Point(16, 400)]),
    ("tiny", DEEP, KvFormat.INT4, [Point(1, 64), Point(30)]),
    ("test", SMALL, KvFormat.INT16, [Point(1, 50), Point(30), Point(7, 64)]),
    ("test", NARROW, KvFormat.INT8, [Point(1, 80), Point(13)]),
]


@pytest.fixture(scope="module")
def rtl() -> Iterator[dict[str, SimDevice]]:
    devices: dict[str, SimDevice] = {}
    yield devices
    for device in devices.values():
        device.close()


@pytest.mark.parametrize(
    ("config", "spec", "kv", "points"),
    [pytest.param(*case, marks=pytest.mark.xdist_group(f"{case[0]}-rtl")) for case in CASES],
    ids=[f"{c[0]}-{c[1].heads}:{c[1].kv_heads}-{c[2].label}" for c in CASES],
)
def test_predicted_cycles(
    rtl: dict[str, SimDevice], config: str, spec: ModelSpec, kv: KvFormat, points: list[Point]
) -> None:
    work = Workload(load_config(config), spec, spec, tuple(points), kv)
    device = rtl.setdefault(config, SimDevice(work.config))
    for measured in run_points(work, make_image(work), device):
        guess = predict_point(work, spec, measured.point)
        what = f"{measured.point}: {guess} for {measured}"
        assert abs(guess.cycles / measured.cycles - 1) < TOLERANCE, what
        linear = guess.unit_cycles["linear"] / measured.unit_cycles["linear"]
        assert abs(linear - 1) < TOLERANCE, what
        beats = measured.unit_cycles["write_beats"]
        assert guess.unit_cycles["write_beats"] == pytest.approx(beats, abs=1), what
