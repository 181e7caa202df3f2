"""Bundles: the same model as the checkpoint's, verified, written whole or not at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from terntable.host.checkpoints.bundle_writer import pack_trits, write_bundle
from terntable.host.checkpoints.tensor_writer import TensorWriter
from terntable.host.compiler import compile_model
from terntable.host.fit import derive_config
from terntable.host.model import Model, TextAssets, load_model, random_model
from terntable.hw.errors import UserError


def same_image(a: Model, b: Model) -> bool:
    """Whether both compile to the same bytes: weights, scales, gains, head, program."""
    images = [compile_model(m, derive_config(m.spec)) for m in (a, b)]
    same = np.array_equal(images[0].data, images[1].data)
    return same and np.array_equal(images[0].embedding, images[1].embedding)


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir()}


def test_a_bundle_is_its_checkpoint(folder, tmp_path: Path) -> None:
    path = folder.write()
    (path / "tokenizer.json").write_bytes(b'{"text": "\r\n \xc3\xa4"}')
    (path / "chat_template.jinja").write_text("{{ messages }}\n")
    checkpoint = load_model(path)
    survey = write_bundle(checkpoint, tmp_path / "b")
    bundle = load_model(tmp_path / "b")
    assert bundle.spec == checkpoint.spec and bundle.origin == checkpoint.origin
    assert bundle.text() == checkpoint.text()
    assert bundle.source == tmp_path / "b"
    assert same_image(checkpoint, bundle)
    trits = np.concatenate([t.reshape(-1) for t in folder.trits.values()])
    assert (survey.weights, survey.zeros) == (trits.size, (trits == 0).sum())
    # And a bundle of a bundle is that bundle.
    write_bundle(bundle, tmp_path / "c")
    assert contents(tmp_path / "b") == contents(tmp_path / "c")


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_scales_and_heads_of_all_kinds(make_spec, tmp_path: Path, tied: bool, shards: int) -> None:
    model = random_model(make_spec(tied=tied, hidden=26, ffn=40), 3, shards)
    write_bundle(model, tmp_path / "b")
    assert same_image(model, load_model(tmp_path / "b"))
    weights = load_file(tmp_path / "b" / "weights.safetensors")
    assert ("head" in weights) is not tied
    assert weights["layers.1.gate.scale"].shape == (shards,)
    assert ("layers.1.down.column_scale" in weights) is (shards > 1)


def test_float32_tables_are_kept_in_the_closer_16_bits(folder, tmp_path: Path) -> None:
    name = "model.embed_tokens.weight"
    exact = np.random.default_rng(1).standard_normal((10, 8)).astype(np.float32)
    for values, dtype, error in (
        (exact, np.float16, 3e-4),
        (exact * 65536, np.uint16, 3e-3),  # beyond binary16
        ((exact.view(np.uint32) & 0xFFFF0000).view(np.float32) * np.float32(2**-20), np.uint16, 0),
        (np.zeros((10, 8), np.float32), np.float16, 0),
    ):
        folder.tensors[name] = values
        checkpoint = load_model(folder.write())
        assert checkpoint.embedding.dtype == dtype
        found = checkpoint.embedding.astype(np.uint32) << 16
        found = found.view(np.float32) if dtype is np.uint16 else checkpoint.embedding
        size = np.sqrt(np.square(values.astype(np.float64)).sum()) or 1
        expected = np.sqrt(np.square(found.astype(np.float64) - values).sum()) / size
        assert checkpoint.table_error == pytest.approx(expected)
        assert checkpoint.table_error <= error
        write_bundle(checkpoint, tmp_path / "b", force=True)
        assert load_model(tmp_path / "b").table_error == checkpoint.table_error
        assert same_image(checkpoint, load_model(tmp_path / "b"))


def test_five_trits_a_byte_in_whole_words() -> None:
    trits = np.random.default_rng(0).integers(-1, 2, (7, 13), np.int8)
    assert len(pack_trits(trits)) == 20  # 91 trits


def test_damage_is_named(folder, tmp_path: Path) -> None:
    path = folder.write()
    (path / "tokenizer.json").write_text("{}")
    out = tmp_path / "b"
    write_bundle(load_model(path), out)
    weights, manifest = out / "weights.safetensors", out / "model.json"
    good, described = weights.read_bytes(), json.loads(manifest.read_text())

    def fails(message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            model = load_model(out)
            model.layer(0)
            model.layer(1)
            model.text()
        assert str(out) in str(error.value) and "\n" not in str(error.value)

    header = json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])
    start = 8 + int.from_bytes(good[:8], "little")
    for name in ("layers.1.up.trits", "layers.0.k.scale", "layers.1.ffn_norm", "embedding"):
        at = start + header[name]["data_offsets"][1] - 1
        weights.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        fails(f"tensor {name} is damaged: its CRC-32 differs")
    weights.write_bytes(good[:-1])
    fails(r"weights\.safetensors: .* bytes of .*: import it again")
    weights.write_bytes(good)
    (out / "tokenizer.json").write_text("[]")
    fails(r"tokenizer\.json is damaged")
    (out / "tokenizer.json").unlink()
    fails(r"tokenizer\.json: can't be read")
    (out / "tokenizer.json").write_text("{}")
    for change, message in (
        ({"version": 2}, "bundle version 2, this release reads 1"),
        ({"format": "another"}, "format: Input should be 'terntable model'"),
        ({"spec": described["spec"] | {"layers": 3}}, "tensor layers.2.q.trits is missing"),
        ({"spec": described["spec"] | {"vocab": 11}}, "embedding has shape"),
        ({"spec": described["spec"] | {"heads": 3}}, "layers.0.q.trits has shape"),
        ({"spec": described["spec"] | {"eps": "x"}}, "spec.eps: "),
        ({"crc32": {}}, "tensor layers.0.q.trits is missing"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ):
        manifest.write_text(json.dumps(described | change))
        fails(message)
    manifest.write_text(json.dumps(described))
    weights.unlink()
    fails(r"weights\.safetensors is missing")
    manifest.write_text("{")
    fails("can't be read as JSON")


def test_a_model_json_of_someone_else_is_no_bundle(folder) -> None:
    path = folder.write()
    (path / "model.json").write_text("{}")
    assert load_model(path).origin.startswith("BitNetForCausalLM")


class Interrupted(BaseException):
    """Ctrl-C, where it can't harm the test."""


def stop_at(step: int, error: BaseException) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise error

    return progress


@pytest.mark.parametrize(
    "error", [Interrupted(), OSError(28, "No space left on device"), UserError("no")]
)
@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_of_a_failure(
    make_spec, tmp_path: Path, error: BaseException, there: bool
) -> None:
    model, out = random_model(make_spec()), tmp_path / "sub" / "b"
    if there:
        out.parent.mkdir()
        write_bundle(random_model(make_spec(), 1), out)
    before = sorted(tmp_path.rglob("*")), contents(out) if there else None
    for step in (1, 2):
        with pytest.raises((Interrupted, UserError)):
            write_bundle(model, out, force=True, progress=stop_at(step, error))
        assert before == (sorted(tmp_path.rglob("*")), contents(out) if there else None)
    write_bundle(model, out, force=True)
    assert same_image(load_model(out), model)
    assert sorted(p.name for p in out.parent.iterdir()) == ["b"]


def test_what_may_be_replaced(make_spec, tmp_path: Path) -> None:
    model, out = random_model(make_spec()), tmp_path / "b"
    out.mkdir()
    write_bundle(model, out)  # an empty folder is as good as none
    with pytest.raises(UserError, match="is a model bundle already: give --force to replace it"):
        write_bundle(model, out)
    write_bundle(model, out, force=True)
    with pytest.raises(UserError, match="is the source itself"):
        write_bundle(load_model(out), out, force=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(UserError, match=r"holds 'notes\.txt', which isn't this program's"):
            write_bundle(model, mine, force)
        with pytest.raises(UserError, match="is no folder"):
            write_bundle(model, mine / "notes.txt", force)
    (mine / "model.json").write_text("{}")  # someone else's
    with pytest.raises(UserError, match="isn't this program's"):
        write_bundle(model, mine, force=True)
    assert sorted(contents(mine)) == ["model.json", "notes.txt"]
    link = tmp_path / "link"
    link.symlink_to(out)
    write_bundle(model, link, force=True)
    assert link.is_symlink() and same_image(load_model(link), model)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from terntable.host.cli import main
main()
"""


def test_a_full_disk_is_one_line_and_nothing_left(folder, tmp_path: Path) -> None:
    """A limit of the file's size fails a write as a full disk does."""
    path = folder.write()
    out = tmp_path / "out" / "b"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "import", path, "--out", out], capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert b"can't be written" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


SLOW = """
import sys, time
import terntable.host.checkpoints.huggingface as huggingface
whole = huggingface._layer
def layer(*arguments):
    print("layer", file=sys.stderr, flush=True)
    time.sleep(30)
    return whole(*arguments)
huggingface._layer = layer
from terntable.host.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_nothing(folder, tmp_path: Path, number: signal.Signals) -> None:
    path = folder.write()
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "import", path, "--out", tmp_path / "b"],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"layer\n"
    assert [p for p in tmp_path.iterdir() if p != path] != []  # it is at work
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.count(b"\n")) == (128 + number, 1)
    assert [p for p in tmp_path.iterdir()] == [path]


def test_a_writer_keeps_room_for_its_header(tmp_path: Path) -> None:
    """Long names and large numbers fit; names that were not announced don't."""
    names = [f"layers.{n}.{'x' * 50}" for n in range(100)]
    with TensorWriter(tmp_path / "a", names) as writer:
        for n, name in enumerate(names):
            writer.add(name, np.full((1, n + 1), n, np.float32))
        writer.finish()
    read = load_file(tmp_path / "a")
    assert all((read[name] == n).all() and read[name].size == n + 1 for n, name in enumerate(names))
    with TensorWriter(tmp_path / "b", ["a"]) as writer:
        for n in range(9):
            writer.add(f"unknown{n}", np.zeros(1, np.uint8))
        with pytest.raises(ValueError, match="room"):
            writer.finish()


def test_text_that_a_model_lacks(make_spec, tmp_path: Path) -> None:
    write_bundle(random_model(make_spec()), tmp_path / "b")
    assert load_model(tmp_path / "b").text() == TextAssets()
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]
