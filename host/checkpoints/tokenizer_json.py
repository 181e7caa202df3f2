"""The text of a `tokenizer.json` from a vocabulary: pieces with scores, or bytes with merges.

SentencePiece models and GGUF files number the kinds of their tokens alike. Control tokens that
stand in a text are encoded as what they are, as chat templates need it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE, Model, Unigram
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import Metaspace, PreTokenizer

from terntable.hw.errors import UserError

SPACE = "\u2581"
"""Stands for a space in pieces."""
_LONGEST = 512
"""Characters of the longest piece that merges are looked for: SentencePiece makes none longer."""
_UNREACHABLE = 1000.0
"""How far below all others the scores of pieces lie that text must not match."""


class Kind(enum.IntEnum):
    """What a token is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Special:
    """Ids around a text, None for no such token, and tokens beside the vocabulary.

    added  (id, content, special); an id must be in the vocabulary, or follow its last
    """

    bos: int | None = None
    eos: int | None = None
    unknown: int | None = None
    added: Sequence[tuple[int, str, bool]] = ()


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece vocabulary and how text is prepared for it.

    prefix      a space is put in front of a text, and after a control token unless `first_only`
    collapse    spaces at the ends go, others become one
    charsmap    compiled rules that replace characters, empty for none
    """

    tokens: list[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    unigram: bool = False
    prefix: bool = True
    first_only: bool = False
    collapse: bool = False
    charsmap: bytes = b""


@dataclass(frozen=True)
class ByteLevel:
    """A vocabulary over bytes (each written as a printable character) and its merges, best first.

    whole_words  a word that is a token is taken whole, whatever the merges say
    """

    tokens: list[str]
    kinds: Sequence[int]
    merges: list[tuple[str, str]]
    pre_tokenizer: PreTokenizer
    normalizer: Normalizer | None = None
    whole_words: bool = False


@dataclass
class _Vocabulary:
    """Ids by token; a token that comes again gets a name that no text has."""

    tokens: list[str]
    ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = []
        for i, token in enumerate(self.tokens):
            if not token or token in self.ids:
                token = f"\ufffe{i}"
            self.ids[token] = i
            names.append(token)
        self.tokens = names


def pieces_json(pieces: Pieces, special: Special, where: str) -> str:
    """A SentencePiece vocabulary. Raises UserError, which begins with `where`, if it is damaged."""
    if not all(map(math.isfinite, pieces.scores)):
        raise UserError(f"{where}: no tokenizer: a token's score isn't finite")
    vocabulary = _Vocabulary(pieces.tokens)
    bytes_ = Kind.BYTE in pieces.kinds
    unknown = special.unknown
    try:
        model: Model = Unigram(_unigram_scores(vocabulary, pieces), unknown, bytes_)
        if not pieces.unigram:
            model = BPE(
                vocabulary.ids,
                _merges(vocabulary, pieces),
                unk_token=None if unknown is None else vocabulary.tokens[unknown],
                fuse_unk=True,
                byte_fallback=bytes_,
            )
        tokenizer = Tokenizer(model)
        if steps := _preparation(pieces, where):
            tokenizer.normalizer = normalizers.Sequence(steps)
    except Exception as e:  # the library raises plain Exception
        raise UserError(f"{where}: no tokenizer: {e}") from None
    if pieces.prefix and pieces.first_only:
        tokenizer.pre_tokenizer = Metaspace(SPACE, prepend_scheme="first", split=False)
    after = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if pieces.prefix:
        after.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(after)
    return _finish(tokenizer, vocabulary, pieces.kinds, special, where)


def byte_level_json(given: ByteLevel, special: Special, where: str) -> str:
    """A vocabulary over bytes. Raises UserError, which begins with `where`, if it is damaged."""
    vocabulary = _Vocabulary(given.tokens)
    try:
        model = BPE(vocabulary.ids, given.merges, ignore_merges=given.whole_words)
    except Exception as e:
        raise UserError(f"{where}: no tokenizer: {e}") from None
    tokenizer = Tokenizer(model)
    if given.normalizer is not None:
        tokenizer.normalizer = given.normalizer
    tokenizer.pre_tokenizer = given.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return _finish(tokenizer, vocabulary, given.kinds, special, where)


def _finish(
    tokenizer: Tokenizer,
    vocabulary: _Vocabulary,
    kinds: Sequence[int],
    special: Special,
    where: str,
) -> str:
    """Add the tokens that text is searched for, and those around a text."""
    searched = {
        i: (vocabulary.tokens[i], kind != Kind.USER_DEFINED)
        for i, kind in enumerate(kinds)
        if kind in (Kind.CONTROL, Kind.UNKNOWN)
        or (kind == Kind.USER_DEFINED and SPACE not in vocabulary.tokens[i])
    }
    searched |= {i: (content, is_special) for i, content, is_special in special.added}
    tokenizer.add_tokens(
        [
            AddedToken(content, normalized=False, special=is_special)
            for _, (content, is_special) in sorted(searched.items())
        ]
    )
    for i, (content, _) in searched.items():
        if (found := tokenizer.token_to_id(content)) != i:
            raise UserError(f"{where}: token {content!r} can't be {i}: it is {found}")
    template: list[str] = ["$A"]
    names = []
    for name, around in (("bos", special.bos), ("eos", special.eos)):
        if around is not None:
            text = tokenizer.id_to_token(around)
            names.append({"id": name, "ids": [around], "tokens": [text]})
            template = [name, *template] if name == "bos" else [*template, name]
    if names:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=names
        )
    return str(tokenizer.to_str())


def _merges(vocabulary: _Vocabulary, pieces: Pieces) -> list[tuple[str, str]]:
    """Merges, best first, that make what SentencePiece's BPE makes: it joins the neighbours whose
    joint piece has the highest score."""
    normal = {
        token: i
        for i, token in enumerate(vocabulary.tokens)
        if pieces.kinds[i] == Kind.NORMAL
        or (pieces.kinds[i] == Kind.USER_DEFINED and SPACE in token)
    }
    merges = []
    for token, i in normal.items():
        if len(token) > _LONGEST:
            continue
        for at in range(1, len(token)):
            left, right = normal.get(token[:at]), normal.get(token[at:])
            if left is not None and right is not None:
                merges.append((-pieces.scores[i], i, left, right))
    merges.sort()
    names = vocabulary.tokens
    return [(names[left], names[right]) for _, _, left, right in merges]


def _unigram_scores(vocabulary: _Vocabulary, pieces: Pieces) -> list[tuple[str, float]]:
    """Pieces with scores, in which only normal ones can match."""
    normal = [s for s, kind in zip(pieces.scores, pieces.kinds, strict=True) if kind == Kind.NORMAL]
    lowest = min(normal, default=0.0) - _UNREACHABLE
    return [
        (token, float(score) if kind == Kind.NORMAL else lowest)
        for token, score, kind in zip(vocabulary.tokens, pieces.scores, pieces.kinds, strict=True)
    ]


def _preparation(pieces: Pieces, where: str) -> list[Normalizer]:
    steps: list[Normalizer] = []
    if pieces.charsmap:
        # The rules begin with the size of their trie. The library believes it.
        size = int.from_bytes(pieces.charsmap[:4], "little")
        if size % 4 or not 0 < size <= len(pieces.charsmap) - 4:
            raise UserError(f"{where}: the rules of its normaliser are damaged")
        steps.append(normalizers.Precompiled(pieces.charsmap))
    if pieces.collapse:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if pieces.prefix and not pieces.first_only:
        steps.append(normalizers.Prepend(SPACE))
    if not (pieces.prefix and pieces.first_only):
        steps.append(normalizers.Replace(" ", SPACE))
    return steps
