"""Tokenizer and chat template of a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from terntable.host.checkpoints.tensors import read_json
from terntable.host.model import TextAssets
from terntable.hw.errors import UserError


def read_text_assets(folder: Path) -> TextAssets:
    """Tokenizer and chat template, those that the folder has.

    The tokenizer is `tokenizer.json`, or else made of the SentencePiece model `tokenizer.model`.
    The template is `chat_template.jinja`, or else what `tokenizer_config.json` has.
    """
    return TextAssets(_tokenizer(folder), _chat_template(folder))


def _tokenizer(folder: Path) -> str | None:
    if (file := folder / "tokenizer.json").exists():
        return _read(file)
    if (file := folder / "tokenizer.model").exists():
        from terntable.host.checkpoints.vocabulary import tokenizer_json_from_sentencepiece

        return tokenizer_json_from_sentencepiece(file)
    return None


def _chat_template(folder: Path) -> str | None:
    if (file := folder / "chat_template.jinja").exists():
        return _read(file)
    if not (file := folder / "tokenizer_config.json").exists():
        return None
    value = read_json(file).get("chat_template")
    if isinstance(value, list):  # named templates
        named = {
            entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)
        }
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise UserError(f"{file}: its chat_template is no text")
    return value


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")  # line ends as they are
    except (OSError, UnicodeError) as e:
        raise UserError(f"{file}: can't be read: {e}") from None
