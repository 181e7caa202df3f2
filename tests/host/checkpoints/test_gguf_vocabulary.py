"""Vocabularies of GGUF files: ids of texts, ids around them, what is said of odd ones."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from terntable.host.checkpoints.gguf_file import GgufFile
from terntable.host.checkpoints.gguf_vocabulary import Vocabulary
from terntable.hw.errors import UserError

from .gguf_cases import gguf

PROSE = Path(__file__).parents[2] / "data" / "heldout.txt"
LINES = [line for line in PROSE.read_text(encoding="utf-8").split("\n") if line.strip()][:300]
TEXTS = [
    "",
    " ",
    "Hello  world ",
    "tab\there, line\r\nend\n\n",
    "Zürich naïve ﬁne ½",
    "日本語のテスト",
    "🙂 emoji 👩\u200d👧",
    "It's 1234567 o'clock, WE'LL see",
    *LINES[:30],
    "\n".join(LINES[:30]),
]
LLAMA_3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]


def vocabulary(path: Path, fill) -> Vocabulary:
    writer = gguf.GGUFWriter(path, "test")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Vocabulary(GgufFile(path).metadata)


def tokenizer_of(found: Vocabulary) -> Tokenizer:
    return Tokenizer.from_str(found.assets().tokenizer)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


# ------------------------------------------------------------ bytes and merges


class Trained:
    """A BPE over bytes with 400 tokens, and three control tokens behind them."""

    def __init__(self, cut) -> None:
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = cut
        self.tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=alphabet, show_progress=False
        )
        self.tokenizer.train_from_iterator(LINES, trainer)
        by_token = self.tokenizer.get_vocab()
        self.tokens = sorted(by_token, key=by_token.__getitem__) + LLAMA_3
        self.bos = len(by_token)
        self.merges = [
            pair if isinstance(pair, str) else " ".join(pair)
            for pair in json.loads(self.tokenizer.to_str())["model"]["merges"]
        ]

    def write(self, writer, pre: str | None = None) -> None:
        writer.add_tokenizer_model("gpt2")
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types([1] * self.bos + [3] * 3)
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(self.bos)
        writer.add_eos_token_id(self.bos + 1)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained(pre_tokenizers.ByteLevel(add_prefix_space=False))


def test_ids_are_those_of_the_tokenizer_it_was_made_of(tmp_path: Path, trained: Trained) -> None:
    found = vocabulary(tmp_path / "m.gguf", lambda w: trained.write(w, "gpt-2"))
    tokenizer = tokenizer_of(found)
    assert found.warnings == []
    for text in TEXTS:
        expected = trained.tokenizer.encode(text).ids
        assert ids(tokenizer, text) == expected, text
        assert tokenizer.decode(expected) == text


WORDS = "It's 1234567 o'clock,\n\n WE'LL  see x+1"
CUT = {
    "gpt-2": ["It", "'s", " 1234567", " o", "'", "clock", ",", "\n\n", " WE", "'", "LL", " ",
              " see", " x", "+", "1"],
    "llama-bpe": ["It", "'s", " ", "123", "456", "7", " o", "'clock", ",\n\n", " WE", "'LL", " ",
                  " see", " x", "+", "1"],
    "qwen2": ["It", "'s", " ", *"1234567", " o", "'clock", ",\n\n", " WE", "'LL", " ", " see",
              " x", "+", "1"],
    "smollm": ["It", "'s", " ", *"1234567", " o", "'", "clock", ",", "\n\n", " WE", "'", "LL",
               " ", " see", " x", "+", "1"],
    "falcon": ["It", "'", "s", " ", "123", "456", "7", " o", "'", "clock", ",", "\n\n", " WE",
               "'", "LL", " ", " see", " x", "+", "1"],
}  # fmt: skip
"""What each rule makes of WORDS."""


@pytest.mark.parametrize("pre", CUT)
def test_how_words_are_cut(tmp_path: Path, trained: Trained, pre: str) -> None:
    found = vocabulary(tmp_path / "m.gguf", lambda w: trained.write(w, pre))
    cut = tokenizer_of(found).pre_tokenizer.pre_tokenize_str(WORDS)
    assert [WORDS[start:end] for _, (start, end) in cut] == CUT[pre]
    assert found.warnings == []
    for text in TEXTS:
        assert tokenizer_of(found).decode(ids(tokenizer_of(found), text)) == text


def test_rules_that_the_file_does_not_name(tmp_path: Path, trained: Trained) -> None:
    """GPT-2's, or Llama 3's where the vocabulary shows that it is Llama 3's; never silently."""
    for pre, words in ((None, "names no rule"), ("default", "names no"), ("new", "rule 'new'")):
        found = vocabulary(tmp_path / "m.gguf", lambda w, pre=pre: trained.write(w, pre))
        assert len(found.warnings) == 1 and words in found.warnings[0]
        assert "Llama 3's is taken" in found.warnings[0]
        cut = tokenizer_of(found).pre_tokenizer.pre_tokenize_str(WORDS)
        assert len(cut) == len(CUT["llama-bpe"])
    other = Trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    other.tokens[other.bos] = "<s>"
    found = vocabulary(tmp_path / "m.gguf", lambda w: other.write(w))
    assert "GPT-2's is taken" in found.warnings[0]
    cut = tokenizer_of(found).pre_tokenizer.pre_tokenize_str(WORDS)
    assert len(cut) == len(CUT["gpt-2"])


def test_ids_around_a_text_and_in_it(tmp_path: Path, trained: Trained) -> None:
    bos = trained.bos

    def fill(writer, **flags: bool) -> None:
        trained.write(writer, "llama-bpe")
        for key, value in flags.items():
            writer.add_bool(f"tokenizer.ggml.{key}", value)

    found = vocabulary(tmp_path / "m.gguf", fill)
    assert found.size == bos + 3 and found.bos_ids == (bos,)
    assert found.eos_ids == (bos + 1, bos + 2)  # the second by its name
    tokenizer = tokenizer_of(found)
    a = ids(tokenizer, "a")
    assert tokenizer.encode("a").ids == [bos, *a]
    assert ids(tokenizer, "a<|eot_id|>a") == [*a, bos + 2, *a]
    assert tokenizer.decode([bos, *a, bos + 2]) == "a"
    for flags, expected in (
        ({"add_bos_token": False}, a),
        ({"add_bos_token": False, "add_eos_token": True}, [*a, bos + 1]),
    ):
        found = vocabulary(tmp_path / "m.gguf", lambda w, flags=flags: fill(w, **flags))
        assert tokenizer_of(found).encode("a").ids == expected


def test_ends_that_the_file_does_not_mark(tmp_path: Path, trained: Trained) -> None:
    """Some writers give ordinary types to tokens that end a turn."""

    def fill(writer) -> None:
        trained.write(writer, "llama-bpe")
        del writer.kv_data[0]["tokenizer.ggml.token_type"]

    found = vocabulary(tmp_path / "m.gguf", fill)
    assert found.eos_ids == (trained.bos + 1, trained.bos + 2)
    assert ids(tokenizer_of(found), "<|eot_id|>") == [trained.bos + 2]


def test_words_that_are_tokens_are_taken_whole(tmp_path: Path, trained: Trained) -> None:
    """By Llama 3's rule, even where no merge makes them."""
    whole = Trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    whole.tokens[300] = "\u0120zqzq"
    whole.merges = whole.merges[: 300 - 256]
    for pre, expected in (("llama-bpe", [300]), ("gpt-2", None)):
        found = vocabulary(tmp_path / "m.gguf", lambda w, pre=pre: whole.write(w, pre))
        got = ids(tokenizer_of(found), " zqzq")
        assert (got == [300]) == (expected == [300])


def test_a_tokenizer_json_in_the_file(tmp_path: Path, trained: Trained) -> None:
    def fill(writer) -> None:
        trained.write(writer, "gpt-2")
        writer.add_string("tokenizer.huggingface.json", trained.tokenizer.to_str())
        writer.add_chat_template("{{ messages }}")

    assets = vocabulary(tmp_path / "m.gguf", fill).assets()
    assert assets.tokenizer == trained.tokenizer.to_str()
    assert assets.chat_template == "{{ messages }}"


# ------------------------------------------------------------ SentencePiece


def write_pieces(writer, library, **flags: bool) -> None:
    kinds = []
    for i in range(library.get_piece_size()):
        flagged = (library.is_unknown(i), library.is_control(i), False, library.is_unused(i))
        kinds.append(6 if library.is_byte(i) else 2 + flagged.index(True) if any(flagged) else 1)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([library.id_to_piece(i) for i in range(len(kinds))])
    writer.add_token_scores([library.get_score(i) for i in range(len(kinds))])
    writer.add_token_types(kinds)
    for key, value in flags.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)


def train_pieces(**how: object):
    spm = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, model_type="bpe", vocab_size=500,
        num_threads=1, minloglevel=2, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, **how,
    )  # fmt: skip
    return spm.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_of_pieces_are_the_librarys(tmp_path: Path, prefix: bool) -> None:
    library = train_pieces(add_dummy_prefix=prefix)
    found = vocabulary(
        tmp_path / "m.gguf", lambda w: write_pieces(w, library, add_space_prefix=prefix)
    )
    assert found.warnings == []
    assert (found.bos_ids, found.eos_ids) == ((1,), (2,))  # the format's defaults
    tokenizer = tokenizer_of(found)
    for text in TEXTS:
        expected = library.encode(text)
        assert ids(tokenizer, text) == expected, text
        assert tokenizer.encode(text).ids == [1, *expected]
        assert tokenizer.decode(expected) == library.decode(expected)


def test_spaces_that_are_collapsed(tmp_path: Path) -> None:
    library = train_pieces()
    found = vocabulary(
        tmp_path / "m.gguf", lambda w: write_pieces(w, library, remove_extra_whitespaces=True)
    )
    assert ids(tokenizer_of(found), "  a   b ") == library.encode("a b")


# ------------------------------------------------------------ oddities and mistakes


def test_no_vocabulary(tmp_path: Path) -> None:
    found = vocabulary(tmp_path / "m.gguf", lambda w: w.add_eos_token_id(7))
    assert found.size == 0 and found.eos_ids == (7,) and found.warnings == []
    assert found.assets().tokenizer is None
    found = vocabulary(tmp_path / "m.gguf", lambda w: w.add_tokenizer_model("rwkv"))
    assert "'rwkv' is not known" in found.warnings[0]
    assert found.assets().tokenizer is None


def test_empty_and_repeated_tokens_keep_their_ids(tmp_path: Path, trained: Trained) -> None:
    odd = Trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    odd.tokens += ["", "a", "a"]

    def fill(writer) -> None:
        odd.write(writer, "gpt-2")
        del writer.kv_data[0]["tokenizer.ggml.token_type"]

    found = vocabulary(tmp_path / "m.gguf", fill)
    assert found.size == len(odd.tokens)
    tokenizer = tokenizer_of(found)
    assert tokenizer.get_vocab_size() == len(odd.tokens)
    for text in TEXTS:
        assert ids(tokenizer, text) == trained.tokenizer.encode(text).ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.add_eos_token_id(9999), "eos_token_id is 9999: the vocabulary has 403"),
        (lambda w: w.add_token_types([1]), "token_type has 1 entries, not 403"),
        (lambda w: w.add_token_merges(["ab"]), "the merge 'ab' has no two parts"),
        (lambda w: w.add_token_merges(["a zzz"]), "no tokenizer: "),
        (lambda w: w.add_token_list(list(range(5))), "tokens is no array of strings"),
        (lambda w: w.add_string("tokenizer.ggml.add_bos_token", "x"), "is no truth value"),
    ],
)
def test_a_damaged_vocabulary_is_explained(
    tmp_path: Path, trained: Trained, change, message: str
) -> None:
    def fill(writer) -> None:
        trained.write(writer, "gpt-2")
        other = gguf.GGUFWriter(tmp_path / "unused.gguf", "test")  # keys can't be set twice
        change(other)
        writer.kv_data[0].update(other.kv_data[0])

    with pytest.raises(UserError, match=message):
        vocabulary(tmp_path / "m.gguf", fill).assets()
