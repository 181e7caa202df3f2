"""A proof, the planted bugs that it must catch, and the states that it must not leave out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from terntable.sim.formal import Bench, Mode, Outcome, Verdict, check

from .planted import Bug, planted


@dataclass(frozen=True)
class Proof:
    """What `bench(b, block, *parameters)` says, by induction over `depth` cycles, or in the first
    `depth` cycles after reset if `bounded`."""

    block: type
    bench: Callable[..., None]
    parameters: tuple[int, ...]
    depth: int
    bounded: bool = False

    def __str__(self) -> str:
        return "-".join((self.block.__name__, *map(str, self.parameters)))

    @property
    def method(self) -> str:
        """As docs/verification.md has it."""
        return f"first {self.depth} cycles" if self.bounded else f"{self.depth}-induction"


@dataclass(frozen=True)
class Suite:
    """What is proved of a block. `reach` names the proof whose `Cover` states are looked for, and
    within how many cycles; every bug has to show within `bug_depth` cycles after reset."""

    proofs: list[Proof]
    reach: tuple[Proof, int]
    bugs: list[tuple[Proof, Bug]]
    bug_depth: int = 16


def proved(proof: Proof) -> None:
    """All properties hold."""
    mode = Mode.BOUNDED if proof.bounded else Mode.PROVE
    verdict = check(_bench(proof, proof.block), mode, proof.depth)
    _report(proof, proof.method, verdict)
    assert verdict.outcome is Outcome.PASS, verdict


def reached(proof: Proof, depth: int) -> None:
    """The assumptions leave every `Cover` state possible within `depth` cycles."""
    verdict = check(_bench(proof, proof.block), Mode.COVER, depth)
    _report(proof, f"reached within {depth} cycles", verdict)
    assert verdict.outcome is Outcome.PASS, verdict


def caught(proof: Proof, bug: Bug, depth: int) -> None:
    """The planted bug has a counterexample within `depth` cycles after reset."""
    # What is seen from outside has to show it: no invariants.
    bench = _bench(proof, planted(proof.block, bug), strengthened=False)
    verdict = check(bench, Mode.BOUNDED, depth)
    _report(proof, f"planted: {bug.name}", verdict)
    assert verdict.outcome is Outcome.FAIL, verdict


def _bench(proof: Proof, block: type, strengthened: bool = True) -> Bench:
    bench = Bench(strengthened=strengthened)
    proof.bench(bench, block, *proof.parameters)
    return bench


def _report(proof: Proof, what: str, verdict: Verdict) -> None:
    print(f"{proof}, {what}: {verdict}")
