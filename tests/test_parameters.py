"""Whole models on accelerators of many parameters, drawn to have all pairs of values among them.

`python -m tests.pairwise` prints the cases; `make soak` runs others.
"""

from __future__ import annotations

import itertools

import pytest

from terntable.hw.config import AcceleratorConfig

from .pairwise import all_pairs, pairwise_cover, soak
from .parameters import FACTORS, Case

COVER = list(pairwise_cover())


@pytest.mark.parametrize("number", range(len(COVER)))
def test_models_on_drawn_configurations(number: int) -> None:
    COVER[number].run()


def test_the_configurations_have_all_pairs_of_values() -> None:
    # Told by the configurations and models themselves, not by what they were drawn for.
    def value(case: Case, factor: str) -> object:
        c, spec = case.config, case.spec
        if factor == "tile_words":
            return c.tile_rows // c.rows
        if factor == "spare_words":
            return c.weight_depth - max(16, 2 * c.k_tiles(c.longest_row))
        if factor == "heads":
            if case.shards > 1:
                return "shards"
            if spec.kv_heads == spec.heads:
                return "mha"
            return "mqa" if spec.kv_heads == 1 else "gqa"
        if factor == "reach":
            return "blocks" if case.calls[0] >= 32 else "chunks"
        if factor in ("stalls", "power_up"):
            return case.values[factor]
        return getattr(c if factor in AcceleratorConfig.model_fields else spec, factor)

    found = set()
    for case in COVER:
        values = [(factor, value(case, factor)) for factor in FACTORS]
        found |= set(itertools.combinations(values, 2))
    assert not all_pairs() - found
    assert len(COVER) >= 24
    assert len({case.config.hash for case in COVER}) == len(COVER)


def test_a_seed_gives_the_same_cases_and_a_line_gives_them_again() -> None:
    assert list(pairwise_cover()) == COVER
    some = soak(len(COVER) + 5, seed=3)
    assert some[:5] == soak(5, seed=3) != COVER[:5]
    for case in some:
        assert "\n" not in case.line
        assert Case.parse(case.line) == case
