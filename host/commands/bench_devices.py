"""`terntable bench-devices`: how fast every device that is here prefills and decodes."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from terntable.hw.errors import UserError

from ..devices import DEVICES, TAKES_MODEL, missing
from ..devices.base import Device, DeviceError
from ..image import Image
from ..output import progress
from ..session import Session
from .compare import parse_devices
from .run import say
from .setup import Setup, kv_formats, kv_name, load_setups, start_device

DEFAULT = tuple(name for name in DEVICES if name not in ("sim", "board"))
"""Devices measured unless others are asked for. The simulator is not one of them: it may take
minutes to build, and its own speed says nothing about the accelerator's; its cycles do. Nor is a
board, which has to be named."""


@dataclass(frozen=True)
class BenchOptions:
    """The options of `bench-devices`, as on the command line."""

    model: str
    devices: str | None
    kv: str | None
    config: str | None
    prefill: int
    decode: int
    seed: int
    json: bool


@dataclass(frozen=True)
class Speed:
    """Seconds of wall time of a prefill and of all decode steps; cycles where there is a clock."""

    device: str
    detail: str
    prefill_seconds: float
    decode_seconds: float
    prefill_cycles: int | None = None
    decode_cycles: int | None = None


@dataclass(frozen=True)
class Absent:
    """A device that isn't measured, and why."""

    device: str
    reason: str


def bench_devices_command(options: BenchOptions) -> None:
    """Measure and print. Raises UserError when nothing can be measured."""
    for name, value in (("prefill", options.prefill), ("decode", options.decode)):
        if value < 1:
            raise UserError(f"{name} is {value}: make it at least 1")
    if options.seed < 0:
        raise UserError(f"seed is {options.seed}: make it 0 or above")
    absent: list[Absent] = []
    if options.devices is not None:
        devices = parse_devices(options.devices, 1, options.kv)
    else:
        absent += [
            Absent(name, reason) for name in DEFAULT if (reason := left_out(name, options.kv))
        ]
        devices = [name for name in DEFAULT if name not in {a.device for a in absent}]
    positions = options.prefill + options.decode
    setups = load_setups(options.model, options.config, devices, positions, options.kv)
    setup = setups[devices[0]]
    rng = np.random.default_rng(options.seed)
    prompt = rng.integers(0, setup.model.spec.vocab, options.prefill).tolist()
    speeds: list[Speed] = []
    for name in devices:
        with progress(f"prefill of {options.prefill}, decode of {options.decode} on {name}"):
            try:
                device = start_device(name, setups[name], kv=options.kv, note=say)
            except (UserError, DeviceError, ModuleNotFoundError) as e:
                absent.append(Absent(name, str(e)))
                continue
            with device:
                speeds.append(measure(device, setups[name].image, prompt, options.decode))
    if not speeds:
        raise UserError(f"no device can be measured: {absent[0].reason}")
    if options.json:
        print(json.dumps(report(setup, options, speeds, absent)))
    else:
        show(setup, options, speeds, absent)


def left_out(name: str, kv: str | None) -> str | None:
    """Why a device isn't measured without being asked for; None where it is."""
    if lack := missing(name):
        return lack
    if kv is not None and kv not in kv_formats(name):
        return f"it has no KV format {kv!r}"
    if name == "triton":
        from ..devices.triton import choose_place

        try:
            place = choose_place()
        except UserError as e:
            return str(e)
        if place.type != "cuda":
            return (
                "without a GPU its kernels are interpreted, at a speed that says nothing: ask for"
                " it with --devices"
            )
    return None


def measure(device: Device, image: Image, prompt: list[int], decode: int) -> Speed:
    """Time the prompt in one call, then `decode` calls of a token, chosen greedily.

    What happens once is kept out by calls before that aren't timed: the program's decoding on the
    emulator, and on devices that run the model the compilation and tuning for these very lengths.
    A simulator has neither.
    """
    session = Session(device, image)
    if device.name != "sim":
        session.call(prompt if device.name in TAKES_MODEL else prompt[:1])
        session.call(prompt[:1])
        session.reset()
    began = time.perf_counter()
    logits, prefill = session.call(prompt)
    prefill_seconds = time.perf_counter() - began
    calls = []
    began = time.perf_counter()
    for _ in range(decode):
        logits, call = session.call([int(np.argmax(logits))])
        calls.append(call)
    decode_seconds = time.perf_counter() - began
    cycles = [call.cycles for call in calls if call.cycles is not None]
    return Speed(
        device.name,
        device.detail,
        prefill_seconds,
        decode_seconds,
        prefill.cycles,
        sum(cycles) if cycles else None,
    )


def report(
    setup: Setup, options: BenchOptions, speeds: list[Speed], absent: list[Absent]
) -> dict[str, object]:
    """The JSON object of a bench. Rates are in tokens a second, measured, and for a device with a
    clock those simulated at that clock."""
    devices = []
    for speed in speeds:
        entry: dict[str, object] = asdict(speed) | {
            "kv": kv_name(speed.device, options.kv),
            "prefill_rate": options.prefill / speed.prefill_seconds,
            "decode_rate": options.decode / speed.decode_seconds,
        }
        if speed.prefill_cycles and speed.decode_cycles:
            hz = setup.config.clock_hz
            entry["simulated_prefill_rate"] = options.prefill * hz / speed.prefill_cycles
            entry["simulated_decode_rate"] = options.decode * hz / speed.decode_cycles
        devices.append(entry)
    return {
        "model": setup.model.spec.name,
        "config": setup.config.name,
        "clock_hz": setup.config.clock_hz,
        "prefill": options.prefill,
        "decode": options.decode,
        "seed": options.seed,
        "devices": devices,
        "absent": [asdict(a) for a in absent],
    }


def show(setup: Setup, options: BenchOptions, speeds: list[Speed], absent: list[Absent]) -> None:
    """A line a device; a simulator has one more, at the accelerator's clock."""
    out = Console(file=sys.stdout, markup=False, highlight=False)
    out.print(
        f"model {setup.model.spec.name}, configuration {setup.config.name}: prefill of"
        f" {options.prefill} random tokens, decode of {options.decode}, in tokens a second",
        soft_wrap=True,
    )
    table = Table("device", "runs on")
    table.add_column("prefill", justify="right")
    table.add_column("decode", justify="right")
    table.add_column("")
    hz = setup.config.clock_hz
    for s in speeds:
        rates = options.prefill / s.prefill_seconds, options.decode / s.decode_seconds
        table.add_row(s.device, s.detail, *map(_rate, rates), "measured")
        if s.prefill_cycles and s.decode_cycles:
            rates = options.prefill * hz / s.prefill_cycles, options.decode * hz / s.decode_cycles
            table.add_row(s.device, f"{hz / 1e6:g} MHz", *map(_rate, rates), "simulated")
    out.print(table)
    for a in absent:
        out.print(f"{a.device} is not measured: {a.reason}", soft_wrap=True)


def _rate(tokens: float) -> str:
    return f"{tokens:,.1f}"
