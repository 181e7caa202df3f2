"""`terntable eval`: bits per character of a text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from terntable.hw.errors import UserError

from ..output import progress
from ..session import Session
from .run import say
from .setup import kv_name, load_setup, start_device


def evaluate_command(
    text_path: Path,
    model: str,
    device_name: str,
    kv: str | None,
    planes: int | None,
    config: str | None,
    max_tokens: int | None,
    window: int | None,
    as_json: bool,
) -> None:
    """Feed the text token by token and add up what each next token cost.

    The first token of a window has no context and is predicted by nothing: it is not counted, nor
    are its characters.
    """
    try:
        text = text_path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"text file {text_path} can't be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"text file {text_path} isn't UTF-8: convert it") from None
    if max_tokens is not None and max_tokens < 2:
        raise UserError(f"max-tokens is {max_tokens}: make it at least 2")
    setup = load_setup(model, config, device_name, kv, planes)
    if setup.tokenizer is None:
        raise UserError("the model has no tokenizer: eval needs one")
    ids = setup.tokenizer.encode(text)[:max_tokens]
    if len(ids) < 2:
        raise UserError(f"text file {text_path} has under two tokens: give a longer text")
    length = setup.image.context if window is None else window
    if not 2 <= length <= setup.image.context:
        raise UserError(f"window is {length}: make it 2 to {setup.image.context}")

    bits = 0.0
    characters = counted = 0
    with (
        start_device(device_name, setup, kv=kv, note=say) as device,
        progress(f"eval on {device_name}", len(ids)) as bar,
    ):
        session = Session(device, setup.image)
        for at in range(0, len(ids), length):
            part = ids[at : at + length]
            session.reset()
            for i, token in enumerate(part[:-1]):
                logits, _ = session.call([token])
                bits += surprise(logits, part[i + 1])
                bar.advance(bar.task_ids[0])
            characters += len(setup.tokenizer.decode(part[1:]))
            counted += len(part) - 1
    result = {
        "bits_per_character": bits / characters,
        "bits_per_token": bits / counted,
        "tokens": counted,
        "characters": characters,
        "window": length,
        "device": device_name,
        "config": setup.config.name,
        "kv": kv_name(device_name, kv),
    }
    if as_json:
        print(json.dumps(result))
    else:
        print(
            f"{result['bits_per_character']:.4f} bits per character,"
            f" {result['bits_per_token']:.4f} per token ({counted:,} tokens, {characters:,}"
            f" characters, windows of {length}; {device_name}, {setup.config.name},"
            f" K and V in {result['kv']})"
        )


def surprise(logits: np.ndarray, token: int) -> float:
    """-log2 of the probability of `token` under softmax(logits)."""
    x = logits.astype(np.float64)
    top = x.max()
    return float((top - x[token] + np.log(np.exp(x - top).sum())) / np.log(2))
