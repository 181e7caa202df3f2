"""Chat templates: messages to the text that a model was trained on, by its own Jinja template.

A template is a program that came with a checkpoint. It runs sandboxed in a process of its own,
with limits of time and memory, so that one that never ends costs an error line and no more.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from terntable.hw.errors import UserError

SECONDS = 2
"""Processor time of a template. Real ones take milliseconds."""
_WAIT = 60
"""Seconds until a process that gets no processor time is given up."""
_MEMORY = 1 << 30
MAX_TEXT = 1 << 20
"""Characters of a rendered text."""

Message = Mapping[str, str]
"""`role` (system, user, assistant) and `content`."""


def render_chat(
    template: str,
    messages: Sequence[Message],
    *,
    bos: str = "",
    eos: str = "",
    add_generation_prompt: bool = True,
) -> str:
    """The text of a conversation, special tokens written out.

    `bos` and `eos` are the texts of these tokens; with `add_generation_prompt` the text ends where
    the model's answer begins. Raises UserError where the template is wrong, refuses the messages,
    or does not end.
    """
    request = {
        "template": template,
        "variables": {
            "messages": [dict(message) for message in messages],
            "bos_token": bos,
            "eos_token": eos,
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
        },
    }
    # The interpreter's own first entry would be the working directory.
    start = "import sys; sys.path[:] = sys.argv[1:]; from terntable.host.chat import main; main()"
    try:
        process = subprocess.run(
            [sys.executable, "-c", start, *sys.path],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=_WAIT,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"the model's chat template takes over {_WAIT} s") from None
    if process.returncode < 0:  # a signal, by one of the limits
        raise UserError(f"the model's chat template takes over {SECONDS} s or {_MEMORY >> 20} MiB")
    if process.returncode:
        last = process.stderr.decode(errors="replace").split("\n")[-2:][0]
        raise UserError(f"the model's chat template can't be rendered: {last}")
    answer = json.loads(process.stdout)
    if "error" in answer:
        raise UserError(f"the model's chat template {' '.join(answer['error'].split())}")
    return str(answer["text"])


def main() -> None:
    """The process that renders: a request on standard input, an answer on standard output."""
    from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError

    request = json.load(sys.stdin)
    soft = (SECONDS, SECONDS + 1)
    with contextlib.suppress(ValueError, OSError):  # a system without these limits
        resource.setrlimit(resource.RLIMIT_CPU, soft)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        answer = {"text": _render(request["template"], request["variables"])}
        if len(answer["text"]) > MAX_TEXT:
            answer = {"error": f"makes over {MAX_TEXT:,} characters"}
    except _RefusedError as e:
        answer = {"error": f"refuses the conversation: {e}"}
    except TemplateSyntaxError as e:
        answer = {"error": f"is damaged: line {e.lineno}: {e.message}"}
    except SecurityError as e:
        answer = {"error": f"does what it must not: {e}"}
    except (TemplateError, RecursionError) as e:
        answer = {"error": f"fails: {e}"}
    except MemoryError:
        answer = {"error": f"takes over {_MEMORY >> 20} MiB"}
    except Exception as e:  # whatever a template's operations raise
        answer = {"error": f"fails: {type(e).__name__}: {e}"}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


class _RefusedError(Exception):
    """Raised by a template itself."""


def _render(template: str, variables: dict[str, Any]) -> str:
    """Render with what the published templates expect of their environment."""
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`generation` blocks mark an answer for training: their content is rendered."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise _RefusedError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        # Jinja's own makes it safe for HTML.
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda text: datetime.datetime.now().strftime(text)
    return environment.from_string(template).render(**variables)
