"""`terntable import`: what a checkpoint is, and the checkpoint as a model bundle."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terntable.hw.config import AcceleratorConfig, load_config, named_configs
from terntable.hw.errors import UserError

from ..checkpoints.bundle_writer import check_target, write_bundle
from ..checkpoints.survey import Survey, survey
from ..fit import derive_config
from ..footprint import region_bytes
from ..head import quantise_head
from ..image import MOST_BYTES
from ..model import Model, load_model
from ..output import progress, warn
from ..shapes import Shapes
from ..tokenizer import Tokenizer


def import_command(source: str, out: Path | None, force: bool, check: bool, as_json: bool) -> None:
    """Read a checkpoint, say what it is and write it as a bundle, or with `check` only say it.

    Raises UserError before anything long has started, if something can't be done.
    """
    if out is None and not check:
        raise UserError("no --out: name a folder for the bundle, or give --check to only look")
    if out is not None and check:
        raise UserError("--out and --check are both given: --check writes nothing")
    model = load_model(source)
    if out is not None:
        check_target(out, force, model.source)
    text = model.text()
    if text.tokenizer is not None:
        Tokenizer(text.tokenizer, source)  # refused now rather than by the first prompt
    layers = model.spec.layers
    with progress(f"{model.spec.name}: {layers} layers", layers) as bar:

        def step(done: int, total: int) -> None:
            bar.update(bar.task_ids[0], completed=done)

        found = survey(model, step) if out is None else write_bundle(model, out, force, step)
    report = describe(source, model, found, out)
    if as_json:
        print(json.dumps(report))
    else:
        print(render(report))
    for line in report["warnings"]:
        warn(line)


@dataclass(frozen=True)
class Fit:
    """Whether a configuration takes the model: bytes of DRAM for so many positions, or why not."""

    config: str
    context: int | None = None
    dram_bytes: int | None = None
    reason: str | None = None


def describe(source: str, model: Model, found: Survey, out: Path | None) -> dict[str, Any]:
    """The JSON object of an import."""
    spec, text = model.spec, model.text()
    fits = [_fit(model, found, load_config(name)) for name in named_configs()]
    if all(f.reason for f in fits):
        fits.append(_fit(model, found, derive_config(spec)))
    return {
        "source": source,
        "origin": model.origin,
        "spec": spec.model_dump(),
        "ternary_weights": found.weights,
        "zeros": found.zeros / found.weights,
        "most_scales": found.scales,
        "embedding_format": _FORMATS[model.embedding.dtype],
        "embedding_error": model.table_error,
        "head_error": quantise_head(model.head).error,
        "configurations": [asdict(f) for f in fits],
        "tokenizer": text.tokenizer is not None,
        "chat_template": text.chat_template is not None,
        "warnings": [*model.warnings, *found.warnings],
        "out": None if out is None else str(out),
        "bundle_bytes": None if out is None else sum(f.stat().st_size for f in os.scandir(out)),
    }


def _fit(model: Model, found: Survey, config: AcceleratorConfig) -> Fit:
    context = min(model.spec.context, config.max_context)
    if why := Shapes(config, model.spec, context).misfit():
        return Fit(config.name, reason=why)
    try:
        regions = region_bytes(model.spec, found.outlines, model.final_gain, config, context)
    except UserError as e:
        return Fit(config.name, reason=str(e))
    size = sum(regions.values())
    if size >= MOST_BYTES:
        return Fit(config.name, reason=f"an image of {size:,} bytes: offsets reach 4 GiB")
    return Fit(config.name, context, size)


_FORMATS = {
    np.dtype(np.float32): "float32",
    np.dtype(np.float16): "float16",
    np.dtype(np.uint16): "bfloat16",
}
_ACTIVATIONS = {"silu": "SiLU", "relu2": "squared ReLU"}


def render(report: dict[str, Any]) -> str:
    """The report as lines for people."""
    spec = report["spec"]
    norms = [name for name in ("attn", "ffn") if spec[f"{name}_sub_norm"]]
    head = "tied to the embedding" if spec["tied"] else "of its own"
    ends = ", ".join(map(str, spec["eos_ids"])) or "none"
    most = report["most_scales"]
    rows = [
        ("model", f"{spec['name']}: {report['origin']}"),
        ("shape", f"{spec['layers']} layers, hidden {spec['hidden']:,}, feed-forward"
                  f" {spec['ffn']:,}, {_ACTIVATIONS[spec['activation']]}"),
        ("attention", f"{spec['heads']} heads of {spec['head_dim']}, {spec['kv_heads']} for keys"
                      f" and values, RoPE base {spec['rope_theta']:,.10g}"),
        ("sub-norms", " and ".join(norms) or "none"),
        ("context", f"{spec['context']:,} positions"),
        ("ternary weights", f"{report['ternary_weights']:,}, {100 * report['zeros']:.1f} % zeros,"
                            f" {'one scale' if most == 1 else f'up to {most} scales'} a matrix"),
        ("embedding", f"{spec['vocab']:,} ids in {report['embedding_format']},"
                      f" {_percent(report['embedding_error'])} rounding error"),
        ("LM head", f"{head}, {_percent(report['head_error'])} quantisation error"),
        ("text", f"{'a' if report['tokenizer'] else 'no'} tokenizer,"
                 f" {'a' if report['chat_template'] else 'no'} chat template, end ids {ends}"),
    ]  # fmt: skip
    if spec["weight_only"]:
        rows.append(
            ("note", "published with activations in floating point: they go through int8 all the"
                     " same")
        )  # fmt: skip
    for fit in report["configurations"]:
        if fit["reason"] is None:
            says = f"fits: {fit['dram_bytes']:,} bytes of DRAM for {fit['context']:,} positions"
        else:
            says = f"no: {fit['reason']}"
        rows.append((f"on {fit['config']}", says))
    if report["out"] is not None:
        rows.append(("bundle", f"{report['out']}, {report['bundle_bytes']:,} bytes"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _percent(error: float) -> str:
    return "no" if error == 0 else f"{100 * error:.2g} %"
