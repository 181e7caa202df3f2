"""Cases of the test matrix with all pairs of values among them.

`python -m tests.pairwise [COUNT SEED]` prints a file of them. What is drawn from a seed depends on
the release of Hypothesis, and on the numbers that occur in the sources, which it tries too: so
the cases of every test run are kept, in `FILE`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .parameters import FACTORS, LINKED, Case, Pair, cases, linked_values

FILE = Path(__file__).parent / "data" / "parameters.yaml"
"""The cases of every test run."""
SEED = 1
"""What they were drawn from."""


def drawn(strategy: st.SearchStrategy[Case], count: int, seed: int) -> list[Case]:
    """Examples of a strategy, without the first, in which all that is drawn is as small as can be,
    whatever the seed."""
    found: list[Case] = []

    @hypothesis.seed(seed)
    @settings(max_examples=count + 1, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found[1:]


def all_pairs() -> frozenset[Pair]:
    """Every two values of two factors that some valid configuration has together."""
    found = set()
    for a, b in itertools.combinations(FACTORS, 2):
        linked = a in LINKED and b in LINKED
        together = (
            {(v[a], v[b]) for v in linked_values()}
            if linked
            else set(itertools.product(FACTORS[a], FACTORS[b]))
        )
        found |= {((a, x), (b, y)) for x, y in together}
    return frozenset(found)


def pairwise_cover(seed: int, candidates: int = 3) -> Iterator[Case]:
    """Cases that have all pairs between them: the best of `candidates` draws, one by one."""
    uncovered = all_pairs()
    for number in itertools.count(1000 * seed):
        if not uncovered:
            return
        pool = drawn(cases(uncovered), candidates, number)
        best = max(pool, key=lambda case: len(case.pairs & uncovered))
        uncovered -= best.pairs
        yield best


def soak(count: int, seed: int) -> list[Case]:
    """`count` cases: covers, one after the other."""
    covers = (pairwise_cover(seed + number) for number in itertools.count())
    return list(itertools.islice(itertools.chain.from_iterable(covers), count))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        chosen = soak(*map(int, sys.argv[1:]))
    else:
        chosen = list(pairwise_cover(SEED))
    print("# python -m tests.pairwise", *sys.argv[1:])
    for case in chosen:
        print(f"- {case.line}")
