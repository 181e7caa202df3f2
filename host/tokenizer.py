"""Text to ids and back, one token at a time."""

from __future__ import annotations

from tokenizers import Tokenizer as HFTokenizer

from terntable.hw.errors import UserError


class Tokenizer:
    """A tokenizer from the text of its `tokenizer.json`; `where` names it in errors."""

    def __init__(self, text: str, where: str) -> None:
        try:
            self._tokenizer = HFTokenizer.from_str(text)
        except Exception as e:  # the library raises plain Exception
            raise UserError(f"{where}: no tokenizer: {e}") from None

    def encode(self, text: str, around: bool = True) -> list[int]:
        """Ids of `text`, with those around it (such as the one that begins a sequence) where the
        model has any and `around` is true. Raises UserError for text that isn't Unicode."""
        try:
            # Bytes that the locale doesn't know come as surrogates from the command line.
            text = text.encode("utf-8", "surrogateescape").decode("utf-8")
        except UnicodeError:
            raise UserError(f"the text {text!a} isn't UTF-8: convert it") from None
        return self._tokenizer.encode(text, add_special_tokens=around).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids)

    def token(self, token_id: int) -> str:
        """The text of a token as the vocabulary has it, empty where there is none."""
        return self._tokenizer.id_to_token(token_id) or ""


class TextStream:
    """Turns ids into text as they come, holding back the bytes of an unfinished character.

    The texts of `start`, of every `push` and of `finish`, joined, are the decoded ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def start(self, prompt: list[int]) -> str:
        """Text of the prompt."""
        self._ids = list(prompt)
        return self._take(whole=False)

    def push(self, token: int) -> str:
        """Text that `token` completes (may be empty)."""
        self._ids.append(token)
        return self._take(whole=False)

    def finish(self) -> str:
        """What was held back."""
        return self._take(whole=True)

    def _take(self, whole: bool) -> str:
        text = self._tokenizer.decode(self._ids)
        # An unfinished character decodes to one or more U+FFFD, which later bytes may replace.
        end = len(text) if whole else len(text.rstrip("\ufffd"))
        new, self._shown = text[self._shown : end], max(self._shown, end)
        return new
