"""Whole models on accelerators of many parameters, drawn to have all pairs of values among them.

`make soak` runs others.
"""

from __future__ import annotations

import itertools

import pytest

from terntable.hw.config import AcceleratorConfig

from .pairwise import FILE, all_pairs, pairwise_cover
from .parameters import FACTORS, Case, read_lines

LINES = read_lines(FILE)


@pytest.mark.parametrize("number", range(len(LINES)))
def test_models_on_drawn_configurations(number: int) -> None:
    Case.parse(LINES[number]).run()


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
        if factor == "kv":
            return case.image.kv.name
        if factor in ("stalls", "power_up"):
            return case.values[factor]
        return getattr(c if factor in AcceleratorConfig.model_fields else spec, factor)

    kept = [Case.parse(line) for line in LINES]
    found = set()
    for case in kept:
        values = [(factor, value(case, factor)) for factor in FACTORS]
        found |= set(itertools.combinations(values, 2))
    missing = len(all_pairs() - found)
    assert not missing, f"{missing} pairs: python -m tests.pairwise > {FILE}"
    assert len({case.config.hash for case in kept}) == len(kept) >= 24


@pytest.mark.parametrize("seed", [2, 3])
def test_drawn_cases_have_all_pairs_and_a_line_gives_them_again(seed: int) -> None:
    cases = list(pairwise_cover(seed))
    assert set().union(*(case.pairs for case in cases)) >= all_pairs()
    for case in cases:
        assert "\n" not in case.line
        assert Case.parse(case.line) == case
