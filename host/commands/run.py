"""`terntable run`: prefill a prompt, generate, print."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from terntable.hw.config import load_config
from terntable.hw.errors import UserError

from ..boards.connect import check_connection, connect
from ..devices.base import Device
from ..output import check_writable, console, progress, whole_file
from ..sampling import Sampler
from ..session import Generation, Session, check_request
from ..tokenizer import TextStream, Tokenizer
from .setup import Setup, check_device, kv_name, load_setup, start_device


@dataclass(frozen=True)
class RunOptions:
    """The options of `run`, as on the command line."""

    model: str
    device: str
    board: str | None
    port: str | None
    dtype: str | None
    kv: str | None
    planes: int | None
    config: str | None
    prompt: str | None
    prompt_ids: str | None
    max_tokens: int
    seed: int
    temperature: float | None
    top_k: int | None
    top_p: float | None
    logits: Path | None
    waves: Path | None
    chunk: int | None
    chat: bool
    json: bool


class Printer:
    """Shows a generation as it comes: text where there is a tokenizer, ids otherwise."""

    def __init__(self, tokenizer: Tokenizer | None, quiet: bool) -> None:
        self._stream = TextStream(tokenizer) if tokenizer is not None and not quiet else None
        self._quiet = quiet

    def start(self, prompt: list[int]) -> None:
        """Show the prompt. To be called when no progress bar may erase its line any more."""
        if self._stream is not None:
            self._put(self._stream.start(prompt))

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def __call__(self, token: int) -> None:
        if self._stream is not None:
            self._put(self._stream.push(token))
        elif not self._quiet:
            self._put(f"{token} ")

    def end(self) -> None:
        if not self._quiet:
            self._put((self._stream.finish() if self._stream is not None else "") + "\n")


def load_with_progress(device: Device, setup: Setup) -> Session:
    """A session, with a progress bar on standard error while the image is loaded."""
    with progress(f"loading {setup.image.data.size:,} bytes", total=setup.image.data.size) as bar:
        (task,) = bar.task_ids
        device.loading = lambda done, total: bar.update(task, completed=done, total=total)
        return Session(device, setup.image)


def generate_with_progress(
    session: Session,
    prompt: list[int],
    max_tokens: int,
    sampler: Sampler,
    printer: Printer,
    chunk: int | None = None,
    keep_logits: bool = True,
) -> Generation:
    """`Session.generate` with a progress bar on standard error while the prompt is prefilled,
    and the text on standard output after that."""
    result = Generation(list(prompt))
    steps = session.steps(result, max_tokens, sampler, chunk=chunk, keep_logits=keep_logits)
    with progress(f"prefill of {len(prompt)} tokens on {session.device.name}"):
        token = next(steps, None)
    printer.start(prompt)
    if token is not None:
        printer(token)
    for token in steps:
        printer(token)
    printer.end()
    return result


def run_command(options: RunOptions) -> None:
    """Run it. Raises UserError before anything long has started, if something can't be done."""
    sampler = Sampler(options.temperature, options.top_k, options.top_p, options.seed)
    if options.logits is not None:
        check_writable(options.logits, "logits file")
    if options.waves is not None:
        check_writable(options.waves, "waveform file")
    check_device(options.device, options.dtype, options.kv)
    board = check_connection(options.device, options.board, options.port)
    config = options.config if board is None else board.chosen(options.config)

    with contextlib.ExitStack() as stack:
        transport = None
        if board is not None and config is not None:
            # Before the model is read: what is wrong with a board is found at once.
            transport = connect(board, load_config(config), options.port)
            stack.callback(transport.close)
        setup = load_setup(options.model, config, options.device, options.kv, options.planes)
        encode = setup.encode_chat if options.chat else setup.encode
        prompt = encode(options.prompt, options.prompt_ids)
        check_run(setup, prompt, options.max_tokens, options.chunk)
        device = stack.enter_context(
            start_device(
                options.device,
                setup,
                dtype=options.dtype,
                kv=options.kv,
                waves=options.waves,
                note=say,
                transport=transport,
            )
        )
        session = load_with_progress(device, setup)
        printer = Printer(setup.tokenizer, options.json)
        result = generate_with_progress(
            session,
            prompt,
            options.max_tokens,
            sampler,
            printer,
            options.chunk,
            keep_logits=options.logits is not None,
        )
    if options.logits is not None:
        with whole_file(options.logits) as temporary:
            with temporary.open("wb") as f:
                np.save(f, result.logits_array(setup.image.spec.vocab))
    if options.json:
        kv = kv_name(options.device, options.kv, options.dtype)
        print(json.dumps(summary(setup, device, result, kv)))
    else:
        note(describe(setup, device, result))


def check_run(setup: Setup, prompt: list[int], max_tokens: int, chunk: int | None) -> None:
    """Refuse a request that can't run, without a device. Raises UserError."""
    check_request(setup.image, 0, prompt, max_tokens)
    if chunk is not None and not 1 <= chunk <= setup.config.chunk:
        raise UserError(
            f"chunk is {chunk}: configuration {setup.config.name!r} takes 1 to {setup.config.chunk}"
        )


def say(line: str) -> None:
    """A note on a long step, on a terminal only."""
    if sys.stderr.isatty():
        note(line)


def note(line: str) -> None:
    """A line on standard error, clear of progress bars and never folded."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def summary(setup: Setup, device: Device, result: Generation, kv: str) -> dict[str, object]:
    """The JSON object of a run, K and V in format `kv`."""
    text = setup.tokenizer.decode(result.tokens) if setup.tokenizer is not None else ""
    out: dict[str, object] = {
        "prompt_tokens": result.prompt_tokens,
        "tokens": result.tokens,
        "text": text,
        "device": device.name,
        "device_detail": device.detail,
        "config": setup.config.name,
        "kv": kv,
        "prefill_seconds": round(result.prefill_seconds, 6),
        "decode_seconds": round(result.decode_seconds, 6),
    }
    if result.prefill is not None and result.prefill.cycles is not None:
        out |= {
            "prefill_cycles": result.prefill.cycles,
            "decode_cycles": [r.cycles for r in result.decode],
            "clock_hz": setup.config.clock_hz,
            "prefill_unit_cycles": result.prefill.unit_cycles,
            "decode_unit_cycles": [r.unit_cycles for r in result.decode],
        }
    return out


def describe(setup: Setup, device: Device, result: Generation) -> str:
    """A line or two on what the run took."""
    n, steps = len(result.prompt_tokens), len(result.decode)
    name = f"{device.name} ({device.detail})" if device.detail else device.name
    config = f"{name}, configuration {setup.config.name}"
    if result.prefill is None or result.prefill.cycles is None:
        rate = f", {steps / result.decode_seconds:.1f} tok/s" if steps else ""
        return (
            f"[{config}: {n} prompt tokens in {result.prefill_seconds:.2f} s,"
            f" {len(result.tokens)} new tokens{rate}, measured]"
        )
    hz = setup.config.clock_hz
    how = "measured" if device.name == "board" else "simulated"
    text = f"[{config}, {how}: {n} prompt tokens in {result.prefill.cycles:,} cycles"
    if steps:
        mean = sum(r.cycles or 0 for r in result.decode) / steps
        text += f", {mean:,.0f} cycles a decode token = {hz / mean:,.0f} tok/s at {hz / 1e6:g} MHz"
        if device.name == "board":
            text += f", {steps / result.decode_seconds:,.1f} tok/s with the host"
    return text + "]"
