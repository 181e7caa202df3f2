"""The command line: options, and the one-line rule for mistakes."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
import typer.core

from terntable.hw.errors import UserError

from .devices.base import DeviceError

app = typer.Typer(
    name="terntable",
    help="FPGA accelerators for ternary language models: generate, simulate, run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelOption = Annotated[
    str,
    typer.Option(
        help="Checkpoint folder, bundle or GGUF file; tiny, the built-in model; random:SHAPE."
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option(help="Named configuration or YAML file. Default: the smallest that fits."),
]
DeviceOption = Annotated[str, typer.Option(help="emulator, sim, torch, triton or board.")]
DtypeOption = Annotated[
    str | None,
    typer.Option(help="Numbers of torch: float32 (default) or bfloat16."),
]
KvOption = Annotated[
    str | None,
    typer.Option(help="KV cache: int16 (default), int8, int4; of triton: float16 (default), int8."),
]
PlanesOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Digit planes of the LM head: 5 (default) or 4, a fifth less to read."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and no more.")]


@app.command()
def run(
    model: ModelOption = "tiny",
    device: DeviceOption = "emulator",
    board: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Which board (device board), such as ulx3s."),
    ] = None,
    port: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Its serial port, such as /dev/ttyUSB0."),
    ] = None,
    dtype: DtypeOption = None,
    kv: KvOption = None,
    planes: PlanesOption = None,
    config: ConfigOption = None,
    prompt: Annotated[Optional[str], typer.Option(help="Text to continue.")] = None,  # noqa: UP045
    prompt_ids: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Token ids to continue, verbatim: 7,14,21."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 0,
    temperature: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Sample at this temperature. Greedy without."),
    ] = None,
    top_k: Annotated[Optional[int], typer.Option(help="Keep the k likeliest.")] = None,  # noqa: UP045
    top_p: Annotated[Optional[float], typer.Option(help="Keep this much probability.")] = None,  # noqa: UP045
    logits: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the logits, float32 [steps, vocab]."),
    ] = None,
    waves: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write an FST waveform (device sim)."),
    ] = None,
    chunk: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens of a prefill chunk. Default: the configuration's."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a message: use the chat template.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Prefill a prompt and generate text."""
    from .commands.run import RunOptions, run_command

    run_command(
        RunOptions(
            model=model,
            device=device,
            board=board,
            port=port,
            dtype=dtype,
            kv=kv,
            planes=planes,
            config=config,
            prompt=prompt,
            prompt_ids=prompt_ids,
            max_tokens=max_tokens,
            seed=seed,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            logits=logits,
            waves=waves,
            chunk=chunk,
            chat=chat,
            json=json_,
        )
    )


@app.command()
def generate(
    config: Annotated[str, typer.Option(help="Named configuration or YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    json_: JsonOption = False,
) -> None:
    """Write the Verilog, the register map and a manifest of a configuration."""
    from .commands.generate import generate_command

    generate_command(config, out, json_)


@app.command()
def build(
    board: Annotated[str, typer.Option(help="Board to build for, such as kv260.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    config: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Named configuration or YAML file. Default: the board's."),
    ] = None,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Of the placement, for boards that are placed here.", min=0),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Make a board's bitstream (ulx3s), or what its tools make one of: for kv260 a Vivado
    project."""
    from .commands.build import build_command

    build_command(board, config, out, seed, json_)


@app.command()
def report(
    config: Annotated[str, typer.Option(help="Named configuration or YAML file.")],
    json_: JsonOption = False,
) -> None:
    """Map a configuration with Yosys: what it takes of its FPGA, by unit."""
    from .commands.report import report_command

    report_command(config, json_)


@app.command()
def demo(
    model: ModelOption = "tiny",
    kv: KvOption = None,
    config: ConfigOption = None,
    prompt: Annotated[Optional[str], typer.Option(help="Text to continue.")] = None,  # noqa: UP045
    prompt_ids: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Token ids to continue, verbatim: 7,14,21."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 32,
    verilog: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Simulate this Verilog instead of the generated one."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Run a model on simulated RTL and on the emulator, and compare bit for bit."""
    from .commands.demo import DemoOptions, demo_command

    demo_command(
        DemoOptions(
            model=model,
            kv=kv,
            config=config,
            prompt=prompt,
            prompt_ids=prompt_ids,
            max_tokens=max_tokens,
            verilog=verilog,
            json=json_,
        )
    )


@app.command(name="eval")
def eval_(
    text: Annotated[Path, typer.Option(help="UTF-8 text file.")],
    model: ModelOption = "tiny",
    device: DeviceOption = "emulator",
    kv: KvOption = None,
    planes: PlanesOption = None,
    config: ConfigOption = None,
    max_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Stop after this many tokens of the text. Default: all."),
    ] = None,
    window: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Tokens of a window: the context is emptied between windows."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Bits per character of a text, predicted token by token."""
    from .commands.evaluate import evaluate_command

    evaluate_command(text, model, device, kv, planes, config, max_tokens, window, json_)


@app.command(name="import")
def import_(
    source: Annotated[str, typer.Argument(help="Checkpoint folder or GGUF file, or a bundle.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder to make: the model bundle."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only report.")] = False,
    json_: JsonOption = False,
) -> None:
    """Read a checkpoint, say what it is, and write it as a model bundle."""
    from .commands.import_ import import_command

    import_command(source, out, force, check, json_)


@app.command(name="compile")
def compile_(
    model: ModelOption = "tiny",
    kv: KvOption = None,
    planes: PlanesOption = None,
    config: ConfigOption = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the image to this file."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Compile a model into a DRAM image and print its map."""
    from .commands.compile import compile_command

    compile_command(model, kv, planes, config, out, json_)


@app.command()
def compare(
    devices: Annotated[str, typer.Option(help="Two or more: emulator,torch. The first leads.")],
    model: ModelOption = "tiny",
    kv: KvOption = None,
    config: ConfigOption = None,
    prompt: Annotated[Optional[str], typer.Option(help="Text to continue.")] = None,  # noqa: UP045
    prompt_ids: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Token ids to continue, verbatim: 7,14,21."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 16,
    threshold: Annotated[
        float,
        typer.Option(help="Relative error of the residual stream above which a layer differs."),
    ] = 0.05,
    json_: JsonOption = False,
) -> None:
    """Run a prompt on several devices and show where they differ from the first."""
    from .commands.compare import CompareOptions, compare_command

    compare_command(
        CompareOptions(
            model=model,
            devices=devices,
            kv=kv,
            config=config,
            prompt=prompt,
            prompt_ids=prompt_ids,
            max_tokens=max_tokens,
            threshold=threshold,
            json=json_,
        )
    )


class _ManyNumbers(typer.core.TyperCommand):
    """Takes `--context 128 1024` for `--context 128 --context 1024`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        option: str | None = None
        for argument in args:
            if argument.startswith("-"):
                option = argument if argument in ("--context", "--prompt") else None
            elif option is not None and spread[-1] != option:
                spread.append(option)
            spread.append(argument)
        return super().parse_args(ctx, spread)


@app.command(cls=_ManyNumbers)
def bench(
    config: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Named configuration or YAML file."),
    ] = None,
    shape: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Published shape: bitnet-0.73b, bitnet-2b-4t; tiny."),
    ] = None,
    context: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Decode a token behind so many: 128 1024. Default: 128."),
    ] = None,
    prompt: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Prefill so many tokens: 64 128. Default: 64."),
    ] = None,
    kv: Annotated[str, typer.Option(help="KV cache: int16, int8 or int4.")] = "int16",
    planes: Annotated[int, typer.Option(help="Digit planes of the LM head: 5 or 4.")] = 5,
    layers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Simulate so many layers and extrapolate. Default: all."),
    ] = None,
    predict: Annotated[
        bool, typer.Option("--predict", help="Ask the cycle model, run nothing.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Show the full-size results that are kept.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Cycles and rates of a published shape on simulated RTL, beside the roofline."""
    from .commands.bench import BenchOptions, bench_command

    bench_command(
        BenchOptions(
            config=config,
            shape=shape,
            context=context or (),
            prompt=prompt or (),
            kv=kv,
            planes=planes,
            layers=layers,
            predict=predict,
            published=published,
            json=json_,
        )
    )


@app.command(name="bench-devices")
def bench_devices(
    model: ModelOption = "tiny",
    devices: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="As emulator,sim. Default: all but sim that run at full speed here."),
    ] = None,
    kv: KvOption = None,
    config: ConfigOption = None,
    prefill: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 128,
    decode: Annotated[int, typer.Option(help="Tokens after it, one by one.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the prompt's random ids.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Measure prefill and decode on every device that is here."""
    from .commands.bench_devices import BenchOptions, bench_devices_command

    bench_devices_command(
        BenchOptions(
            model=model,
            devices=devices,
            kv=kv,
            config=config,
            prefill=prefill,
            decode=decode,
            seed=seed,
            json=json_,
        )
    )


@app.command()
def doctor(
    board: Annotated[
        str | None, typer.Option(help="Try whether this board can be reached, instead.")
    ] = None,
    port: Annotated[str | None, typer.Option(help="Its serial port, if it is at one.")] = None,
    config: Annotated[
        str | None, typer.Option(help="Configuration on the board. Default: the board's own.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Say what is installed, what is missing, and what to do about it."""
    from .commands import doctor

    if board is not None:
        doctor.board_command(board, port, config, json_)
        return
    if port is not None or config is not None:
        option = "--port" if port is not None else "--config"
        raise UserError(f"{option} goes with --board: name the board")
    doctor.doctor_command(json_)


class Stopped(BaseException):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _ending_orderly() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does: children end, temporary files go."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)  # the unwinding is not interrupted
        raise Stopped(number)

    before = {each: signal.getsignal(each) for each in signals}
    for each in signals:
        if before[each] is not signal.SIG_IGN:  # nohup
            signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"terntable: {' '.join(str(text).split())}", file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Let go of what standard output can't take, so that the interpreter's end is silent."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _invoke(arguments: list[str] | None) -> None:
    """Parse and run. The option parser's own `main` would handle signals and pipes its way."""
    for stream in (sys.stdout, sys.stderr):
        # A locale that lacks a character gets a question mark for it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    command = typer.main.get_command(app)
    given = list(sys.argv[1:] if arguments is None else arguments)
    with command.make_context("terntable", given) as context:
        command.invoke(context)
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> None:
    """Entry point: exit status 0, 1 (a run failed), 2 (a mistake), 128 + the signal's number."""
    status = 0
    try:
        with _ending_orderly():
            _invoke(arguments)
    except UserError as e:
        _complain(str(e))
        status = 2
    except DeviceError as e:
        _complain(str(e))
        status = 1
    except KeyboardInterrupt:
        warnings.simplefilter("ignore")  # of half-built hardware that is thrown away
        _complain("interrupted")
        status = 128 + signal.SIGINT
    except Stopped as e:
        warnings.simplefilter("ignore")
        _complain(f"ended by {signal.Signals(e.number).name}")
        status = 128 + e.number
    except BrokenPipeError:
        # The reader of our output has gone: nothing is left to tell it.
        _drop_output()
        status = 128 + signal.SIGPIPE
    except OSError as e:
        # A file or folder that can't be used in a way that no closer check foresaw.
        where = f"{e.filename}: " if e.filename is not None else ""
        _complain(f"{where}{e.strerror or e}")
        _drop_output()
        status = 2
    except MemoryError:
        _complain("out of memory")
        status = 1
    except ModuleNotFoundError as e:
        if (e.name or "terntable").startswith("terntable"):
            raise
        _complain(f"Python package {e.name} is missing: see `terntable doctor`")
        status = 2
    except Exception as e:
        # What the option parser raises may be click's or a copy that typer carries, so its
        # exceptions are told by their interface.
        if hasattr(e, "exit_code") and not hasattr(e, "format_message"):
            status = e.exit_code
        elif type(e).__name__ == "NoArgsIsHelpError":
            print(getattr(e, "message", str(e)))
        elif hasattr(e, "format_message"):
            _complain(e.format_message())
            status = 2
        else:
            raise
    sys.exit(status)
