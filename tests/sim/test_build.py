"""The cache of compiled models and designs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from terntable.sim import build


def test_the_cache_keeps_what_was_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "KEEP", 3)
    now = time.time()
    for age, name in enumerate(["a", "b.json", "c", "d.json", "e"]):
        entry = tmp_path / name
        if entry.suffix:
            entry.touch()
        else:
            entry.mkdir()
            (entry / "model").touch()
            (tmp_path / f"{name}.lock").touch()
        os.utime(entry, (now - age, now - age))
    for name, age in ((".killed", 90_000), (".building", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (now - age, now - age))
    build.prune(tmp_path)
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"a", "a.lock", "b.json", "c", "c.lock", ".building"}
