"""Chat templates: what they make of messages, and that none can do harm or hang."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from terntable.host import chat
from terntable.host.chat import render_chat
from terntable.host.model import BUILT_IN
from terntable.hw.errors import UserError

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi <there> & 你好 "},
]
ROLES = (
    "{% for message in messages %}"
    "{% set content = message['role'] | capitalize + ': ' + message['content'] | trim + '<e>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
"""In the manner of BitNet b1.58 2B-4T's."""


def test_messages_become_text() -> None:
    assert render_chat(ROLES, TURNS, bos="<s>") == (
        "<s>System: Be brief.<e>User: Hi <there> & 你好<e>Assistant: "
    )
    assert render_chat(ROLES, TURNS[1:], bos="<s>", add_generation_prompt=False) == (
        "<s>User: Hi <there> & 你好<e>"
    )


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),  # blocks take their lines with them
        ("{{ eos_token }}{{ messages[0].role }}", "</s>system"),
        ("{{ messages[1].content | tojson }}", '" Hi <there> & 你好 "'),
        ("{{ {'a': [1]} | tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{% for m in messages %}{{ m.role }}{% break %}{% endfor %}", "system"),
        ("{% if tools is not none or documents %}tools{% endif %}none", "none"),
        ("{% set n = namespace(i=0) %}{% for m in messages %}{% set n.i = n.i + 1 %}{% endfor %}"
         "{{ n.i }}", "2"),
        ("{% generation %}answer{% endgeneration %}", "answer"),
        ("{{ absent }}", ""),
    ],
)  # fmt: skip
def test_what_templates_count_on(template: str, expected: str) -> None:
    assert render_chat(template, TURNS, eos="</s>") == expected


def test_dates() -> None:
    assert re.fullmatch(r"20\d\d", render_chat("{{ strftime_now('%Y') }}", TURNS))


BAD = {
    "{% if %}": "is damaged: line 1: Expected an expression",
    "a\n{% nosuch %}": "is damaged: line 2: Encountered unknown tag 'nosuch'",
    "{{ raise_exception('no system\nmessage') }}": "refuses the conversation: no system message",
    "{{ absent.x }}": "fails: 'absent' is undefined",
    "{{ 1 / 0 }}": "fails: ZeroDivisionError",
    "{{ ''.__class__.__mro__ }}": "does what it must not",
    "{{ messages.append(1) }}": "does what it must not",
    "{% include '/etc/passwd' %}": "fails",
    "{{ range(10**9) | list }}": "fails: OverflowError",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "fails: maximum recursion",
    "{{ 'a' * 2000000 }}": "makes over 1,048,576 characters",
    "{{ 'a' * 10**10 }}": "takes over 1024 MiB",
    "{{ 'a' | center(4 * 10**9) }}": "takes over",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "takes over",
}


@pytest.mark.parametrize("template", BAD)
def test_a_bad_template_costs_one_line(template: str) -> None:
    began = time.perf_counter()
    with pytest.raises(UserError, match="the model's chat template") as error:
        render_chat(template, TURNS)
    assert BAD[template] in str(error.value) and "\n" not in str(error.value)
    assert time.perf_counter() - began < chat._WAIT


def test_a_process_that_gets_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeping takes no processor time: the clock ends it."""
    monkeypatch.setattr(chat, "_WAIT", 0.01)
    with pytest.raises(UserError, match=r"takes over 0\.01 s"):
        render_chat(ROLES, TURNS)


def test_modules_of_the_working_directory_stay_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "jinja2.py"):
        (tmp_path / name).write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert render_chat("a", TURNS) == "a"


# ------------------------------------------------------------ terntable run --chat


def folder_with(path: Path, template: str | None) -> Path:
    """The built-in model with a control token <s> that begins texts, and a template."""
    shutil.copytree(BUILT_IN / "tiny", path)
    file = path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    end = tokenizer.id_to_token(0)
    tokenizer.add_special_tokens([AddedToken(end, normalized=False, special=True)])
    from tokenizers import processors

    tokenizer.post_processor = processors.TemplateProcessing(
        single=[end, "$A"], special_tokens=[(end, 0)]
    )
    file.write_text(tokenizer.to_str(), encoding="utf-8")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"bos_token_id": 0, "eos_token_id": 0}))
    if template is not None:
        (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    return path


def test_run_formats_the_prompt_as_a_message(cli, tmp_path: Path) -> None:
    """The template's control tokens are such, and no other begins the text."""
    template = ROLES.replace("<e>", "' + eos_token + '")
    folder = folder_with(tmp_path / "m", template)
    run = ("run", "--model", str(folder), "--max-tokens", "1", "--json", "--prompt", "Emma")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    got = json.loads(cli(*run, "--chat").out)
    assert got["prompt_tokens"] == [0, *ids("User: Emma"), 0, *ids("Assistant: ")]
    assert json.loads(cli(*run).out)["prompt_tokens"] == [0, *ids("Emma")]


def test_mistakes_of_run(cli, tmp_path: Path) -> None:
    bad = folder_with(tmp_path / "bad", "{{ raise_exception('not you') }}")
    empty = folder_with(tmp_path / "empty", "{# nothing #}")
    for arguments, words in (
        (("--model", "tiny", "--prompt", "x"), "model 'tiny' has no chat template"),
        (("--model", "tiny", "--prompt-ids", "1"), "--chat goes with --prompt"),
        (("--model", "tiny"), "no prompt: give --prompt TEXT"),
        (("--model", str(bad), "--prompt", "x"), "refuses the conversation: not you"),
        (("--model", str(empty), "--prompt", "x"), "makes no text of the prompt"),
    ):
        got = cli("run", "--chat", *arguments)
        assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
        assert words in got.err
