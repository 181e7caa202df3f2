"""All proofs of docs/verification.md, and a planted bug or more for each that it must catch."""

from __future__ import annotations

import pytest

from . import (
    bursts,
    control,
    dma,
    fence,
    fifo,
    first_error,
    read_port,
    reader,
    skid,
    width,
    write_port,
    writer,
)
from .proof import caught, proved, reached

pytestmark = pytest.mark.formal

SUITES = [
    module.SUITE
    for module in (
        fifo,
        width,
        bursts,
        fence,
        reader,
        skid,
        writer,
        read_port,
        write_port,
        first_error,
        control,
        dma,
    )
]
PROOFS = [proof for suite in SUITES for proof in suite.proofs]
BUGS = [(proof, bug, suite.bug_depth) for suite in SUITES for proof, bug in suite.bugs]


@pytest.mark.parametrize("proof", PROOFS, ids=str)
def test_proved(proof):
    proved(proof)


@pytest.mark.parametrize("proof, depth", [s.reach for s in SUITES], ids=lambda v: str(v))
def test_reached(proof, depth):
    reached(proof, depth)


@pytest.mark.parametrize(
    "proof, bug, depth", BUGS, ids=[f"{proof}: {bug.name}" for proof, bug, _ in BUGS]
)
def test_caught(proof, bug, depth):
    caught(proof, bug, depth)
