"""The command line: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from terntable.host.model import BUILT_IN, random_model
from terntable.host.tokenizer import TextStream, Tokenizer
from terntable.sim import accelerator


def tiny_tokenizer() -> Tokenizer:
    file = BUILT_IN / "tiny" / "tokenizer.json"
    return Tokenizer(file.read_text(encoding="utf-8"), str(file))


RUN = ("run", "--model", "tiny", "--config", "tiny")


def test_run_json_has_the_keys_and_nothing_else(cli) -> None:
    got = cli(*RUN, "--prompt", "It is a truth", "--max-tokens", "5", "--json")
    assert got.status == 0
    result = json.loads(got.out)
    assert result["device"] == "emulator"
    assert result["config"] == "tiny"
    assert len(result["tokens"]) == 5
    assert all(isinstance(t, int) for t in result["prompt_tokens"] + result["tokens"])
    assert isinstance(result["text"], str) and result["text"]
    assert "decode_cycles" not in result  # the emulator has no cycles


def test_text_goes_to_standard_output_and_the_summary_elsewhere(cli) -> None:
    got = cli(*RUN, "--prompt", "It is a truth", "--max-tokens", "3")
    assert got.out.startswith("It is a truth")
    assert "[emulator, configuration tiny" in got.err


def test_logits_file(cli, tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    got = cli(*RUN, "--prompt-ids", "7,14,21", "--max-tokens", "3", "--logits", str(file), "--json")
    logits = np.load(file)
    assert logits.dtype == np.float32
    assert logits.shape == (3, 1024)
    assert json.loads(got.out)["tokens"] == logits.argmax(axis=1).tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_zero_tokens_prefills_only(cli, tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    got = cli(*RUN, "--prompt-ids", "7", "--max-tokens", "0", "--logits", str(file), "--json")
    assert got.status == 0
    assert json.loads(got.out)["tokens"] == []
    assert np.load(file).shape == (0, 1024)


def test_sampling_repeats_with_its_seed(cli) -> None:
    def tokens(seed: str) -> list[int]:
        sampling = ["--temperature", "1.0", "--top-k", "50", "--top-p", "0.95", "--seed", seed]
        got = cli(*RUN, "--prompt-ids", "7,14", "--max-tokens", "12", "--json", *sampling)
        return json.loads(got.out)["tokens"]

    assert tokens("1") == tokens("1")
    assert tokens("1") != tokens("2")


def test_chunk_does_not_change_the_logits(cli, tmp_path: Path) -> None:
    ids = ",".join(str(i * 7 % 1024) for i in range(1, 24))
    files = []
    for chunk in ("1", "5", "16"):
        file = tmp_path / f"{chunk}.npy"
        split = ["--prompt-ids", ids, "--max-tokens", "2", "--chunk", chunk]
        cli(*RUN, *split, "--logits", str(file), "--json")
        files.append(file.read_bytes())
    assert len(set(files)) == 1


MISTAKES = {
    "unknown device": (("--device", "nosuch", "--prompt", "x"), "nosuch"),
    "unknown model": (("--model", "nosuch", "--prompt", "x"), "nosuch"),
    "unknown configuration": (("--config", "nosuch", "--prompt", "x"), "nosuch"),
    "missing configuration file": (("--config", "./nosuch.yaml", "--prompt", "x"), "nosuch.yaml"),
    "no prompt": ((), "prompt"),
    "empty prompt": (("--prompt", ""), "empty"),
    "both prompts": (("--prompt", "x", "--prompt-ids", "1"), "both"),
    "empty ids": (("--prompt-ids", ""), "prompt-ids"),
    "ids that are no integers": (("--prompt-ids", "1,x,3"), "'x'"),
    "ids out of range": (("--prompt-ids", "1,1024"), "1024"),
    "negative ids": (("--prompt-ids=-1",), "-1"),
    "negative max-tokens": (("--prompt", "x", "--max-tokens", "-1"), "-1"),
    "overflowing max-tokens": (("--prompt", "x", "--max-tokens", "1025"), "1025"),
    "max-tokens that is no number": (("--prompt", "x", "--max-tokens", "many"), "max-tokens"),
    "unknown option": (("--nosuch",), "--nosuch"),
    "logits to no folder": (("--prompt", "x", "--logits", "/nosuch/a.npy"), "/nosuch"),
    "logits to a folder": (("--prompt", "x", "--logits", "/"), "folder"),
    "waves without a simulator": (("--prompt", "x", "--waves", "a.fst"), "waves"),
    "chunk of zero": (("--prompt", "x", "--chunk", "0"), "chunk"),
    "chunk too long": (("--prompt", "x", "--chunk", "17", "--config", "tiny"), "17"),
    "negative temperature": (("--prompt", "x", "--temperature", "-1"), "temperature"),
    "top-k without temperature": (("--prompt", "x", "--top-k", "3"), "temperature"),
    "ids with an empty part": (("--prompt-ids", "1,,2"), "''"),
    "ids with underscores": (("--prompt-ids", "1_0"), "1_0"),
    "ids of 5,000 digits": (("--prompt-ids", "9" * 5000), "no id"),
    "text that is no Unicode": (("--prompt", "a\udcff"), "UTF-8"),
    "empty model": (("--model", "", "--prompt", "x"), "empty"),
    "model of a long name": (("--model", "m" * 300, "--prompt", "x"), "mmm"),
    "empty configuration": (("--config", "", "--prompt", "x"), "configuration"),
    "configuration that is a folder": (("--config", "/tmp/", "--prompt", "x"), "directory"),
    "configuration of a long name": (("--config", "c" * 300 + ".yaml", "--prompt", "x"), "ccc"),
    "logits of a long name": (("--prompt", "x", "--logits", "n" * 300), "nnn"),
    "logits where no file can be": (("--prompt", "x", "--logits", "/proc/a.npy"), "/proc"),
    "max-tokens beyond integers": (("--prompt", "x", "--max-tokens", "9" * 30), "context"),
    "negative seed": (("--prompt", "x", "--seed", "-1"), "seed"),
    "no number for a temperature": (("--prompt", "x", "--temperature", "nan"), "nan"),
    "top-p over one": (("--prompt", "x", "--temperature", "1", "--top-p", "1.5"), "1.5"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(cli, name: str) -> None:
    arguments, words = MISTAKES[name]
    got = cli("run", *arguments)
    assert got.status == 2
    assert got.out == ""
    assert got.err.count("\n") == 1
    assert words in got.err
    assert "Traceback" not in got.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nnosuch: 1\n", "nosuch"),
        ("[1, 2", "not YAML"),
        ("just text", "mapping"),
        ("", "mapping"),
        ("name: x\n", "tables"),
        ("rows: 2\nrows: 4\n", "'rows' comes twice"),
        ('rows: "2"\n', "rows: Input should be a valid integer"),
        ("rows: true\n", "rows: Input should be a valid integer"),
        ("rows: 2.0\n", "rows: Input should be a valid integer"),
        ("rows: " + "9" * 5000, "digits"),
        ("[" * 3000, "recursion"),
        ("name: 2024-13-45\n", "month"),
        ("? [1]\n: 2\n", "not YAML"),
        ("a: \0", "not YAML"),
    ],
)
def test_bad_configuration_files(cli, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    for command in (("run", "--prompt", "x"), ("generate", "--out", str(tmp_path / "out"))):
        got = cli(*command, "--config", str(file))
        assert (got.status, got.err.count("\n")) == (2, 1)
        assert words in got.err
        assert not (tmp_path / "out").exists()


def test_unknown_key_beside_good_ones(cli, tmp_path: Path) -> None:
    from importlib import resources

    text = (resources.files("terntable.hw.configs") / "tiny.yaml").read_text()
    file = tmp_path / "c.yaml"
    file.write_text(text + "turbo: true\n")
    got = cli("run", "--prompt", "x", "--config", str(file))
    assert got.status == 2 and "turbo" in got.err


def test_broken_model_folders(cli, tmp_path: Path) -> None:
    def refused(folder: Path, words: str) -> None:
        got = cli("run", "--model", str(folder), "--prompt-ids", "1")
        assert (got.status, got.err.count("\n")) == (2, 1), got.err
        assert words in got.err

    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "config.json")
    missing = tmp_path / "missing"
    shutil.copytree(BUILT_IN / "tiny", missing)
    (missing / "model.safetensors").unlink()
    refused(missing, "safetensors")
    cut = tmp_path / "cut"
    shutil.copytree(BUILT_IN / "tiny", cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(cut, "safetensors")
    garbage = tmp_path / "garbage"
    shutil.copytree(BUILT_IN / "tiny", garbage)
    (garbage / "config.json").write_text("{")
    refused(garbage, "config.json")


def test_eval_counts_bits(cli, tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("It was a fine morning, and she was very happy to see her sister again.")
    got = cli("eval", "--text", str(file), "--json")
    result = json.loads(got.out)
    assert 0.5 < result["bits_per_character"] < 3.5
    assert result["characters"] >= 60
    narrow = json.loads(cli("eval", "--text", str(file), "--kv", "int8", "--json").out)
    assert (result["kv"], narrow["kv"]) == ("int16", "int8")
    coarse = json.loads(cli("eval", "--text", str(file), "--planes", "4", "--json").out)
    for other in (narrow, coarse):
        assert 0 < abs(other["bits_per_character"] - result["bits_per_character"]) < 0.02
    for arguments, words in (
        (("--text", str(tmp_path / "nosuch.txt")), "nosuch.txt"),
        (("--text", str(file), "--kv", "int7"), "int7"),
        (("--text", str(file), "--planes", "6"), "6 planes"),
        (("--text", str(file), "--device", "torch", "--planes", "4"), "--planes goes with"),
        (("--text", str(file), "--window", "1"), "window"),
        (("--text", str(file), "--max-tokens", "1"), "max-tokens"),
    ):
        got = cli("eval", *arguments)
        assert (got.status, got.err.count("\n")) == (2, 1)
        assert words in got.err


def test_no_traceback_and_no_amaranth_from_the_program_itself() -> None:
    code = (
        "import sys\n"
        "from terntable.host.cli import main\n"
        "try: main(['run', '--prompt-ids', '1', '--max-tokens', '1', '--json'])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "heavy = {'amaranth', 'cocotb', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_doctor_lists_what_is_there(cli) -> None:
    got = cli("doctor", "--json")
    names = {f["name"]: f for f in json.loads(got.out)["findings"]}
    assert names["numpy"]["found"]
    assert all(f["remedy"] for f in names.values())


def test_compile_prints_the_map_and_writes_the_image(cli, tmp_path: Path) -> None:
    from terntable.host.image import Image

    file = tmp_path / "tiny.img"
    got = cli("compile", "--config", "tiny", "--out", str(file))
    assert got.status == 0
    for region in ("header", "program", "weights", "head", "kv"):
        assert region in got.out
    image = Image.load(file)
    result = json.loads(cli("compile", "--config", "tiny", "--json").out)
    assert result["bytes"] == image.size
    fewer = json.loads(cli("compile", "--config", "tiny", "--planes", "4", "--json").out)
    parts = [{r["name"]: r["size"] for r in found["regions"]} for found in (result, fewer)]
    assert parts[1]["head"] == pytest.approx(parts[0]["head"] * 4 / 5, rel=0.02)
    assert {r["name"]: r["crc32"] for r in result["regions"]}["weights"]
    got = cli("compile", "--out", "/nosuch/tiny.img")
    assert (got.status, got.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "command",
    [
        "", "run", "generate", "build", "demo", "eval", "doctor", "compile", "compare",
        "bench-devices",
    ],
)  # fmt: skip
def test_help_and_unknown_options_of_every_command(cli, command: str) -> None:
    words = [command] if command else []
    got = cli(*words, "--help")
    assert (got.status, got.err) == (0, "")
    assert "Usage: terntable" in got.out
    got = cli(*words, "--nosuch")
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert "--nosuch" in got.err


def test_no_command_shows_the_help(cli) -> None:
    got = cli()
    assert (got.status, got.err) == (0, "")
    assert "Usage: terntable" in got.out


PROMPTS = ["naïve café", "🙂 and 👩‍👩‍👧", "two\n\nlines\t", " ", "한국어", "\u202eright"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_streamed_text_is_the_decoded_tokens(cli, prompt: str) -> None:
    options = ("--prompt", prompt, "--max-tokens", "4", "--temperature", "3")
    result = json.loads(cli(*RUN, *options, "--json").out)
    tokenizer = Tokenizer(
        (BUILT_IN / "tiny" / "tokenizer.json").read_text(encoding="utf-8"), "tiny"
    )
    whole = tokenizer.decode(result["prompt_tokens"] + result["tokens"])
    assert whole.startswith(prompt)
    got = cli(*RUN, *options)
    assert got.out == whole + "\n"
    assert got.err.count("\n") == 1  # never folded


def test_a_stream_holds_back_unfinished_characters() -> None:
    tokenizer = Tokenizer(
        (BUILT_IN / "tiny" / "tokenizer.json").read_text(encoding="utf-8"), "tiny"
    )
    ids = tokenizer.encode("a🙂é")
    for cut in range(len(ids) + 1):
        stream = TextStream(tokenizer)
        parts = [stream.start(ids[:cut]), *map(stream.push, ids[cut:])]
        assert "\ufffd" not in "".join(parts)
        assert "".join(parts) == "a🙂é"
        assert stream.finish() == ""
    stream = TextStream(tokenizer)
    cut_short = stream.start(ids[:3])
    assert cut_short + stream.finish() == tokenizer.decode(ids[:3])


def test_a_model_without_tokenizer(cli, save_model, make_spec, tmp_path: Path) -> None:
    folder = save_model(random_model(make_spec(head_dim=8), seed=2), tmp_path / "small")
    options = ("run", "--model", str(folder), "--max-tokens", "3")
    result = json.loads(cli(*options, "--prompt-ids", " 7, +14 ,21", "--json").out)
    assert result["prompt_tokens"] == [7, 14, 21]
    assert result["text"] == ""
    got = cli(*options, "--prompt-ids", "7,14,21")
    assert got.out == "".join(f"{t} " for t in result["tokens"]) + "\n"
    for command in (options, ("demo", "--model", str(folder), "--config", "test")):
        got = cli(*command, "--prompt", "x")
        assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
        assert "no tokenizer" in got.err
    (folder / "tokenizer.json").mkdir()
    got = cli(*options, "--prompt-ids", "7")
    assert (got.status, got.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"quantization_config": "bitnet"}, "quantization_config"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rotary"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rotary"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rms_norm_eps": float("inf")}, "eps"),
        ({"hidden_size": 64}, "shape"),
        ({"hidden_size": "wide"}, "hidden"),
        ({"num_hidden_layers": 10**12}, "layers.4"),
        ({"num_attention_heads": 0}, "heads"),
        ({"vocab_size": None}, "vocab"),
        ({"eos_token_id": "end"}, "eos"),
    ],
)
def test_configurations_of_models(cli, tmp_path: Path, changes: dict, words: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(BUILT_IN / "tiny", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    got = cli("run", "--model", str(folder), "--prompt", "x")
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert words in got.err


@pytest.mark.parametrize("text", [b"\xff", b"[]", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_json_that_is_none(cli, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)
    got = cli("run", "--model", str(tmp_path), "--prompt", "x")
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert "JSON" in got.err


def test_generate_keeps_its_hands_off_other_folders(cli, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "manifest.json").write_text("{}")
    (mine / "notes.txt").write_text("keep me")
    file = tmp_path / "file"
    file.write_text("x")
    for out in (mine, file, file / "below", Path("/proc/nosuch"), tmp_path / ("n" * 300)):
        got = cli("generate", "--config", "test", "--out", str(out))
        assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "file", "manifest.json", "mine", "notes.txt",
    ]  # fmt: skip


def test_devices_stay_devices(cli, tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    for name in ("/dev/null", str(link)):
        options = ("--prompt", "x", "--max-tokens", "1", "--logits", name)
        assert cli(*RUN, *options, "--json").status == 0
    assert Path("/dev/null").is_char_device()
    assert link.is_symlink() and np.load(target).shape == (1, 1024)


def start(*arguments: str, **options) -> subprocess.Popen[bytes]:
    code = "from terntable.host.cli import main; main()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], **(pipes | options))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_with_one_line(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "a.npy"
    process = start(
        *RUN, "--prompt-ids", "1,2", "--max-tokens", "1000", "--logits", str(file),
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(1)  # generation has begun
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.count(b"\n") == 1 and err.startswith(b"terntable: ")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_and_a_full_disk() -> None:
    process = start(*RUN, "--prompt", "It is", "--max-tokens", "40")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    with Path("/dev/full").open("w") as full:
        process = start("doctor", "--json", stdout=full)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count(b"\n")) == (2, 1)
    assert b"No space" in err


def test_missing_tools(cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, save_model, make_spec):
    from terntable.sim import toolchain

    folder = save_model(random_model(make_spec(head_dim=8), seed=2), tmp_path / "small")
    options = ("run", "--device", "sim", "--config", "test", "--model", str(folder),
               "--prompt-ids", "1")  # fmt: skip
    monkeypatch.setenv("TERNTABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accelerator, "design_of", lambda *_: accelerator.Design(""))
    toolchain.find.cache_clear()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.delenv("CXX", raising=False)
        got = cli(*options)
        assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
        assert "g++" in got.err
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        got = cli(*options)
        assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
        assert "Verilator is missing" in got.err
    toolchain.find.cache_clear()


def test_amaranth_missing(cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "amaranth"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "terntable.hw.generate", raising=False)
    monkeypatch.setitem(sys.modules, "amaranth", None)
    monkeypatch.setitem(sys.modules, "terntable.hw.generate", None)
    got = cli("generate", "--config", "test", "--out", str(tmp_path / "out"))
    assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
    assert "pip install" in got.err and not (tmp_path / "out").exists()


def test_doctor_names_the_extra(cli) -> None:
    from terntable.host.commands import doctor

    lacking = [doctor.Finding("x", None, "sim", "pip install 'terntable[sim]'")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "findings", lambda: lacking)
        assert "terntable[sim]" in cli("doctor").out
