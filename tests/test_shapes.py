"""Models of odd, small and large shapes in simulation against the emulator, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.devices.sim import SimDevice
from terntable.host.emulator import Chunk, Machine
from terntable.host.image import Image
from terntable.host.model import Layer, Model, ModelSpec, random_model
from terntable.host.session import Session
from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig, load_config

from .agreement import assert_same, kv_cache

TINY = load_config("tiny")
LONG_ROWS = AcceleratorConfig(
    name="long-rows", group=3, tables=32, rows=4, tokens=2, tile_rows=64, weight_depth=512,
    lanes=4, attention_dims=4, attention_rows=1, ports=4, bus_bits=64, chunk=3, max_hidden=32,
    max_row=23_040, max_head_dim=8, max_heads=2, max_context=32,
)  # fmt: skip


def spec_of(**values: object) -> ModelSpec:
    common = {
        "name": "shape", "layers": 1, "hidden": 64, "ffn": 96, "heads": 2, "kv_heads": 2,
        "head_dim": 16, "vocab": 301, "context": 256, "rope_theta": 1e4, "eps": 1e-5,
        "activation": "silu", "tied": True,
    }  # fmt: skip
    return ModelSpec.model_validate(common | values)


def image_of(spec: ModelSpec, config: AcceleratorConfig = TINY) -> Image:
    return compile_model(random_model(spec, seed=11), config)


@pytest.fixture(scope="module")
def tiny() -> Iterator[SimDevice]:
    with SimDevice(TINY) as device:
        yield device


@pytest.mark.xdist_group("tiny-rtl")
@pytest.mark.parametrize(
    "values",
    [
        {"hidden": 132, "ffn": 260, "heads": 10, "kv_heads": 2, "head_dim": 44, "layers": 9,
         "tied": False},
        {"heads": 3, "kv_heads": 3, "head_dim": 96, "activation": "relu2", "ffn_sub_norm": True},
        {"heads": 8, "kv_heads": 1, "head_dim": 6, "attn_sub_norm": True, "tied": False},
        {"hidden": 512, "ffn": 1536, "heads": 4, "kv_heads": 4, "head_dim": 128, "vocab": 8},
        {"hidden": 2, "ffn": 1, "heads": 1, "kv_heads": 1, "head_dim": 2, "vocab": 2},
    ],
    ids=["GQA 5:1, head 44, 9 layers", "MHA, head 96", "MQA", "the maxima", "the minima"],
)  # fmt: skip
def test_shapes(tiny: SimDevice, values: dict[str, object]) -> None:
    assert_same(image_of(spec_of(**values)), tiny, [19, 1, 4, 1])


@pytest.mark.xdist_group("tiny-rtl")
@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_of_32002(tiny: SimDevice, tied: bool) -> None:
    assert_same(image_of(spec_of(vocab=32_002, hidden=50, tied=tied)), tiny, [3, 1])


@pytest.mark.xdist_group("tiny-rtl")
@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_sequences_that_end_about_a_chunk(tiny: SimDevice, chunks: int, more: int) -> None:
    # The second call begins at that position and ends about a chunk's end too.
    n = chunks * TINY.chunk + more
    assert_same(image_of(spec_of()), tiny, [n, 1, n, 1])


@pytest.mark.xdist_group("tiny-rtl")
def test_context_to_the_maximum(tiny: SimDevice) -> None:
    image = image_of(spec_of(layers=2, context=TINY.max_context))
    assert image.context == TINY.max_context
    ids = np.random.default_rng(5).integers(0, image.spec.vocab, image.context).tolist()
    before, calls = image.context - 40, [37, 1, 1, 1]
    with EmulatorDevice(TINY) as emulator:
        here, there = Session(tiny, image), Session(emulator, image)
        # The emulator's KV cache saves the simulation of two thousand tokens.
        there.call(ids[:before])
        tiny.write(image.regions["kv"].offset, kv_cache(emulator, image))
        here.position = before
        for n in calls:
            now = ids[here.position : here.position + n]
            a, _ = here.call(now)
            b, _ = there.call(now)
            np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))
            assert kv_cache(tiny, image) == kv_cache(emulator, image)
        assert here.position == TINY.max_context


@pytest.fixture(scope="module")
def long_rows() -> Iterator[SimDevice]:
    with SimDevice(LONG_ROWS) as device:
        yield device


LONG = spec_of(
    hidden=22, ffn=LONG_ROWS.max_row, heads=1, kv_heads=1, head_dim=6, vocab=9, context=20,
    activation="relu2", ffn_sub_norm=True,
)  # fmt: skip


@pytest.mark.xdist_group("long-rows")
def test_rows_of_23040(long_rows: SimDevice) -> None:
    assert_same(image_of(LONG, LONG_ROWS), long_rows, [4, 1])


def same_sign(model: Model) -> Model:
    """Gate and up of equal rows, no negative weight in down: every product of down's input with
    its weights is the largest one, 127."""

    def layer(n: int) -> Layer:
        linears = dict(model.layer(n).linears)
        for name in ("gate", "up"):
            linears[name].trits[:] = linears["gate"].trits[0]
        linears["down"].trits[:] = 1
        gains = {name: np.ones_like(gain) for name, gain in model.layer(n).gains.items()}
        return Layer(linears, gains)

    return replace(model, layer=layer)


@pytest.mark.xdist_group("long-rows")
def test_the_largest_sums(long_rows: SimDevice) -> None:
    spec = LONG.model_copy(update={"activation": "silu"})
    image = compile_model(same_sign(random_model(spec, seed=4)), LONG_ROWS)
    assert_same(image, long_rows, [3])
    sums: list[int] = []

    def observe(index: int, command: isa.Command, chunk: Chunk, machine: Machine) -> None:
        if command.op is isa.Op.LINEAR and command["mode"] == isa.Mode.RESIDUAL:
            sums.append(int(machine.acc.max()))

    with EmulatorDevice(LONG_ROWS, observe) as device:
        Session(device, image).call([1, 2, 3])
    assert max(sums) == 127 * LONG_ROWS.max_row
