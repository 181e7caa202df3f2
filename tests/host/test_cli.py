"""The command line: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from terntable.host.cli import main
from terntable.host.model import BUILT_IN


class Outcome:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        captured = capsys.readouterr()
        return Outcome(int(end.value.code or 0), captured.out, captured.err)

    return call


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
    for arguments, words in (
        (("--text", str(tmp_path / "nosuch.txt")), "nosuch.txt"),
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
    assert {r["name"]: r["crc32"] for r in result["regions"]}["weights"]
    got = cli("compile", "--out", "/nosuch/tiny.img")
    assert (got.status, got.err.count("\n")) == (2, 1)
