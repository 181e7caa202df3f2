"""The full-size results that are kept: whole, consistent, of this gateware or said not to be."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from terntable.host.bench import full, results
from terntable.host.bench.results import RUNS, Gateware, Record, Run, is_stale, load
from terntable.host.bench.runner import Measured
from terntable.host.bench.workload import Workload
from terntable.hw.config import load_config
from terntable.hw.errors import UserError

KEPT = [run for run in RUNS if load(run) is not None]
TINY = Run("tiny", context=5, config="tiny")


@pytest.mark.parametrize("run", KEPT, ids=lambda run: run.name)
def test_a_kept_result_is_whole(run: Run) -> None:
    record = load(run)
    assert record is not None
    result = record.result
    assert record.command == run.command
    assert (result["config"], result["shape"], result["kv"]) == (
        run.config,
        run.shape,
        run.kv.label,
    )
    assert result["kind"] == "simulated" and result["bit_exact"] is True
    assert result["layers_simulated"] == result["layers_total"]
    (point,) = result["decode"] + result["prefill"]
    seconds = point["cycles"] / result["clock_hz"]
    if run.context:
        assert point["context"] == run.context
        assert point["tok_s"] == pytest.approx(1 / seconds)
    else:
        assert point["tokens"] == run.prompt
        assert point["ttft_s"] == pytest.approx(seconds)
    assert point["roofline_cycles"] <= point["cycles"]
    config = load_config(run.config)
    if record.gateware.config_hash != f"{config.hash:08x}":
        # Not a failure: a run takes from minutes to hours, and its figures were true of its
        # gateware. `terntable bench --published` says so too.
        warnings.warn(f"{run.name} is of another configuration: make bench-full", stacklevel=1)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Record]:
    """Pretends that a run of the tiny model has been done: `simulate` gives one point of `cycles`
    cycles. Calls `make bench-full` and gives what it kept."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "data")
    monkeypatch.setattr(full, "FOLDER", tmp_path / "data")
    monkeypatch.setattr(full, "RUNS", (TINY,))
    gateware = Gateware(f"{load_config('tiny').hash:08x}", "sources", "verilog")
    monkeypatch.setattr(full, "current_gateware", lambda config: gateware)
    monkeypatch.setattr(results, "current_gateware", lambda config: gateware)
    monkeypatch.setattr(
        "terntable.sim.accelerator.gateware_digest", lambda config: gateware.sources
    )

    def run(*arguments: str, cycles: int = 1000, exact: bool = True) -> Record | None:
        def simulate(work: Workload) -> list[Measured]:
            units = {"read_beats": 10, "write_beats": 1}
            return [Measured(point, cycles, cycles, units, exact) for point in work.points]

        monkeypatch.setattr(full, "simulate", simulate)
        assert full.main(list(arguments)) == (0 if exact else 1)
        return load(TINY)

    return run


def test_runs_are_resumed(kept: Callable[..., Record]) -> None:
    assert kept(cycles=1000).result["decode"][0]["cycles"] == 1000
    assert kept(cycles=2000).result["decode"][0]["cycles"] == 1000  # done already
    assert kept("--force", cycles=3000).result["decode"][0]["cycles"] == 3000
    assert kept(TINY.name, cycles=4000).result["decode"][0]["cycles"] == 3000


def test_a_run_that_differs_is_not_kept(kept: Callable[..., Record]) -> None:
    assert kept(exact=False) is None


def test_a_result_of_other_gateware_is_stale(kept: Callable[..., Record]) -> None:
    record, config = kept(), load_config("tiny")
    assert not is_stale(record, config)
    moved = replace(record, gateware=replace(record.gateware, sources="older"))
    assert not is_stale(moved, config)  # other sources, the same Verilog
    changed = replace(moved, gateware=replace(moved.gateware, verilog_sha256="older"))
    assert is_stale(changed, config)
    other = replace(record, gateware=replace(record.gateware, config_hash="0"))
    assert is_stale(other, config)


def test_an_unknown_run() -> None:
    with pytest.raises(UserError, match="no run 'x': choose from bitnet-0"):
        full.main(["x"])


def test_published_says_what_is_there(
    cli: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where sources differ the Verilog would be generated: minutes for kv260.
    monkeypatch.setattr(results, "current_gateware", lambda config: Gateware("", "", ""))
    outcome = cli("bench", "--published", "--json")
    assert outcome.status == 0
    kept = json.loads(outcome.out)["results"]
    assert [r["command"] for r in kept] == [run.command for run in KEPT]
    assert all(isinstance(r["stale"], bool) for r in kept)
