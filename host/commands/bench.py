"""`terntable bench`: cycles, rates and utilisation of a published shape on simulated RTL."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from terntable.hw.config import load_config
from terntable.hw.errors import UserError
from terntable.hw.isa import KvFormat

from ..bench.figures import DRAM, Figures, bench_object
from ..bench.published import published
from ..bench.roofline import bits_per_weight
from ..bench.runner import Measured, predict_point, predict_points, run_points
from ..bench.workload import Point, Workload, make_image, make_workload
from ..devices.sim import SimDevice
from ..output import progress
from .bench_results import show_results
from .run import say

CONTEXTS, PROMPTS = (128,), (64,)
"""What is measured when nothing is asked for."""
LONG_CYCLES = 3_000_000
"""From here on a simulator that is compiled more thoroughly pays."""


@dataclass(frozen=True)
class BenchOptions:
    """The options of `bench`, as on the command line."""

    config: str | None
    shape: str | None
    context: Sequence[str]
    prompt: Sequence[str]
    kv: str
    planes: int
    layers: int | None
    predict: bool
    published: bool
    json: bool


def bench_command(options: BenchOptions) -> None:
    """Measure and print. Exit status 1 when RTL and emulator differ."""
    if options.published:
        show_results(options.json)
        return
    if options.config is None or options.shape is None:
        missing = "config" if options.config is None else "shape"
        raise UserError(f"no {missing}: give --{missing} NAME")
    began = time.perf_counter()
    formats = {kv.label: kv for kv in KvFormat}
    if options.kv not in formats:
        raise UserError(f"unknown KV format {options.kv!r}: choose from {', '.join(formats)}")
    config = load_config(options.config)
    contexts, prompts = numbers("context", options.context), numbers("prompt", options.prompt)
    if not contexts and not prompts:
        contexts, prompts = list(CONTEXTS), list(PROMPTS)
    work = make_workload(
        config,
        options.shape,
        contexts,
        prompts,
        options.layers,
        formats[options.kv],
        options.planes,
    )
    if options.predict:
        if options.layers is not None:
            raise UserError("--predict computes all layers: leave --layers away")
        measured, kind = list(predict_points(work)), "predicted"
    else:
        measured, kind = simulate(work), "simulated"
    wall = time.perf_counter() - began
    if options.json:
        print(json.dumps(bench_object(work, measured, kind, wall)))
    else:
        show(work, measured, kind)
    wrong = [str(m.point) for m in measured if m.exact is False]
    if wrong:
        print(f"terntable: RTL and emulator differ: {', '.join(wrong)}", file=sys.stderr)
        raise typer.Exit(1)


def numbers(option: str, given: Iterable[str]) -> list[int]:
    """Numbers of an option that may come several times, or as a list with commas."""
    values: list[int] = []
    for part in ",".join(given).split(",") if given else ():
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", part):
            raise UserError(f"{option}: {part.strip()!r} is no number: give it as 128 or 128,1024")
        values.append(int(part))
    return list(dict.fromkeys(values))


def simulate(work: Workload) -> list[Measured]:
    """Build, pack and run, with a progress bar on a terminal."""
    measured = []
    with ExitStack() as stack:
        cycles = sum(predict_point(work, work.spec, point).cycles for point in work.points)
        rtl = stack.enter_context(SimDevice(work.config, status=say, thorough=cycles > LONG_CYCLES))
        bar = stack.enter_context(progress("packing random weights"))
        image = make_image(work, lambda done, total: _show(bar, done, total))

        def on_cycle(point: Point, cycles: int) -> None:
            guess = predict_point(work, work.spec, point).cycles
            _show(bar, cycles, max(guess, cycles), str(point))

        for result in run_points(work, image, rtl, on_cycle):
            measured.append(result)
    return measured


def _show(bar: Progress, done: int, total: int, what: str | None = None) -> None:
    if what is not None:
        bar.update(bar.task_ids[0], description=what, note=f"{done:,} cycles")
    bar.update(bar.task_ids[0], completed=done, total=total)


# ---------------------------------------------------------------- text


def show(work: Workload, measured: Sequence[Measured], kind: str) -> None:
    """Figures, cycles by unit, and what others have published."""
    out = Console(file=sys.stdout, markup=False, highlight=False)
    c = work.config
    out.print(
        f"{work.full.name} on configuration {c.name}: {c.macs_per_cycle:,} ternary MAC a cycle at"
        f" {c.clock_hz / 1e6:g} MHz, memory model of {DRAM.bandwidth / 1e9:g} GB/s, KV cache in"
        f" {work.kv.label}, LM head of {work.planes} planes, {bits_per_weight(c, work.full):.3f}"
        " bits a weight",
        soft_wrap=True,
    )
    out.print(_layers(work, kind), soft_wrap=True)
    out.print(_table([Figures(work, m) for m in measured], kind))
    if others := published(work.full.name):
        out.print("published, measured on the board:")
        for each in others:
            out.print(f"  {each}", soft_wrap=True)


def _layers(work: Workload, kind: str) -> str:
    if kind == "predicted":
        return "predicted by the cycle model: no RTL was run"
    if work.extrapolated:
        return (
            f"simulated RTL of {work.spec.layers} of {work.full.layers} layers; cycles and rates"
            " of the whole are EXTRAPOLATED, the missing layers by the cycle model"
        )
    return f"simulated RTL, all {work.full.layers} layers, from doorbell to logits"


def _table(figures: Sequence[Figures], kind: str) -> Table:
    """A column a point."""
    table = Table(kind)
    for f in figures:
        table.add_column(str(f.measured.point), justify="right")

    def row(name: str, value: Callable[[Figures], str]) -> None:
        table.add_row(name, *(value(f) for f in figures))

    row("cycles", lambda f: f"{f.measured.cycles:,}")
    row("milliseconds", lambda f: f"{1e3 * f.seconds:,.2f}")
    row("tok/s", lambda f: f"{f.tok_s:,.1f}")
    row("DRAM", lambda f: f"{f.dram_gbps:.2f} GB/s")
    row("  of limit", lambda f: f"{100 * f.dram_utilisation:.1f} %")
    row("array utilisation", lambda f: f"{100 * f.array_utilisation:.1f} %")
    row("roofline", lambda f: f"{f.roofline.cycles:,.0f}")
    row("  bound by", lambda f: f.roofline.bound)
    row("  reached", lambda f: f"{100 * f.of_roofline:.1f} %")
    if kind == "simulated":
        verdict = {True: "identical", False: "DIFFERENT", None: ""}
        row("logits, KV cache", lambda f: verdict[f.measured.exact])
    table.add_section()
    table.add_row("busy cycles, simulated layers" if kind == "simulated" else "busy cycles")
    for name in figures[0].measured.unit_cycles:
        counts = (f"{f.measured.unit_cycles[name]:,}" for f in figures)
        table.add_row(f"  {name.replace('_', ' ')}", *counts)
    return table
