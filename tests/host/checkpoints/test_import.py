"""`terntable import`: what it prints, writes and refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.head import quantise_head
from terntable.host.model import load_model, random_model
from terntable.host.tokenizer import Tokenizer
from terntable.hw.config import load_config


def files(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir()}


@pytest.fixture
def made(folder) -> Path:
    """A folder with a tokenizer, an all-zero matrix and a tensor that nothing uses."""
    folder.tensors["model.layers.1.mlp.up_proj.weight"] = np.full((3, 8), 0x55, np.uint8)
    folder.tensors["extra"] = np.zeros(3, np.float32)
    path = folder.write()
    tokenizer = {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
    }
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (path / "chat_template.jinja").write_text("{{ messages }}")
    return path


def test_the_report_as_json(cli, folder, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    got = cli("import", str(made), "--out", str(out), "--json")
    assert got.status == 0
    report, model = json.loads(got.out), load_model(made)
    assert report["spec"] == json.loads(model.spec.model_dump_json())
    assert report["origin"] == "BitNetForCausalLM, two-bit codes, multiplied by weight_scale"
    assert report["ternary_weights"] == model.spec.ternary_weights
    weights = [layer.linears for layer in map(model.layer, range(2))]
    zeros = sum((m.trits == 0).sum() for linears in weights for m in linears.values())
    assert report["zeros"] == pytest.approx(zeros / model.spec.ternary_weights)
    assert report["head_error"] == quantise_head(model.head).error > 0
    assert (report["embedding_format"], report["embedding_error"]) == ("float16", 0)
    assert report["tokenizer"] and report["chat_template"]
    fits = {fit["config"]: fit for fit in report["configurations"]}
    image = compile_model(model, load_config("test"))
    assert fits["test"]["dram_bytes"] == image.size and fits["test"]["context"] == image.context
    assert fits["test"]["reason"] is None
    assert report["bundle_bytes"] == sum(len(data) for data in files(out).values())
    assert report["warnings"] == [
        "the model does not use tensor extra",
        "every weight is 0 in up of layer 1",
    ]
    assert got.err.splitlines() == [f"terntable: warning: {w}" for w in report["warnings"]]


def test_the_report_as_text(cli, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    got = cli("import", str(made), "--out", str(out))
    lines = dict(line.split("  ", 1) for line in got.out.splitlines())
    lines = {name: value.strip() for name, value in lines.items()}
    assert lines["shape"] == "2 layers, hidden 8, feed-forward 12, squared ReLU"
    assert lines["attention"] == "2 heads of 4, 1 for keys and values, RoPE base 500,000"
    assert lines["text"] == "a tokenizer, a chat template, end ids 2, 3"
    assert lines["embedding"] == "10 ids in float16, no rounding error"
    assert lines["on test"].startswith("fits: ")
    assert lines["bundle"] == f"{out}, {sum(map(len, files(out).values())):,} bytes"
    assert "note" not in lines


def test_check_only_reports(cli, made: Path, tmp_path: Path) -> None:
    got = cli("import", str(made), "--check", "--json")
    report = json.loads(got.out)
    assert report["out"] is None and report["bundle_bytes"] is None
    assert len(report["warnings"]) == 2
    assert list(tmp_path.iterdir()) == [made]


def test_a_weight_only_model_is_told_of_int8(cli, folder) -> None:
    del folder.dense().config["quantization_config"]
    got = cli("import", str(folder.write()), "--check")
    assert "published with activations in floating point: they go through int8" in got.out


def test_a_model_that_no_configuration_takes(cli, save_model, make_spec, tmp_path: Path) -> None:
    spec = make_spec(hidden=3072, heads=20, head_dim=8, kv_heads=20)
    path = save_model(random_model(spec), tmp_path / "wide")
    fits = json.loads(cli("import", str(path), "--check", "--json").out)["configurations"]
    assert all(fit["reason"] for fit in fits[:-1])
    assert "hidden size is 3072, max_hidden is 64" in fits[0]["reason"]
    assert fits[-1]["config"] == "tiny-derived" and fits[-1]["dram_bytes"] > 0


def test_run_takes_the_bundle_and_tells_of_oddities(cli, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    cli("import", str(made), "--out", str(out))
    results = []
    for path in (made, out):
        logits = tmp_path / "logits.npy"
        options = ("--prompt-ids", "1,2,3", "--max-tokens", "4", "--logits", str(logits))
        got = cli("run", "--model", str(path), *options, "--json")
        assert got.err.splitlines() == [
            "terntable: warning: the model does not use tensor extra",
            "terntable: warning: every weight is 0 in up of layer 1",
        ]
        results.append((json.loads(got.out)["tokens"], logits.read_bytes()))
    assert results[0] == results[1]


def test_a_sentencepiece_model_becomes_a_tokenizer(cli, folder, tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece")
    path, model = folder.write(), io.BytesIO()
    lines = ["it was a dark and stormy night", "the rain fell in torrents"] * 20
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=24, minloglevel=2
    )
    (path / "tokenizer.model").write_bytes(model.getvalue())
    report = json.loads(cli("import", str(path), "--out", str(tmp_path / "b"), "--json").out)
    assert report["tokenizer"] and not report["chat_template"]
    text = load_model(tmp_path / "b").text().tokenizer
    expected = spm.SentencePieceProcessor(model_proto=model.getvalue()).encode(lines[0])
    assert Tokenizer(text, "b").encode(lines[0])[-len(expected) :] == expected


MISTAKES = {
    "no output": ((), "no --out"),
    "output and check": (("--out", "{tmp}/b", "--check"), "both given"),
    "output in a file": (("--out", "{tmp}/m/config.json/b"), "can't be written"),
    "output that is a file": (("--out", "{tmp}/m/config.json"), "is no folder"),
    "output that is another's": (("--out", "{tmp}/m", "--force"), "which isn't this program's"),
    "output in no place": (("--out", "/proc/b"), "can't be written"),
    "an existing bundle": (("--out", "{tmp}/there"), "give --force to replace it"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    cli, folder, tmp_path: Path, name: str
) -> None:
    path = folder.write()
    cli("import", str(path), "--out", str(tmp_path / "there"))
    before = sorted(tmp_path.rglob("*"))
    arguments, words = MISTAKES[name]
    got = cli("import", str(path), *(a.format(tmp=tmp_path) for a in arguments))
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert words in got.err
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_sources_leave_nothing(cli, folder, tmp_path: Path) -> None:
    path = folder.write()
    options = ("--out", str(tmp_path / "b"))

    def fails(words: str, source: str | None = None) -> None:
        got = cli("import", source or str(path), *options)
        assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
        assert words in got.err
        assert not (tmp_path / "b").exists()

    fails("no model 'nosuch'", "nosuch")
    fails("no checkpoint", str(path / "config.json"))
    (path / "tokenizer.json").write_text("{")
    fails("no tokenizer")
    (path / "tokenizer.json").unlink()
    folder.tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = 255
    folder.write()
    fails("down_proj.weight has codes that are no trits")
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-1])
    fails("cut short")


def test_force_replaces_a_bundle(cli, folder, tmp_path: Path) -> None:
    path, out = folder.write(), tmp_path / "b"
    cli("import", str(path), "--out", str(out))
    first = files(out)
    folder.config["max_position_embeddings"] = 16
    folder.write()
    assert cli("import", str(path), "--out", str(out), "--force").status == 0
    assert files(out).keys() == first.keys() and files(out) != first
    assert load_model(out).spec.context == 16
