"""`terntable compare`: one prompt on several devices, side by side."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from terntable.hw.errors import UserError

from ..comparison import difference, first_kv_layer, record
from ..output import progress
from .compare_table import Row, show
from .run import check_run, say
from .setup import Setup, check_device, kv_name, load_setups, start_device


@dataclass(frozen=True)
class CompareOptions:
    """The options of `compare`, as on the command line."""

    model: str
    devices: str
    kv: str | None
    config: str | None
    prompt: str | None
    prompt_ids: str | None
    max_tokens: int
    threshold: float
    json: bool


def parse_devices(text: str, least: int, kv: str | None) -> list[str]:
    """Names from `emulator,torch`. Raises UserError for unknown ones, for one given twice, for
    one that lacks a Python package or the KV format `kv`, and for fewer than `least`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        check_device(name, kv=kv)
        if names.count(name) > 1:
            raise UserError(f"device {name} is given twice: name each once")
    if len(names) < least:
        what = f"only {names[0]}" if names else "no device"
        raise UserError(f"devices names {what}: give {least} or more, as emulator,torch")
    return names


def compare_command(options: CompareOptions) -> None:
    """Run the prompt on each device and print what differs. Raises UserError."""
    devices = parse_devices(options.devices, 2, options.kv)
    if options.max_tokens < 1:
        raise UserError(f"max-tokens is {options.max_tokens}: make it at least 1")
    if not (math.isfinite(options.threshold) and options.threshold >= 0):
        raise UserError(f"threshold is {options.threshold}: make it 0 or above")
    setups = load_setups(options.model, options.config, devices, kv=options.kv)
    setup = setups[devices[0]]
    prompt = setup.encode(options.prompt, options.prompt_ids)
    check_run(setup, prompt, options.max_tokens, None)
    rows = compare(setups, devices, prompt, options.max_tokens, options.kv)
    if options.json:
        print(json.dumps(report(setup, prompt, rows, options.threshold, options.kv)))
    else:
        show(setup, prompt, rows, options.threshold)


def compare(
    setups: dict[str, Setup],
    devices: list[str],
    prompt: list[int],
    max_tokens: int,
    kv: str | None = None,
) -> list[Row]:
    """Run the devices one after the other, the first free and the others on its tokens."""
    rows: list[Row] = []
    for name in devices:
        forced = rows[0].trace.choices if rows else None
        with (
            start_device(name, setups[name], kv=kv, note=say) as device,
            progress(f"{len(prompt)} prompt tokens, up to {max_tokens} more on {name}"),
        ):
            trace = record(device, setups[name].image, prompt, max_tokens, forced)
        if not rows:
            rows.append(Row(trace))
            continue
        apart = difference(trace, rows[0].trace)
        other = next((row.trace for row in rows if row.trace.kv), None)
        if other is None or not trace.kv:
            rows.append(Row(trace, apart))
        else:
            rows.append(Row(trace, apart, other.device, first_kv_layer(trace, other)))
    return rows


def report(
    setup: Setup, prompt: list[int], rows: list[Row], threshold: float, kv: str | None = None
) -> dict[str, object]:
    """The JSON object of a comparison."""
    first = rows[0].trace
    return {
        "model": setup.model.spec.name,
        "config": setup.config.name,
        "clock_hz": setup.config.clock_hz,
        "reference": first.device,
        "teacher_forced": True,
        "prompt_tokens": prompt,
        "tokens": first.choices,
        "text": setup.tokenizer.decode(first.choices) if setup.tokenizer is not None else "",
        "threshold": threshold,
        "devices": [_row_report(row, threshold, kv) for row in rows],
    }


def _row_report(row: Row, threshold: float, kv: str | None) -> dict[str, object]:
    trace = row.trace
    out: dict[str, object] = {
        "device": trace.device,
        "device_detail": trace.detail,
        "kv": kv_name(trace.device, kv),
        "tokens": trace.choices,
        "prefill_seconds": round(trace.prefill_seconds, 6),
        "decode_seconds": round(trace.decode_seconds, 6),
        "decode_tokens_per_second": trace.decode_rate,
    }
    if trace.calls[0].cycles is not None:
        out |= {
            "prefill_cycles": trace.calls[0].cycles,
            "decode_cycles": [call.cycles for call in trace.calls[1:]],
        }
    if row.difference is not None:
        apart = row.difference
        out |= {
            "choice_equal": apart.agree,
            "logits_relative_rms": apart.rms_error,
            "logits_max_abs": apart.largest,
            "logits_identical": apart.identical,
            "layer_relative_rms": apart.layer_errors or None,
            "first_differing_layer": apart.first_layer(threshold),
        }
    if row.kv_with is not None:
        out |= {
            "kv_compared_with": row.kv_with,
            "kv_identical": row.kv_layer is None,
            "kv_first_differing_layer": row.kv_layer,
        }
    return out
