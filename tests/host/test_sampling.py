"""Choosing tokens: the distribution, the cuts, the seed."""

from __future__ import annotations

import numpy as np
import pytest

from terntable.host.sampling import Sampler
from terntable.hw.errors import UserError

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.05, 0.25], np.float32))
PROBABILITIES = np.array([0.1, 0.4, 0.2, 0.05, 0.25])


def shares(sampler: Sampler, n: int = 4000) -> np.ndarray:
    """How often each id is drawn."""
    drawn = [sampler(LOGITS) for _ in range(n)]
    return np.bincount(drawn, minlength=len(LOGITS)) / n


def test_greedy_takes_the_first_of_the_largest() -> None:
    tied = np.array([0, 3, -1, 3, 3], np.float32)
    for sampler in (Sampler(), Sampler(temperature=0.0)):
        assert sampler(tied) == 1
        assert sampler(LOGITS) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    p = PROBABILITIES ** (1 / temperature)
    # Four standard deviations of a share in 4,000 draws, at most.
    assert np.abs(shares(Sampler(temperature)) - p / p.sum()).max() < 4 * 0.5 / 4000**0.5


def test_top_k_keeps_the_likeliest() -> None:
    found = shares(Sampler(1.0, top_k=2))
    assert found[[0, 2, 3]].max() == 0
    assert abs(found[1] - 0.4 / 0.65) < 0.04
    assert shares(Sampler(1.0, top_k=1), 50)[1] == 1
    assert np.count_nonzero(shares(Sampler(1.0, top_k=10**30))) == 5


def test_top_k_on_a_tie_keeps_the_lowest_id() -> None:
    sampler = Sampler(1.0, top_k=1)
    assert {sampler(np.zeros(9, np.float32)) for _ in range(20)} == {0}


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.3, {1}), (0.5, {1, 4}), (0.8, {1, 4, 2}), (1.0, {0, 1, 2, 3, 4})]
)
def test_top_p_keeps_the_fewest_that_hold_it(top_p: float, kept: set[int]) -> None:
    assert set(np.flatnonzero(shares(Sampler(1.0, top_p=top_p), 1000))) == kept


def test_top_p_counts_what_top_k_left() -> None:
    # Of ids 1 and 4 the first has 0.4 / 0.65 = 0.615 of the probability.
    assert set(np.flatnonzero(shares(Sampler(1.0, top_k=2, top_p=0.6), 500))) == {1}
    assert set(np.flatnonzero(shares(Sampler(1.0, top_k=2, top_p=0.7), 500))) == {1, 4}


def test_the_seed_decides() -> None:
    def draws(seed: int) -> list[int]:
        sampler = Sampler(1.0, seed=seed)
        return [sampler(LOGITS) for _ in range(40)]

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)


def test_a_tiny_temperature_is_greedy() -> None:
    sampler = Sampler(1e-300)
    assert {sampler(LOGITS) for _ in range(20)} == {1}


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": 1.0, "top_k": 0},
        {"temperature": 1.0, "top_p": 0.0},
        {"temperature": 1.0, "top_p": float("nan")},
        {"temperature": 1.0, "top_p": 1.01},
        {"seed": -1},
        {"top_k": 5},
        {"temperature": 0.0, "top_p": 0.5},
    ],
)
def test_refusals(options: dict) -> None:
    with pytest.raises(UserError):
        Sampler(**options)
