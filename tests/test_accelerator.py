"""The whole accelerator in simulation against the emulator, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.sim import SimDevice
from terntable.host.image import Image
from terntable.host.model import ModelSpec, random_model
from terntable.hw.config import load_config
from terntable.hw.isa import KvFormat

from .agreement import assert_same

pytestmark = pytest.mark.xdist_group("test-rtl")
CONFIG = load_config("test")

SPECS = {
    "bitnet": ModelSpec(
        name="bitnet",
        layers=2,
        hidden=36,
        ffn=52,
        heads=4,
        kv_heads=2,
        head_dim=12,
        vocab=67,
        context=100,
        rope_theta=1e4,
        eps=1e-5,
        activation="relu2",
        attn_sub_norm=True,
        ffn_sub_norm=True,
        tied=True,
    ),
    "llama": ModelSpec(
        name="llama",
        layers=3,
        hidden=20,
        ffn=44,
        heads=5,
        kv_heads=1,
        head_dim=8,
        vocab=33,
        context=96,
        rope_theta=5e5,
        eps=1e-6,
        activation="silu",
        tied=False,
    ),
    "wide": ModelSpec(
        name="wide",
        layers=1,
        hidden=64,
        ffn=128,
        heads=1,
        kv_heads=1,
        head_dim=32,
        vocab=301,
        context=128,
        rope_theta=1e4,
        eps=1e-5,
        activation="relu2",
        ffn_sub_norm=True,
        tied=True,
    ),
    # Four scales a matrix: Q, K and V take four LINEARs, gate and up too.
    "shards": ModelSpec(
        name="shards",
        layers=2,
        hidden=40,
        ffn=48,
        heads=4,
        kv_heads=4,
        head_dim=8,
        vocab=40,
        context=64,
        rope_theta=1e4,
        eps=1e-5,
        activation="silu",
        tied=False,
        weight_only=True,
    ),
}
SHARDS = {"shards": 4}  # fmt: skip


@pytest.fixture(scope="module")
def rtl() -> Iterator[SimDevice]:
    with SimDevice(CONFIG) as device:
        yield device


def image_of(name: str, kv: KvFormat = KvFormat.INT16, planes: int = 5) -> Image:
    model = random_model(SPECS[name], seed=3, shards=SHARDS.get(name, 1))
    return compile_model(model, CONFIG, planes=planes, kv=kv)


@pytest.mark.parametrize("name", SPECS)
def test_models_share_one_gateware(rtl: SimDevice, name: str) -> None:
    assert_same(image_of(name), rtl, [1, 1, 6, 1])


@pytest.mark.parametrize("first", [2, 3, 4, 5, 8, 9, 17])
def test_prompt_lengths_around_a_chunk(rtl: SimDevice, first: int) -> None:
    assert_same(image_of("bitnet"), rtl, [first, 1])


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunk_lengths(rtl: SimDevice, chunk: int) -> None:
    assert_same(image_of("llama"), rtl, [7, 1], chunk)


@pytest.mark.parametrize("kv", [KvFormat.INT8, KvFormat.INT4], ids=lambda kv: kv.label)
@pytest.mark.parametrize("name", SPECS)
def test_formats_of_k_and_v(rtl: SimDevice, name: str, kv: KvFormat) -> None:
    """Several chunks, across an attention block, decode, and a second turn of the conversation."""
    assert_same(image_of(name, kv), rtl, [29, 1, 1, 1, 7, 1])


@pytest.mark.parametrize("name", ["bitnet", "wide"])
def test_a_head_of_four_planes(rtl: SimDevice, name: str) -> None:
    assert_same(image_of(name, planes=4), rtl, [3, 1])


def test_turns_across_attention_blocks(rtl: SimDevice) -> None:
    assert_same(image_of("llama"), rtl, [30, 1, 1, 1, 29, 5, 1])


@pytest.mark.parametrize("name", ["llama", "wide"])
def test_context_to_its_end(rtl: SimDevice, name: str) -> None:
    # The model's, then the configuration's.
    image = image_of(name)
    assert image.context == {"llama": 96, "wide": CONFIG.max_context}[name]
    assert_same(image, rtl, [image.context - 1, 1])


def test_head_row_ties_and_argmax() -> None:
    # Two equal rows of the head give equal logits: the lower id wins on both devices.
    model = random_model(SPECS["bitnet"], seed=5)
    model.embedding[40] = model.embedding[7] = np.abs(model.embedding[7]) * 4
    image = compile_model(model, CONFIG)
    with SimDevice(CONFIG) as device:
        assert_same(image, device, [3])
