"""SentencePiece's `tokenizer.model`, with the files beside it, as a `tokenizer.json`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from terntable.host.checkpoints.sentencepiece_file import UNIGRAM, read_sentencepiece
from terntable.host.checkpoints.tensors import read_json
from terntable.host.checkpoints.tokenizer_json import Pieces, Special, pieces_json
from terntable.hw.errors import UserError

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token")


def tokenizer_json_from_sentencepiece(path: Path) -> str:
    """The text of a `tokenizer.json` that encodes as the SentencePiece model at `path`.

    `tokenizer_config.json` beside it says which tokens go around a text (`add_bos_token`, by
    default true where the model has such a piece, `add_eos_token`, by default false), whether
    text after a control token gets a space in front (`legacy`, by default true) and, as
    `added_tokens.json` does, which tokens there are beside the model's. Raises UserError.
    """
    model = read_sentencepiece(path)
    config = _config(path.with_name("tokenizer_config.json"))
    added = _added(path.parent, config, len(model.tokens))
    where = str(path)

    def around(key: str, token_id: int, default: bool) -> int | None:
        wanted = config.get(key)
        if wanted is None:
            wanted = default
        return token_id if wanted and 0 <= token_id < len(model.tokens) else None

    unknown = model.unknown if 0 <= model.unknown < len(model.tokens) else None
    special = Special(
        around("add_bos_token", model.bos, True),
        around("add_eos_token", model.eos, False),
        unknown,
        added,
    )
    prefix = config.get("add_prefix_space")
    pieces = Pieces(
        model.tokens,
        model.scores,
        model.kinds,
        unigram=model.model_type == UNIGRAM,
        prefix=model.prefix if prefix is None else bool(prefix),
        first_only=config.get("legacy") is False,
        collapse=model.collapse,
        charsmap=model.charsmap,
    )
    return pieces_json(pieces, special, where)


def _config(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _content(value: Any) -> str | None:
    """The text of a token that is given as such or as an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _added(folder: Path, config: dict[str, Any], size: int) -> list[tuple[int, str, bool]]:
    """(id, content, special) of the tokens that both files name, by id."""
    roles = {_content(config.get(role)) for role in _ROLES}
    more = config.get("additional_special_tokens")
    roles |= {_content(value) for value in (more if isinstance(more, list) else [])}
    entries: dict[int, tuple[str, bool]] = {}

    def add(token_id: Any, content: str | None, is_special: bool) -> None:
        if type(token_id) is not int or token_id < 0 or not content:
            raise UserError(f"{folder}: added token {token_id!r} has no id or no text")
        entries[token_id] = (content, is_special)

    for content, token_id in _config(folder / "added_tokens.json").items():
        add(token_id, content, content in roles)
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise UserError(f"{folder}: added_tokens_decoder of tokenizer_config.json is no object")
    for key, value in decoder.items():
        is_special = isinstance(value, dict) and value.get("special") is True
        add(int(key) if re.fullmatch("[0-9]{1,9}", key) else key, _content(value), is_special)
    beyond = sorted(token_id for token_id in entries if token_id >= size)
    if beyond != list(range(size, size + len(beyond))):
        raise UserError(
            f"{folder}: added tokens have ids from {beyond[0]}: the {size:,} pieces of"
            " tokenizer.model are followed by others without a gap"
        )
    return [(token_id, *entries[token_id]) for token_id in sorted(entries)]
