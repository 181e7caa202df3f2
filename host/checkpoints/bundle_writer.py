"""Writes a model as a bundle, a layer at a time, whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terntable.host.checkpoints.bundle import (
    CHAT_TEMPLATE,
    MANIFEST,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    is_bundle,
    packed_size,
)
from terntable.host.checkpoints.survey import Survey
from terntable.host.checkpoints.tensor_writer import TensorWriter
from terntable.host.model import Layer, Model, ModelSpec
from terntable.host.output import check_folder, whole_folder
from terntable.hw.errors import UserError
from terntable.hw.linear.trits import TRITS_PER_BYTE, UNUSED_DIGIT, encode_byte, encode_bytes

_ZEROS = encode_byte((UNUSED_DIGIT,) * TRITS_PER_BYTE)
"""The byte of five trits 0."""


def check_target(out: Path, force: bool, source: Path | None = None) -> None:
    """Raise UserError unless a bundle can be written to `out`: there is nothing, or an empty
    folder, or with `force` a bundle that is not the source. Leaves nothing behind."""
    try:
        if out.is_dir() and is_bundle(out):
            if not force:
                raise UserError(f"{out} is a model bundle already: give --force to replace it")
            if source is not None and source.exists() and out.samefile(source):
                raise UserError(f"{out} is the source itself: name another folder")
            with tempfile.TemporaryFile(dir=out.resolve().parent):
                pass
        else:
            check_folder(out, ())
    except OSError as e:
        raise UserError(f"{out} can't be written: {e.strerror}") from None


def write_bundle(
    model: Model,
    out: Path,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Write `model` to the folder `out` and return what its layers showed.

    `progress` is called with layers done and layers. Raises UserError when it can't be written
    (`check_target`, a full disk) or read; then, and when interrupted, nothing is left.
    """
    check_target(out, force, model.source)
    text = model.text()
    texts = {TOKENIZER: text.tokenizer, CHAT_TEMPLATE: text.chat_template}
    survey, spec = Survey(), model.spec
    with whole_folder(out) as folder:
        crcs = {}
        for name, content in texts.items():
            if content is not None:
                data = content.encode("utf-8")
                (folder / name).write_bytes(data)
                crcs[name] = zlib.crc32(data)
        with TensorWriter(folder / WEIGHTS, _names(spec)) as writer:
            for n in range(spec.layers):
                layer = model.layer(n)
                survey.see(n, layer)
                _write_layer(writer, n, layer)
                if progress:
                    progress(n + 1, spec.layers)
            writer.add("final_norm", model.final_gain)
            writer.add("embedding", model.embedding)
            if not spec.tied:
                writer.add("head", model.head)
            writer.finish()
        manifest = Manifest(
            origin=model.origin,
            warnings=model.warnings,
            spec=spec,
            ternary_weights=survey.weights,
            zeros=survey.zeros,
            empty=tuple(survey.empty),
            table_error=model.table_error,
            weights_bytes=(folder / WEIGHTS).stat().st_size,
            crc32=crcs | writer.crcs,
        )
        lines = json.dumps(manifest.model_dump(), indent=1)
        (folder / MANIFEST).write_text(f"{lines}\n", encoding="utf-8")
        for file in folder.iterdir():
            with file.open("rb") as f:
                os.fsync(f.fileno())  # a full disk may show only here
    return survey


def _names(spec: ModelSpec) -> list[str]:
    names = ["final_norm", "embedding", "head"]
    for n in range(spec.layers):
        for name in spec.linear_shapes:
            names += [f"layers.{n}.{name}.{part}" for part in ("trits", "scale", "column_scale")]
        names += [f"layers.{n}.{name}" for name in spec.norm_sizes]
    return names


def _write_layer(writer: TensorWriter, n: int, layer: Layer) -> None:
    for name, linear in layer.linears.items():
        at = f"layers.{n}.{name}"
        writer.add(f"{at}.trits", pack_trits(linear.trits))
        writer.add(f"{at}.scale", linear.row_scales)
        if linear.column_scale is not None:
            writer.add(f"{at}.column_scale", linear.column_scale)
    for name, gain in layer.gains.items():
        writer.add(f"layers.{n}.{name}", gain)


def pack_trits(trits: NDArray[np.int8]) -> NDArray[np.uint8]:
    """A matrix [rows, columns] row by row, five trits a byte, in whole words."""
    code = encode_bytes((trits.reshape(-1) + np.int8(1)).view(np.uint8))
    return np.pad(code, (0, packed_size(*trits.shape) - len(code)), constant_values=_ZEROS)
