"""What `run`, `demo` and `eval` do first: model, configuration, image, device."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from terntable.hw.config import AcceleratorConfig, load_config, named_configs
from terntable.hw.errors import UserError
from terntable.hw.isa import PLANES, KvFormat

from ..chat import render_chat
from ..checkpoints.survey import watched
from ..compiler import compile_model, fits, outline
from ..devices import DEVICES, IMAGE_KV, TAKES_MODEL, missing, open_device
from ..devices.base import Device
from ..devices.model_device import DTYPES
from ..devices.transport import Transport
from ..devices.triton import KV_KINDS
from ..fit import derive_config
from ..image import Image
from ..model import Model, load_model
from ..output import warn
from ..tokenizer import Tokenizer


@dataclass
class Setup:
    """A model compiled for a configuration."""

    model: Model
    config: AcceleratorConfig
    image: Image
    tokenizer: Tokenizer | None
    chat_template: str | None = None

    def encode(self, prompt: str | None, prompt_ids: str | None) -> list[int]:
        """Ids of the prompt given as text or as ids. Raises UserError when there is none."""
        if prompt is not None and prompt_ids is not None:
            raise UserError("both prompt and prompt-ids are given: give one")
        if prompt_ids is not None:
            return parse_ids(prompt_ids)
        if prompt is None:
            raise UserError("no prompt: give --prompt TEXT or --prompt-ids 7,14,21")
        if not prompt:
            raise UserError("the prompt is empty: give some text")
        if self.tokenizer is None:
            raise UserError("the model has no tokenizer: give --prompt-ids instead of --prompt")
        ids = self.tokenizer.encode(prompt)
        if not ids:
            raise UserError(f"the prompt {prompt!r} has no tokens: give some text")
        return ids

    def encode_chat(self, prompt: str | None, prompt_ids: str | None) -> list[int]:
        """Ids of the prompt as one message of a user. Raises UserError where the model has no chat
        template, or as `encode` does."""
        if prompt_ids is not None:
            raise UserError("prompt-ids are taken verbatim: --chat goes with --prompt")
        if not prompt or self.tokenizer is None:
            return self.encode(prompt, None)  # which says what is missing
        if self.chat_template is None:
            raise UserError(
                f"model {self.model.spec.name!r} has no chat template: leave --chat away"
            )
        spec, token = self.model.spec, self.tokenizer.token
        text = render_chat(
            self.chat_template,
            [{"role": "user", "content": prompt}],
            bos=token(spec.bos_ids[0]) if spec.bos_ids else "",
            eos=token(spec.eos_ids[0]) if spec.eos_ids else "",
        )
        # The template has written all that goes around it.
        ids = self.tokenizer.encode(text, around=False)
        if not ids:
            raise UserError("the model's chat template makes no text of the prompt")
        return ids


def parse_ids(text: str) -> list[int]:
    """Ids from `7,14,21`. Raises UserError naming the part that is no integer."""
    if not text.strip():
        raise UserError("prompt-ids is empty: give ids as 7,14,21")
    ids = []
    for part in text.split(","):
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", part):
            raise UserError(f"prompt-ids: {part.strip()!r} is no id: give ids as 7,14,21")
        ids.append(int(part))
    return ids


def check_device(name: str, dtype: str | None = None, kv: str | None = None) -> None:
    """Raise UserError for a device or a number format of it that this program doesn't have, or that
    lacks a Python package."""
    if name not in DEVICES:
        raise UserError(f"unknown device {name!r}: choose from {', '.join(DEVICES)}")
    if dtype is not None and name not in TAKES_MODEL:
        raise UserError(
            f"device {name} has one number format: --dtype goes with {' or '.join(TAKES_MODEL)}"
        )
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose from {', '.join(DTYPES)}")
    formats = kv_formats(name)
    if kv is not None and not formats:
        raise UserError(
            f"device {name} keeps K and V in the numbers that it computes with: --kv goes with"
            f" {' or '.join(n for n in DEVICES if kv_formats(n))}"
        )
    if kv is not None and kv not in formats:
        raise UserError(f"device {name} has no KV format {kv!r}: choose from {', '.join(formats)}")
    if lack := missing(name):
        raise UserError(lack)


def kv_formats(device: str) -> tuple[str, ...]:
    """Formats of a device's KV cache, the default first; empty where it has none of its own."""
    if device not in TAKES_MODEL:
        return IMAGE_KV
    return KV_KINDS if device == "triton" else ()


def kv_name(device: str, kv: str | None, dtype: str | None = None) -> str:
    """The number format in which a device keeps K and V, with these options."""
    formats = kv_formats(device)
    return kv or (formats[0] if formats else dtype or DTYPES[0])


def choose_config(model: Model, devices: Sequence[str], positions: int = 1) -> AcceleratorConfig:
    """The smallest named configuration that fits the model and a context of `positions`.

    Devices without gateware fall back to one derived from the model.
    """
    for candidate in map(load_config, named_configs()):
        if fits(model.spec, candidate) and candidate.max_context >= positions:
            return candidate
    if all(device in ("emulator", *TAKES_MODEL) for device in devices):
        return derive_config(model.spec)
    raise UserError(
        f"no named configuration fits model {model.spec.name!r}: give --config FILE with larger"
        " maxima"
    )


def check_planes(name: str, planes: int | None) -> None:
    """Raise UserError for an LM head that device `name` doesn't have; None is the default one."""
    if planes is not None and name in TAKES_MODEL:
        raise UserError(
            f"device {name} has the model's own LM head: --planes goes with"
            f" {' or '.join(n for n in DEVICES if n not in TAKES_MODEL)}"
        )
    if planes is not None and planes not in PLANES:
        choice = " or ".join(map(str, PLANES))
        raise UserError(f"an LM head of {planes} planes: choose {choice}")


def load_setup(
    model_name: str,
    config_name: str | None,
    device: str,
    kv: str | None = None,
    planes: int | None = None,
) -> Setup:
    """Check the names, read the model, choose the configuration, compile the image."""
    return load_setups(model_name, config_name, [device], kv=kv, planes=planes)[device]


def load_setups(
    model_name: str,
    config_name: str | None,
    devices: Sequence[str],
    positions: int = 1,
    kv: str | None = None,
    planes: int | None = None,
) -> dict[str, Setup]:
    """A setup for each device: model and configuration are the same, and so is the image (with K
    and V in format `kv`, an LM head of `planes` digit planes) but that devices in TAKES_MODEL have
    one without weights. Raises UserError where the context is less than `positions`."""
    for device in devices:
        check_device(device, kv=kv)
        check_planes(device, planes)
    given = None if config_name is None else load_config(config_name)
    model = watched(load_model(model_name), warn)
    for line in model.warnings:
        warn(line)
    text = model.text()
    tokenizer = Tokenizer(text.tokenizer, str(model.source)) if text.tokenizer else None
    config = given or choose_config(model, devices, positions)
    context = min(model.spec.context, config.max_context)
    if positions > context:
        raise UserError(
            f"{positions} positions are needed, the context of model {model.spec.name!r} on"
            f" configuration {config.name!r} is {context}: take fewer tokens"
        )
    setups: dict[str, Setup] = {}
    images: dict[bool, Image] = {}
    for device in devices:
        bare = device in TAKES_MODEL
        if bare not in images:
            images[bare] = (
                outline(model, config)
                if bare
                else compile_model(
                    model,
                    config,
                    planes=planes or PLANES[0],
                    kv=KvFormat[kv_name(device, kv).upper()],
                )
            )
        setups[device] = Setup(model, config, images[bare], tokenizer, text.chat_template)
    return setups


def start_device(
    name: str,
    setup: Setup,
    *,
    dtype: str | None = None,
    kv: str | None = None,
    waves: Path | None = None,
    verilog: str | None = None,
    note: Callable[[str], None] | None = None,
    transport: Transport | None = None,
) -> Device:
    """Open device `name`; `note` hears of long steps, `verilog` takes the design's place;
    `transport` leads to the board."""
    if name == "board" and transport is None:
        raise UserError("device board goes with terntable run, and its options --board and --port")
    if waves is not None and name != "sim":
        raise UserError(f"device {name} has no waveforms: --waves goes with --device sim")
    return open_device(
        name,
        setup.config,
        model=setup.model,
        dtype=dtype,
        kv=kv,
        waves=waves,
        verilog=verilog,
        note=note,
        transport=transport,
    )
