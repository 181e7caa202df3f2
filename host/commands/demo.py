"""`terntable demo`: the same prompt on simulated RTL and on the emulator, compared bit for bit."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from terntable.hw.errors import UserError

from ..devices.base import Device
from ..sampling import Sampler
from ..session import Generation, Session
from .run import Printer, check_run, generate_with_progress, say
from .setup import Setup, load_setup, start_device

PROMPT = "It is a truth universally acknowledged, that a single man"


@dataclass(frozen=True)
class DemoOptions:
    """The options of `demo`, as on the command line."""

    model: str
    kv: str | None
    config: str | None
    prompt: str | None
    prompt_ids: str | None
    max_tokens: int
    verilog: Path | None
    json: bool


@dataclass(frozen=True)
class Comparison:
    """RTL and emulator on one prompt, and the first place where they differ."""

    rtl: Generation
    emulator: Generation

    @property
    def same_tokens(self) -> bool:
        return self.rtl.tokens == self.emulator.tokens

    @property
    def difference(self) -> str:
        """Where the logits differ first; empty when they are equal bit for bit."""
        for step, (a, b) in enumerate(zip(self.rtl.logits, self.emulator.logits, strict=False)):
            wrong = np.flatnonzero(a.view(np.uint32) != b.view(np.uint32))
            if wrong.size:
                at = int(wrong[0])
                return (
                    f"step {step}: {wrong.size} of {a.size} logits differ, first id {at}:"
                    f" RTL {a[at]!r}, emulator {b[at]!r}"
                )
        if len(self.rtl.logits) != len(self.emulator.logits):
            return f"{len(self.rtl.logits)} steps on RTL, {len(self.emulator.logits)} on emulator"
        return ""

    @property
    def identical(self) -> bool:
        return self.same_tokens and not self.difference


def compare(
    setup: Setup, rtl: Device, prompt: list[int], max_tokens: int, quiet: bool = False
) -> Comparison:
    """Generate on the open device `rtl` (text shown as it comes), then on the emulator."""
    check_run(setup, prompt, max_tokens, None)
    printer = Printer(setup.tokenizer, quiet)
    on_rtl = generate_with_progress(
        Session(rtl, setup.image), prompt, max_tokens, Sampler(), printer
    )
    with start_device("emulator", setup) as emulator:
        on_emulator = Session(emulator, setup.image).generate(prompt, max_tokens)
    return Comparison(on_rtl, on_emulator)


def read_verilog(path: Path) -> str:
    """Verilog of the user's. Raises UserError when the file can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"Verilog file {path} can't be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"Verilog file {path} isn't UTF-8 text") from None


def demo_command(options: DemoOptions) -> None:
    """Run the demo. Exit status 1 when RTL and emulator differ."""
    if options.max_tokens < 1:
        raise UserError(f"max-tokens is {options.max_tokens}: the demo needs at least 1")
    verilog = read_verilog(options.verilog) if options.verilog is not None else None
    setup = load_setup(options.model, options.config, "sim", options.kv)
    given = options.prompt is not None or options.prompt_ids is not None
    ids = setup.encode(options.prompt if given else PROMPT, options.prompt_ids)
    check_run(setup, ids, options.max_tokens, None)
    if not options.json:
        c = setup.config
        print(
            f"model {setup.model.spec.name}, configuration {c.name}: {c.macs_per_cycle} ternary"
            f" MAC a cycle, {c.ports} x {c.bus_bits}-bit memory ports\n",
            flush=True,
        )
    with start_device("sim", setup, verilog=verilog, note=say) as device:
        result = compare(setup, device, ids, options.max_tokens, options.json)
    if options.json:
        print(json.dumps(report(setup, result)))
    else:
        show(setup, result)
    if not result.identical:
        print(
            "terntable: RTL and emulator differ: "
            + (result.difference or "tokens are not the same"),
            file=sys.stderr,
        )
        raise typer.Exit(1)


def report(setup: Setup, result: Comparison) -> dict[str, object]:
    """The JSON object of a demo."""
    rtl = result.rtl
    return {
        "config": setup.config.name,
        "kv": setup.image.kv.label,
        "clock_hz": setup.config.clock_hz,
        "prompt_tokens": rtl.prompt_tokens,
        "tokens": rtl.tokens,
        "text": setup.tokenizer.decode(rtl.tokens) if setup.tokenizer else "",
        "tokens_identical": result.same_tokens,
        "logits_identical": not result.difference,
        "difference": result.difference,
        "prefill_cycles": rtl.prefill.cycles if rtl.prefill else None,
        "decode_cycles": [r.cycles for r in rtl.decode],
        "decode_unit_cycles": unit_means(rtl),
        "simulated_cycles_per_second": simulation_rate(rtl),
    }


def unit_means(rtl: Generation) -> dict[str, float]:
    """Mean busy cycles of each unit in a decode token."""
    if not rtl.decode:
        return {}
    names = rtl.decode[0].unit_cycles
    return {n: sum(r.unit_cycles[n] for r in rtl.decode) / len(rtl.decode) for n in names}


def simulation_rate(rtl: Generation) -> float:
    """Simulated cycles a second of wall time, over all calls."""
    calls = [r for r in [rtl.prefill, *rtl.decode] if r is not None]
    seconds = rtl.prefill_seconds + rtl.decode_seconds
    return sum(r.cycles or 0 for r in calls) / seconds if seconds else 0.0


def show(setup: Setup, result: Comparison) -> None:
    """The demo's closing table."""
    rtl, hz = result.rtl, setup.config.clock_hz
    table = Table(title="RTL in simulation against the emulator", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    verdict = "identical" if result.same_tokens else "DIFFERENT"
    table.add_row(f"tokens ({len(rtl.tokens)})", verdict)
    verdict = "DIFFERENT" if result.difference else "identical"
    table.add_row(f"logits ({len(rtl.logits)} x {setup.image.spec.vocab})", verdict)
    if rtl.prefill is not None and rtl.prefill.cycles is not None:
        cycles = rtl.prefill.cycles
        table.add_row(f"prefill of {len(rtl.prompt_tokens)} tokens", f"{cycles:,} cycles")
        table.add_row("time to first token, simulated", f"{cycles / hz * 1e3:.2f} ms")
    if rtl.decode:
        mean = sum(r.cycles or 0 for r in rtl.decode) / len(rtl.decode)
        table.add_section()
        table.add_row("decode token, mean", f"{mean:,.0f} cycles")
        for name, value in unit_means(rtl).items():
            unit = "" if name.endswith("beats") else " cycles"
            table.add_row(f"  {name.replace('_', ' ')}", f"{value:,.0f}{unit}")
        table.add_row(f"decode rate at {hz / 1e6:g} MHz, simulated", f"{hz / mean:,.0f} tok/s")
    table.add_section()
    table.add_row("simulation speed, measured", f"{simulation_rate(rtl):,.0f} cycles/s")
    Console(file=sys.stdout).print(table)
