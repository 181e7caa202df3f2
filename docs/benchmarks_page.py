"""The page of full-size results, made of the data files that `make bench-full` writes."""

from __future__ import annotations

from terntable.host.bench.published import published
from terntable.host.bench.results import RUNS, Record, Run, load

TITLES = {
    "bitnet-0.73b": "BitNet b1.58 0.73B",
    "bitnet-2b-4t": "BitNet b1.58 2B-4T",
}
INTRODUCTION = """\
Every figure is **simulated**: the Verilog of configuration `kv260` in Verilator, all layers, from
doorbell to logits, with the memory model of a KV260 (14.0 GB/s together, four ports of 16 bytes a
cycle, 150 ns to the first beat) at 250 MHz, and a five-plane LM head unless said otherwise. Weights
and tokens are random, and so is the KV cache of a decode step. In each run logits and KV cache were
compared with the emulator's: a result is kept only when every bit is the same. No figure is
extrapolated, and none comes from a board.

`make bench-full` makes the missing ones: minutes each, hours for the prompt of 1,000 tokens;
finished runs are kept, and `NAME="..."` chooses some. `terntable bench --published` says whether
the gateware has changed since.
"""


def page(note: str) -> str:
    """docs/benchmarks.md."""
    lines = ["# Full-size results\n", note + INTRODUCTION]
    for shape, title in TITLES.items():
        found = [(run, load(run)) for run in RUNS if run.shape == shape]
        lines += [f"## {title}\n", *table([(run, r) for run, r in found if r is not None])]
        lines += ["\nPublished by others, measured on the board:\n"]
        lines += [f"- {each}" for each in published(shape)]
        lines.append("")
    results = [(run, r) for run in RUNS if (r := load(run)) is not None]
    lines += [*cycle_model(results), *provenance(results)]
    return "\n".join(lines)


def table(found: list[tuple[Run, Record]]) -> list[str]:
    """Speed, and what bounds it."""
    if not found:
        return ["No result is kept yet."]
    lines = [
        "| run | KV cache | cycles | | of the roofline | DRAM busy | array busy |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    for run, record in found:
        (point,) = record.result["decode"] + record.result["prefill"]
        if run.context:
            what, speed = f"decode at context {run.context:,}", f"**{point['tok_s']:.1f} tok/s**"
        else:
            what = f"prefill of {run.prompt:,} tokens"
            speed = f"**{1e3 * point['ttft_s']:.1f} ms** to the first token"
        if run.planes != 5:
            what += f", {run.planes}-plane head"
        share = point["roofline_cycles"] / point["cycles"]
        lines.append(
            f"| {what} | {run.kv.label} | {point['cycles']:,} | {speed} | {100 * share:.0f} %"
            f" ({point['roofline_bound']}) | {100 * point['dram_utilisation']:.0f} % |"
            f" {100 * point['array_utilisation']:.0f} % |"
        )
    return lines


def cycle_model(results: list[tuple[Run, Record]]) -> list[str]:
    """What `bench --predict` says of the same runs."""
    lines = [
        "## The cycle model\n",
        "`terntable bench --predict` runs the program on formulas of the units, without weights"
        " and RTL ([how](cycles.md)). What it predicted of these runs:\n",
        "| run | RTL | predicted | |",
        "| --- | --: | --: | --: |",
    ]
    for run, record in results:
        (point,) = record.result["decode"] + record.result["prefill"]
        error = point["predicted_cycles"] / point["cycles"] - 1
        lines.append(
            f"| `{run.name}` | {point['cycles']:,} | {point['predicted_cycles']:,} |"
            f" {100 * error:+.2f} % |"
        )
    return lines


def provenance(results: list[tuple[Run, Record]]) -> list[str]:
    """The command of each result and what it ran on."""
    lines = [
        "\n## Where the figures come from\n",
        "| command | date | Verilog, SHA-256 | wall time |",
        "| --- | --- | --- | --: |",
    ]
    for _, record in results:
        lines.append(
            f"| `{record.command}` | {record.date} | `{record.gateware.verilog_sha256[:16]}` |"
            f" {record.result['wall_s'] / 60:.0f} min |"
        )
    lines.append(
        "\nThe data lie in `host/bench/data`, with cycles by unit. The hash of the configuration"
        " and that of the generator's sources stand there too."
    )
    return [*lines, ""]
