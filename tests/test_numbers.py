"""Models whose numbers are at the ends of the range or no numbers, in RTL and on the emulator.

Checkpoints with infinities and NaN are refused when they are read: these models are made by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.devices.sim import SimDevice
from terntable.host.model import Layer, Model, ModelSpec, TernaryLinear, random_model
from terntable.host.session import Session
from terntable.hw import numeric
from terntable.hw.config import load_config

pytestmark = [
    pytest.mark.xdist_group("test-rtl"),
    pytest.mark.filterwarnings("error::RuntimeWarning"),
]
CONFIG = load_config("test")
RELU2 = ModelSpec(
    name="relu2", layers=2, hidden=20, ffn=28, heads=4, kv_heads=2, head_dim=8, vocab=24,
    context=64, rope_theta=1e4, eps=1e-5, activation="relu2", attn_sub_norm=True,
    ffn_sub_norm=True,
)  # fmt: skip
SILU = RELU2.model_copy(
    update={"name": "silu", "activation": "silu", "attn_sub_norm": False, "ffn_sub_norm": False}
)

LARGEST = float(numeric.LARGEST)
TINY = 2.0**-126 * (1 + 2.0**-23)
NO_NUMBERS = np.float32([np.inf, -np.inf, np.nan, 2.0**-149, -(2.0**-127), 2.0**-126, -0.0])
EXTREMES = np.float32([0, TINY, -TINY, 1e-30, 9e-6, 1, 1e15, -1e30, 1e30, LARGEST, -LARGEST])
ODD = np.concatenate([NO_NUMBERS, EXTREMES])


@pytest.fixture(scope="module")
def rtl() -> Iterator[SimDevice]:
    with SimDevice(CONFIG) as device:
        yield device


def agree(rtl: SimDevice, model: Model, *prompts: list[int]) -> list[np.ndarray]:
    """Run the prompts on both devices, one conversation: the logits after each."""
    image = compile_model(model, CONFIG)
    rows = []
    with EmulatorDevice(CONFIG) as emulator:
        here, there = Session(rtl, image), Session(emulator, image)
        for ids in prompts:
            got, cost = here.call(ids)
            want, expected = there.call(ids)
            assert numeric.is_number(want).all()
            np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
            assert cost.argmax == expected.argmax == int(np.argmax(want))
            assert np.float32(cost.argmax_logit) == want.max()
            cache = image.regions["kv"]
            assert rtl.read(cache.offset, cache.size) == emulator.read(cache.offset, cache.size)
            rows.append(want)
    return rows


def changed(
    model: Model,
    linears: Callable[[str, TernaryLinear], TernaryLinear] | None = None,
    gains: Callable[[str, np.ndarray], np.ndarray] | None = None,
    **fields: object,
) -> Model:
    """A model with other matrices and gains, by functions of their names and what they were."""

    def layer(n: int) -> Layer:
        old = model.layer(n)
        return Layer(
            {k: linears(k, v) if linears else v for k, v in old.linears.items()},
            {k: gains(k, v) if gains else v for k, v in old.gains.items()},
        )

    return dataclasses.replace(model, layer=layer, **fields)


def with_rows(model: Model, rows: np.ndarray) -> Model:
    """A model whose first embedding rows are `rows`; the head stays as it was."""
    embedding = model.embedding.copy()
    embedding[: len(rows)] = rows
    return changed(model, embedding=embedding)


@pytest.mark.parametrize("spec", [RELU2, SILU], ids=lambda spec: spec.name)
def test_embeddings_that_are_no_numbers(rtl: SimDevice, spec: ModelSpec) -> None:
    # A row of each odd value, then rows that hold one of them among others.
    model = random_model(spec, seed=2)
    rows = np.repeat(ODD[:, None], spec.hidden, 1)
    rows[:, 1::2] *= np.float32(-1)
    mixed = model.embedding[: len(ODD)].copy()
    mixed[:, 3] = ODD
    tokens = range(len(ODD))
    for table in (rows, mixed):
        agree(rtl, with_rows(model, table), [0], [*tokens][1:9], [*tokens][9:], [1])


@pytest.mark.parametrize("spec", [RELU2, SILU], ids=lambda spec: spec.name)
@pytest.mark.parametrize("seed", range(3))
def test_gains_that_are_no_numbers(rtl: SimDevice, spec: ModelSpec, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def odd(name: str, gain: np.ndarray) -> np.ndarray:
        return rng.choice(ODD, gain.shape) if seed else np.zeros_like(gain)

    model = random_model(spec, seed=3)
    model = changed(model, gains=odd, final_gain=rng.choice(ODD, spec.hidden))
    agree(rtl, model, [3, 1, 4, 1, 5, 9], [2])


@pytest.mark.parametrize("spec", [RELU2, SILU], ids=lambda spec: spec.name)
@pytest.mark.parametrize("value", [*NO_NUMBERS, -1e30, 1e30, LARGEST, 0], ids=str)
def test_weight_scales_that_are_no_numbers(rtl: SimDevice, spec: ModelSpec, value: float) -> None:
    names = [*spec.linear_shapes]
    model = random_model(spec, seed=4)
    for some in (names[:3], names[3:]):

        def scaled(name: str, old: TernaryLinear, some: list[str] = some) -> TernaryLinear:
            return dataclasses.replace(old, scale=np.float32(value)) if name in some else old

        agree(rtl, changed(model, linears=scaled), [3, 1, 4], [2])


@pytest.mark.parametrize("trit", [-1, 0, 1])
def test_weights_of_one_value(rtl: SimDevice, trit: int) -> None:
    """With activations of +-127 only: the largest sums."""

    def constant(name: str, old: TernaryLinear) -> TernaryLinear:
        return dataclasses.replace(old, trits=np.full_like(old.trits, trit))

    for spec in (RELU2, SILU):
        model = random_model(spec, seed=5)
        signs = np.where(model.embedding < 0, np.float32(-1), np.float32(1))
        model = changed(
            model, linears=constant, gains=lambda name, gain: np.ones_like(gain), embedding=signs
        )
        agree(rtl, with_rows(model, np.float32([[1], [-1], [0]])), [0, 1, 2, 3, 4], [1])


@pytest.mark.parametrize("eps", [0.0, 1e-40, 2.0**-126, 1e-30, 1e30, 1e300])
def test_epsilons(rtl: SimDevice, eps: float) -> None:
    """Rows of zeros, below epsilon and above, with a norm that divides by zero."""
    model = random_model(RELU2.model_copy(update={"eps": eps}), seed=6)
    rows = np.repeat(np.float32([0, TINY, 1e-20, 1e-6, 1])[:, None], RELU2.hidden, 1)
    agree(rtl, with_rows(model, rows), [0], [0, 1, 2, 3, 4], [0])


def test_logits_that_are_equal(rtl: SimDevice) -> None:
    """Saturated, zero, or of equal rows: the lowest id wins."""
    model = random_model(RELU2, seed=7)
    same = np.repeat(model.embedding[:1], RELU2.vocab, 0)
    for head in (same, np.zeros_like(same), same * np.float32(1e38)):
        (logits,) = agree(rtl, changed(model, head=head), [5, 6])
        assert (logits == logits[0]).all() and np.argmax(logits) == 0
    loud = changed(model, head=same * np.float32(1e38), final_gain=model.final_gain * 1e30)
    (logits,) = agree(rtl, loud, [5, 6])
    assert (np.abs(logits) == numeric.LARGEST).all()


def test_a_head_that_is_no_number(rtl: SimDevice) -> None:
    model = random_model(RELU2, seed=8)
    head = model.embedding.copy()
    head[: len(ODD), 2] = ODD
    head[len(ODD) :] = np.repeat(ODD[:6, None], RELU2.hidden, 1)
    agree(rtl, changed(model, head=head), [5, 6], [7])


def test_one_huge_score(rtl: SimDevice) -> None:
    """Queries and keys far out: of the whole context one position counts; then all alike."""
    model = random_model(SILU, seed=9)
    for size in (1e6, 1e30, 0.0):

        def scaled(name: str, old: TernaryLinear, size: float = size) -> TernaryLinear:
            return dataclasses.replace(old, scale=np.float32(size)) if name in "qk" else old

        rng = np.random.default_rng(1)
        loud = changed(model, linears=scaled)
        agree(rtl, loud, rng.integers(0, SILU.vocab, SILU.context - 1).tolist(), [2])
