"""The worst memories: whatever stalls, and however late it comes, the results are the emulator's.

The design has a monitor on every stream (terntable.sim.contract), every port its protocol checker,
and a call that stands still ends in an error: all of them pass for all seeds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.devices.sim import SimDevice
from terntable.host.image import Image
from terntable.host.model import ModelSpec, random_model
from terntable.host.session import Session
from terntable.hw.config import load_config
from terntable.hw.isa import KvFormat
from terntable.sim.contract import watched_design
from terntable.sim.dram import DramModel

pytestmark = pytest.mark.xdist_group("test-rtl")
CONFIG = load_config("test")
SPEC = ModelSpec(
    name="stress", layers=1, hidden=24, ffn=32, heads=4, kv_heads=2, head_dim=8, vocab=37,
    context=64, rope_theta=1e4, eps=1e-5, activation="silu", attn_sub_norm=True, tied=False,
)  # fmt: skip
SEEDS = 200
PARTS = 8


def image_with(kv: KvFormat) -> Image:
    return compile_model(random_model(SPEC, seed=2), CONFIG, kv=kv)


@pytest.fixture(scope="module")
def rtl() -> Iterator[SimDevice]:
    with SimDevice(CONFIG, verilog=watched_design(CONFIG)) as device:
        yield device


@pytest.mark.parametrize("part", range(PARTS))
def test_memories_as_bad_as_they_come(rtl: SimDevice, part: int) -> None:
    """A prompt in chunks and a decode step for each seed; every logit and every byte of the
    KV cache, whose format differs from part to part."""
    image = image_with([*KvFormat][part % len(KvFormat)])
    kv = image.regions["kv"]
    with EmulatorDevice(CONFIG) as emulator:
        here, there = Session(rtl, image), Session(emulator, image)
        for seed in range(part, SEEDS, PARTS):
            rtl.reset(DramModel.stressed(seed))
            here.reset()
            there.reset()
            rng = random.Random(seed)
            chunk = rng.randint(1, CONFIG.chunk)
            for tokens in (rng.randint(1, 6), 1):
                ids = [rng.randrange(SPEC.vocab) for _ in range(tokens)]
                got, cost = here.call(ids, chunk)
                expected, _ = there.call(ids, chunk)
                assert got.tobytes() == expected.tobytes(), f"seed {seed}, {tokens} tokens"
                assert cost.argmax == int(expected.argmax())
            assert rtl.read(kv.offset, kv.size) == emulator.read(kv.offset, kv.size), f"seed {seed}"
