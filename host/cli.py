"""The command line: options, and the one-line rule for mistakes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

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

ModelOption = Annotated[str, typer.Option(help="Model folder, or 'tiny', the built-in model.")]
ConfigOption = Annotated[
    str | None,
    typer.Option(help="Named configuration or YAML file. Default: the smallest that fits."),
]
DeviceOption = Annotated[str, typer.Option(help="emulator or sim.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and no more.")]


@app.command()
def run(
    model: ModelOption = "tiny",
    device: DeviceOption = "emulator",
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
    json_: JsonOption = False,
) -> None:
    """Prefill a prompt and generate text."""
    from .commands.run import RunOptions, run_command

    run_command(
        RunOptions(
            model=model,
            device=device,
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
def demo(
    model: ModelOption = "tiny",
    config: ConfigOption = None,
    prompt: Annotated[Optional[str], typer.Option(help="Text to continue.")] = None,  # noqa: UP045
    max_tokens: Annotated[int, typer.Option(help="Tokens to generate.")] = 32,
    json_: JsonOption = False,
) -> None:
    """Run a model on simulated RTL and on the emulator, and compare bit for bit."""
    from .commands.demo import demo_command

    demo_command(model, config, prompt, max_tokens, json_)


@app.command(name="eval")
def eval_(
    text: Annotated[Path, typer.Option(help="UTF-8 text file.")],
    model: ModelOption = "tiny",
    device: DeviceOption = "emulator",
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

    evaluate_command(text, model, device, config, max_tokens, window, json_)


@app.command()
def doctor(json_: JsonOption = False) -> None:
    """Say what is installed, what is missing, and what to do about it."""
    from .commands.doctor import doctor_command

    doctor_command(json_)


def _complain(text: str) -> None:
    line = " ".join(str(text).split())
    print(f"terntable: {line}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: exit status 0, 1 (a run failed), 2 (a mistake), 130 (interrupted)."""
    status = 0
    try:
        result = app(args=arguments, prog_name="terntable", standalone_mode=False)
        status = result if isinstance(result, int) else 0
    except UserError as e:
        _complain(str(e))
        status = 2
    except DeviceError as e:
        _complain(str(e))
        status = 1
    except KeyboardInterrupt:
        _complain("interrupted")
        status = 130
    except BrokenPipeError:
        # The reader of our output has gone: nothing is left to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except typer.Exit as e:
        status = e.exit_code
    except Exception as e:
        # Option errors and Ctrl-C as the option parser reports them: it may be click's own or a
        # copy that typer carries, so they are told by their interface.
        if type(e).__name__ == "Abort":
            _complain("interrupted")
            status = 130
        elif type(e).__name__ == "NoArgsIsHelpError":
            print(getattr(e, "message", str(e)))
            status = 2
        elif hasattr(e, "format_message"):
            _complain(e.format_message())
            status = 2
        else:
            raise
    sys.exit(status)
