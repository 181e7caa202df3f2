"""docs/verification.md lists what is proved, how, and with which bound."""

from __future__ import annotations

import re
from pathlib import Path

from .test_proofs import SUITES

PAGE = Path(__file__).parents[2] / "docs" / "verification.md"


def rows():
    """Block, numbers of its cases, method."""
    found = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|", PAGE.read_text("utf-8"), re.M)
    return {block: (re.findall(r"\d+", cases), method) for block, cases, method in found}


def test_page_has_every_case_and_bound():
    page = rows()
    proofs = [proof for suite in SUITES for proof in suite.proofs]
    for block in {proof.block.__name__ for proof in proofs}:
        mine = [proof for proof in proofs if proof.block.__name__ == block]
        cases, method = page[block]
        assert {proof.method for proof in mine} == {method}, block
        parameters = [str(n) for proof in mine for n in proof.parameters]
        assert cases == parameters, block
