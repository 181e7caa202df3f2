"""SentencePiece models as a tokenizer.json, against the sentencepiece library."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

spm = pytest.importorskip("sentencepiece")

from terntable.host.checkpoints.vocabulary import tokenizer_json_from_sentencepiece  # noqa: E402
from terntable.hw.errors import UserError  # noqa: E402

PROSE = Path(__file__).parents[2] / "data" / "heldout.txt"
LINES = [line for line in PROSE.read_text(encoding="utf-8").split("\n") if line.strip()][:400]
TEXTS = [
    "",
    " ",
    "   ",
    "Hello world",
    "  Hello   world  ",
    "tab\there, line\nend\n\n",
    "spaces at  \n  the ends of lines \n",
    "Zürich naïve façade ﬁne ½ ① ｆｕｌｌ",
    "e\u0301 against \u00e9",
    "日本語のテスト 中文",
    "🙂🙃 emoji 👩\u200d👩\u200d👧 flags 🇫🇷",
    "\u200bzero\u00a0width",
    "x" * 300,
    "1234567 3.14",
    *LINES[:40],
    "\n".join(LINES[:40]),
]


def train(path: Path, kind: str, **how: object) -> spm.SentencePieceProcessor:
    """A model of 500 pieces of English prose, written to `path`."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=model,
        model_type=kind,
        vocab_size=500,
        num_threads=1,
        minloglevel=2,
        **({"byte_fallback": True, "normalization_rule_name": "identity"} | how),
    )
    path.write_bytes(model.getvalue())
    return spm.SentencePieceProcessor(model_proto=model.getvalue())


def read(path: Path) -> Tokenizer:
    return Tokenizer.from_str(tokenizer_json_from_sentencepiece(path))


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("collapse", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("rules", ["identity", "nmt_nfkc"])
def test_ids_are_the_librarys(
    tmp_path: Path, kind: str, collapse: bool, prefix: bool, rules: str
) -> None:
    file = tmp_path / "tokenizer.model"
    library = train(
        file,
        kind,
        remove_extra_whitespaces=collapse,
        add_dummy_prefix=prefix,
        normalization_rule_name=rules,
    )
    tokenizer = read(file)
    assert tokenizer.get_vocab_size() == library.get_piece_size()
    for text in TEXTS:
        expected = library.encode(text)
        assert ids(tokenizer, text) == expected, text
        assert tokenizer.decode(expected) == library.decode(expected)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_characters_without_bytes_to_fall_back_on(tmp_path: Path, kind: str) -> None:
    """They are unknown, neighbours together."""
    file = tmp_path / "tokenizer.model"
    library = train(file, kind, byte_fallback=False)
    tokenizer = read(file)
    for text in TEXTS:
        assert ids(tokenizer, text) == library.encode(text), text


def test_what_goes_around_a_text(tmp_path: Path) -> None:
    file, config = tmp_path / "tokenizer.model", tmp_path / "tokenizer_config.json"
    library = train(file, "bpe")
    inner = library.encode("Hello")
    bos, eos = library.bos_id(), library.eos_id()
    for given_settings, expected in (
        (None, [bos, *inner]),
        ({}, [bos, *inner]),
        ({"add_bos_token": False}, inner),
        ({"add_eos_token": True}, [bos, *inner, eos]),
        ({"add_bos_token": False, "add_eos_token": True}, [*inner, eos]),
    ):
        if given_settings is not None:
            config.write_text(json.dumps(given_settings))
        assert read(file).encode("Hello").ids == expected
    assert read(file).decode([*inner, eos]) == "Hello"
    library = train(file, "bpe", bos_id=-1)
    config.unlink()
    assert read(file).encode("Hello").ids == library.encode("Hello")


def test_control_tokens_in_a_text(tmp_path: Path) -> None:
    """They are what they say; text after them gets a space, or doesn't where that is no legacy."""
    file = tmp_path / "tokenizer.model"
    library = train(file, "bpe")
    bos, eos = library.bos_id(), library.eos_id()
    tokenizer = read(file)
    assert ids(tokenizer, "<s>a</s>b") == [bos, *library.encode("a"), eos, *library.encode("b")]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": False}))
    tokenizer = read(file)
    bare = train(tmp_path / "bare.model", "bpe", add_dummy_prefix=False)
    assert ids(tokenizer, "<s>a</s>b") == [bos, *bare.encode("a"), eos, *bare.encode("b")]
    for text in ("Hello world", *LINES[:20]):
        assert ids(tokenizer, text) == library.encode(text)


def test_tokens_beside_the_models(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    library = train(file, "bpe")
    size = library.get_piece_size()
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<pad>": size, "<|user|>": size + 1}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "pad_token": {"content": "<pad>"},
                "added_tokens_decoder": {
                    "1": {"content": "<s>", "special": True},
                    str(size + 2): {"content": "<|end|>", "special": True},
                },
            }
        )
    )
    tokenizer = read(file)
    got = ids(tokenizer, "<|user|>a<|end|><pad>")
    assert got == [size + 1, *library.encode("a"), size + 2, size]
    assert tokenizer.decode(got) == "<|user|> a"  # the others are special


def test_symbols_of_the_user(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    library = train(file, "bpe", user_defined_symbols=["<sep>"])
    sep = library.piece_to_id("<sep>")
    assert ids(read(file), "a<sep>") == [*library.encode("a"), sep]


# ------------------------------------------------------------ mistakes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A unigram model's file."""
    file = tmp_path_factory.mktemp("spm") / "tokenizer.model"
    train(file, "unigram")
    return file.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "it has no pieces"),
        (lambda data: data[:-1], "cut short"),
        (lambda data: b"\x0b" + data, "wire type 3"),
        (lambda data: b"\xff" * 20, "an integer of over ten bytes"),
        (lambda data: b"\x08\x01" + data, "an integer where bytes belong"),
        (lambda data: b"\x0a\x03\x0a\x01\xff" + data, "utf-8"),
        (lambda data: data + b"\x12\x02\x18\x03", "of type word: BPE and unigram are known"),
        (lambda data: data + b"\x12\x03\xc0\x01\x01", "treat_whitespace_as_suffix"),
        (lambda data: data + b"\x1a\x02\x28\x00", "escape_whitespaces"),
        (lambda data: data + b"\x1a\x06\x12\x04abcd", "rules of its normaliser are damaged"),
        (
            lambda data: data + b"\x0a\x08\x0a\x01x\x15" + struct.pack("<f", float("nan")),
            "a token's score isn't finite",
        ),
    ],
)
def test_a_damaged_model_is_explained(tmp_path: Path, trained: bytes, change, message: str) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(change(trained))
    with pytest.raises(UserError, match=message) as error:
        tokenizer_json_from_sentencepiece(file)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=9)), min_size=1))
def test_damaged_models_are_read_or_refused(tmp_path: Path, trained: bytes, changes) -> None:
    data = bytearray(trained)
    for at, value in changes:
        at %= len(data)
        data[at : at + len(value)] = value
    file = tmp_path / "tokenizer.model"
    file.write_bytes(data)
    try:
        read(file).encode("Hello world")
    except UserError as e:
        assert "\n" not in str(e)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("added_tokens.json", {"<pad>": 502}, "have ids from 502: the 500 pieces"),
        ("added_tokens.json", {"<pad>": "x"}, "added token 'x' has no id or no text"),
        ("added_tokens.json", {"<pad>": [3]}, r"added token \[3\] has no id"),
        ("added_tokens.json", {"<pad>": 3}, "token '<pad>' can't be 3"),
        ("tokenizer_config.json", {"added_tokens_decoder": 3}, "added_tokens_decoder"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"500": {}}}, "500 has no id or no"),
    ],
)
def test_wrong_files_beside_it(
    tmp_path: Path, trained: bytes, name: str, value: dict, message: str
) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(trained)
    (tmp_path / name).write_text(json.dumps(value))
    with pytest.raises(UserError, match=message):
        tokenizer_json_from_sentencepiece(file)
