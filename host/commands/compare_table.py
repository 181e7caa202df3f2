"""A comparison of devices as a table: a column a device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ..comparison import Difference, Trace
from .setup import Setup


@dataclass(frozen=True)
class Row:
    """A device's trace and, but for the reference, how far it is from the reference.

    kv_with   the device whose KV cache was compared with this one's, None where none was
    kv_layer  the first layer in which the two caches differ
    """

    trace: Trace
    difference: Difference | None = None
    kv_with: str | None = None
    kv_layer: int | None = None


def show(setup: Setup, prompt: list[int], rows: list[Row], threshold: float) -> None:
    """Print the table, and the steps at which devices would choose otherwise."""
    out = Console(file=sys.stdout, markup=False, highlight=False)
    first = rows[0].trace
    out.print(
        f"model {setup.model.spec.name}, configuration {setup.config.name}: {first.device} chose"
        f" {len(first.choices)} tokens after {len(prompt)}; the others were fed the same tokens"
        " (teacher forcing)",
        soft_wrap=True,
    )
    out.print(f"tokens: {' '.join(map(str, first.choices))}", soft_wrap=True)
    if setup.tokenizer is not None:
        out.print(f"text: {setup.tokenizer.decode(first.choices)!r}", soft_wrap=True)
    table = Table()
    table.add_column("")
    for row in rows:
        table.add_column(row.trace.device, justify="right")
    for title, cells in _lines(setup, rows, threshold):
        table.add_row(title, *cells)
    out.print(table)
    for row in rows[1:]:
        for step, (mine, theirs) in enumerate(
            zip(row.trace.choices, first.choices, strict=True), start=1
        ):
            if mine != theirs:
                out.print(
                    f"token {step}: {row.trace.device} would choose {_token(setup, mine)},"
                    f" {first.device} chose {_token(setup, theirs)}",
                    soft_wrap=True,
                )


def _lines(setup: Setup, rows: list[Row], threshold: float) -> list[tuple[str, list[str]]]:
    """Title and a cell a device of each line."""
    traces, steps = [row.trace for row in rows], len(rows[0].trace.choices)

    def apart(title: str, cell: Callable[[Difference], str]) -> tuple[str, list[str]]:
        cells = ["reference" if row.difference is None else cell(row.difference) for row in rows]
        return title, cells

    lines = [
        apart(f"same choice, of {steps} tokens", lambda d: str(sum(d.agree))),
        apart("logits: relative RMS of the error", lambda d: f"{d.rms_error:.1e}"),
        apart("logits: largest error", lambda d: f"{d.largest:.1e}"),
        apart("logits: bit for bit", lambda d: "identical" if d.identical else "different"),
        apart(f"first layer with an error over {threshold:g}", lambda d: _layer(d, threshold)),
    ]
    if any(trace.detail for trace in traces):
        lines.insert(0, ("runs on", [trace.detail for trace in traces]))
    if any(row.kv_with is not None for row in rows):
        lines.append(("KV cache, bit for bit", [_kv(row) for row in rows]))
    rates = [trace.decode_rate for trace in traces]
    lines += [
        ("prefill, measured", [f"{trace.prefill_seconds:.3f} s" for trace in traces]),
        ("decode, measured", ["" if rate is None else f"{rate:.1f} tok/s" for rate in rates]),
    ]
    if any(trace.calls[0].cycles is not None for trace in traces):
        hz = setup.config.clock_hz
        lines.append(
            (f"decode at {hz / 1e6:g} MHz, simulated", [_simulated(t, hz) for t in traces])
        )
    return lines


def _layer(difference: Difference, threshold: float) -> str:
    if not difference.layer_errors:
        return "not seen"
    layer = difference.first_layer(threshold)
    if layer is None:
        return f"none ({max(difference.layer_errors):.1e})"
    return f"{layer} ({difference.layer_errors[layer]:.1e})"


def _kv(row: Row) -> str:
    if row.kv_with is None:
        return ""
    if row.kv_layer is None:
        return f"as {row.kv_with}"
    return f"not as {row.kv_with} from layer {row.kv_layer}"


def _simulated(trace: Trace, hz: int) -> str:
    cycles = [call.cycles for call in trace.calls[1:] if call.cycles is not None]
    return f"{len(cycles) * hz / sum(cycles):,.0f} tok/s" if cycles else ""


def _token(setup: Setup, token: int) -> str:
    if setup.tokenizer is None:
        return str(token)
    return f"{token} {setup.tokenizer.decode([token])!r}"
