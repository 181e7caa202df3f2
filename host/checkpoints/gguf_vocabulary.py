"""The vocabulary of a GGUF file: its ids, and the text of a `tokenizer.json` made of it.

`tokenizer.ggml.model` is `llama` (SentencePiece BPE with scores) or `gpt2` (BPE over bytes, with
merges). How text is cut into words before the latter is known by a name, `tokenizer.ggml.pre`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

from terntable.host.checkpoints.gguf_metadata import Metadata
from terntable.host.checkpoints.tokenizer_json import (
    ByteLevel,
    Kind,
    Pieces,
    Special,
    byte_level_json,
    pieces_json,
)
from terntable.host.model import TextAssets
from terntable.hw.errors import UserError

_KEY = "tokenizer.ggml."
_ENDS = {
    b"<|eot_id|>",
    b"<|eom_id|>",
    b"<|im_end|>",
    b"<|end|>",
    b"<|end_of_text|>",
    b"<|endoftext|>",
    b"<end_of_turn>",
    b"</s>",
}
"""Tokens that end a turn or a text. Files name one of a model's ends, and some writers don't mark
the others as control tokens."""
_LLAMA_3_BEGIN = b"<|begin_of_text|>"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class _Words:
    """How a text is cut into words."""

    make: Callable[[], PreTokenizer]
    whole: bool = False
    add_bos: bool = False
    nfc: bool = False


def _bytes(cut: bool) -> PreTokenizer:
    """Bytes as characters; `cut` into words as GPT-2 does."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut)


def _pattern(digits: int) -> PreTokenizer:
    """Words as Llama 3 and Qwen 2 have them, with up to `digits` digits of a number together."""
    split = pre_tokenizers.Split(Regex(_WORDS % digits), "isolated")
    return pre_tokenizers.Sequence([split, _bytes(cut=False)])


def _single_digits() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _bytes(True)])


def _falcon() -> PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("contiguous"),
            _bytes(cut=True),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
        ]
    )


_LLAMA_3 = _Words(lambda: _pattern(3), whole=True, add_bos=True)
_GPT_2 = _Words(lambda: _bytes(cut=True))
_NEOX = _Words(lambda: _bytes(cut=True), nfc=True)
_QWEN_2 = _Words(lambda: _pattern(1), nfc=True)
_DIGITS = _Words(_single_digits)
WORDS = {
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon_e", "falcon-h1"), _LLAMA_3
    ),
    **dict.fromkeys(("gpt-2", "phi-2", "jais"), _GPT_2),
    **dict.fromkeys(("olmo", "mpt"), _NEOX),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN_2),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS
    ),
    "falcon": _Words(_falcon),
}
"""By `tokenizer.ggml.pre`."""


class Vocabulary:
    """What a file's metadata says of its vocabulary.

    size      tokens, 0 where the file has none
    bos_ids, eos_ids   of the model, in order of importance
    warnings  a line for each thing that may make other ids of a text than the model was trained on
    """

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self.warnings: list[str] = []
        self._model = metadata.text(f"{_KEY}model", "none")
        if self._model not in ("none", "no_vocab", "llama", "gpt2"):
            self.warnings.append(
                f"tokenizer model {self._model!r} is not known (llama and gpt2 are): the model"
                " takes ids alone"
            )
        has_tokens = self._model in ("llama", "gpt2")
        self._tokens = metadata.strings(f"{_KEY}tokens") if has_tokens else None
        self.size = len(self._tokens) if self._tokens is not None else 0
        is_llama_3, self._ends = self._search()
        default = (1, 2) if self._model == "llama" and self._named_as_llama() else (None, None)
        self._bos = self._id("bos_token_id", default[0])
        self._eos = self._id("eos_token_id", default[1])
        ends = [self._eos, self._id("eot_token_id"), self._id("eom_token_id"), *self._ends]
        self.bos_ids = () if self._bos is None else (self._bos,)
        self.eos_ids = tuple(dict.fromkeys(i for i in ends if i is not None))
        self._words = self._choose_words(is_llama_3)

    def _search(self) -> tuple[bool, list[int]]:
        """Whether the vocabulary is Llama 3's, and the ids of tokens that end a turn or a text."""
        is_llama_3, ends = False, []
        for i in range(self.size):
            token = self._tokens.raw(i) if self._tokens is not None else b""
            is_llama_3 = is_llama_3 or token == _LLAMA_3_BEGIN
            if token in _ENDS:
                ends.append(i)
        return is_llama_3, ends

    def _named_as_llama(self) -> bool:
        """Whether tokens 1 and 2 are those that the format's defaults mean."""
        tokens = self._tokens
        return tokens is not None and len(tokens) > 2 and tokens[1:3] == ["<s>", "</s>"]

    def _id(self, key: str, default: int | None = None) -> int | None:
        if _KEY + key not in self._metadata:
            return default
        value = self._metadata.integer(_KEY + key)
        if value in (-1, 0xFFFFFFFF):
            return None
        if not 0 <= value < (self.size or 1 << 31):
            raise UserError(
                f"{self._metadata.path}: {_KEY}{key} is {value}: the vocabulary has {self.size:,}"
                " tokens"
            )
        return value

    def _choose_words(self, is_llama_3: bool) -> _Words:
        """The rule that cuts words, and a warning where the file doesn't name a known one."""
        if self._model != "gpt2":
            return _GPT_2
        name = self._metadata.text(f"{_KEY}pre", "default")
        if name in WORDS:
            return WORDS[name]
        rule, words = ("Llama 3's", _LLAMA_3) if is_llama_3 else ("GPT-2's", _GPT_2)
        what = "names no rule" if name == "default" else f"names the unknown rule {name!r}"
        self.warnings.append(
            f"the tokenizer {what} for cutting words: {rule} is taken, and ids of a text may differ"
        )
        return words

    def assets(self) -> TextAssets:
        """Tokenizer and chat template, those that the file has."""
        metadata = self._metadata
        template = None
        if "tokenizer.chat_template" in metadata:
            template = metadata.text("tokenizer.chat_template")
        if "tokenizer.huggingface.json" in metadata:
            return TextAssets(metadata.text("tokenizer.huggingface.json"), template)
        if self._tokens is None:
            return TextAssets(None, template)
        make = self._pieces if self._model == "llama" else self._byte_level
        return TextAssets(make(list(self._tokens), self._kinds()), template)

    def _kinds(self) -> list[int]:
        kinds = [int(Kind.NORMAL)] * self.size
        if f"{_KEY}token_type" in self._metadata:
            kinds = self._metadata.numbers(f"{_KEY}token_type", self.size).tolist()
        for i in (*self._ends, *self.bos_ids, *self.eos_ids):
            kinds[i] = Kind.CONTROL
        return kinds

    def _special(self, add_bos: bool, unknown: int | None = None) -> Special:
        flag = self._metadata.flag
        return Special(
            self._bos if flag(f"{_KEY}add_bos_token", add_bos) else None,
            self._eos if flag(f"{_KEY}add_eos_token", False) else None,
            unknown,
        )

    def _pieces(self, tokens: list[str], kinds: list[int]) -> str:
        metadata, unknown = self._metadata, self._id("unknown_token_id")
        if unknown is None and Kind.UNKNOWN in kinds:
            unknown = kinds.index(Kind.UNKNOWN)
        scores = [0.0] * self.size
        if f"{_KEY}scores" in metadata:
            scores = metadata.numbers(f"{_KEY}scores", self.size).tolist()
        charsmap = b""
        if (key := f"{_KEY}precompiled_charsmap") in metadata:
            charsmap = metadata.numbers(key).tobytes()
        pieces = Pieces(
            tokens,
            scores,
            kinds,
            prefix=metadata.flag(f"{_KEY}add_space_prefix", True),
            collapse=metadata.flag(f"{_KEY}remove_extra_whitespaces", False),
            charsmap=charsmap,
        )
        return pieces_json(pieces, self._special(True, unknown), str(metadata.path))

    def _byte_level(self, tokens: list[str], kinds: list[int]) -> str:
        merges = []
        for pair in self._metadata.strings(f"{_KEY}merges"):
            left, _, right = pair.partition(" ")
            if not (left and right):
                raise UserError(f"{self._metadata.path}: the merge {pair[:40]!r} has no two parts")
            merges.append((left, right))
        given = ByteLevel(
            tokens,
            kinds,
            merges,
            self._words.make(),
            normalizers.NFC() if self._words.nfc else None,
            whole_words=self._words.whole,
        )
        return byte_level_json(given, self._special(self._words.add_bos), str(self._metadata.path))
