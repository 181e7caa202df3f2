"""`terntable bench` on simulated RTL of a small shape."""

from __future__ import annotations

import json

import pytest

from terntable.host.bench.runner import run_points
from terntable.host.bench.workload import make_image, make_workload
from terntable.host.cli import main
from terntable.host.devices.sim import SimDevice
from terntable.hw.config import load_config

pytestmark = pytest.mark.xdist_group("tiny-rtl")
TINY = load_config("tiny")


def run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["bench", "--config", "tiny", "--shape", "tiny", *options])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_bench_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--context", "40", "--prompt", "3", "--layers", "2", "--kv", "int8", "--json")
    status, out, _ = run(capsys, *options)
    assert status == 0
    result = json.loads(out)
    assert result["bit_exact"] is True and result["kv"] == "int8"
    assert (result["layers_simulated"], result["layers_total"]) == (2, 4)
    (decode,), (prefill,) = result["decode"], result["prefill"]
    assert decode["context"] == 40 and prefill["tokens"] == 3
    units = decode["unit_cycles"]
    # Two layers were counted, four are reported.
    assert max(units["fetch"], units["linear"]) < decode["cycles"]
    assert 0 < decode["dram_utilisation"] < 1
    assert 0 < prefill["array_utilisation"] < 1
    assert result["wall_s"] > 0


def test_bench_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "--context", "1", "--layers", "1")
    assert status == 0
    assert "EXTRAPOLATED" in out and "1 of 4 layers" in out
    assert "identical" in out
    assert "\r" not in err and "━" not in err  # no progress bar in a pipe


def test_a_difference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    work = make_workload(TINY, "tiny", [33], [], layers=1)
    image = make_image(work)
    with SimDevice(TINY) as rtl:
        write = rtl.write

        def damaged(offset: int, data: bytes) -> None:
            if offset == image.regions["kv"].offset:
                data = bytes([data[0] ^ 64]) + data[1:]
            write(offset, data)

        assert [m.exact for m in run_points(work, image, rtl)] == [True]
        monkeypatch.setattr(rtl, "write", damaged)
        assert [m.exact for m in run_points(work, image, rtl)] == [False]


def test_cycles_are_told_while_a_call_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr("terntable.sim.accelerator.PROGRESS_SECONDS", 0.05)
    work = make_workload(TINY, "tiny", [], [9], layers=2)
    with SimDevice(TINY) as rtl:
        (result,) = run_points(work, make_image(work), rtl, lambda point, n: told.append(n))
    assert told == sorted(told) and told[0] < told[-1]
    assert abs(told[-1] - result.simulated) < 2000
