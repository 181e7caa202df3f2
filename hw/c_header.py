"""A C header for drivers without an operating system: registers, codes, commands, parameters."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping

from . import isa, regs
from .config import KV_BLOCK, SCALES_BYTES, AcceleratorConfig

PREFIX = "TERNTABLE"

_ENUMS: dict[str, type[enum.IntEnum]] = {
    "UNIT": isa.Unit,
    "OP": isa.Op,
    "DEST": isa.Dest,
    "SOURCE": isa.Source,
    "MODE": isa.Mode,
    "KV": isa.KvFormat,
}
"""Values of the commands' fields, by the middle of the macros' names."""

_ACCESS = """\
/* How registers are accessed. Define both before this file is included where they are not in the
 * processor's memory. */
#ifndef TERNTABLE_READ32
#define TERNTABLE_READ32(base, offset) (*(volatile uint32_t *)((base) + (offset)))
#define TERNTABLE_WRITE32(base, offset, value) \\
    ((void)(*(volatile uint32_t *)((base) + (offset)) = (value)))
#endif
"""

_FUNCTIONS = """\
/* 0 where `base` has this accelerator, else 1 plus the offset of the register that says otherwise.
 * Minor versions only add registers. */
static inline int terntable_identify(uintptr_t base)
{
    if (TERNTABLE_READ32(base, TERNTABLE_MAGIC) != TERNTABLE_MAGIC_VALUE)
        return 1 + TERNTABLE_MAGIC;
    if (TERNTABLE_READ32(base, TERNTABLE_VERSION) >> 16 != TERNTABLE_VERSION_VALUE >> 16)
        return 1 + TERNTABLE_VERSION;
    if (TERNTABLE_READ32(base, TERNTABLE_CONFIG_HASH) != TERNTABLE_CONFIG_HASH_VALUE)
        return 1 + TERNTABLE_CONFIG_HASH;
    return 0;
}

/* Where the image lies: its bus address (a multiple of 4096), its size, the lowest offset that may
 * be written, and the program's offset. `watchdog` is in cycles, 0 for none. */
static inline void terntable_place(uintptr_t base, uint64_t address, uint32_t bytes,
                                   uint32_t write_base, uint32_t program, uint32_t watchdog)
{
    TERNTABLE_WRITE32(base, TERNTABLE_BASE_LO, (uint32_t)address);
    TERNTABLE_WRITE32(base, TERNTABLE_BASE_HI, (uint32_t)(address >> 32));
    TERNTABLE_WRITE32(base, TERNTABLE_LIMIT, bytes);
    TERNTABLE_WRITE32(base, TERNTABLE_WRITE_BASE, write_base);
    TERNTABLE_WRITE32(base, TERNTABLE_PROGRAM, program);
    TERNTABLE_WRITE32(base, TERNTABLE_WATCHDOG, watchdog);
}

/* Ring the doorbell. The rows of the tokens are in memory: a driver with data caches writes them
 * back before. */
static inline void terntable_start(uintptr_t base, uint32_t tokens, uint32_t position,
                                   uint32_t chunk)
{
    TERNTABLE_WRITE32(base, TERNTABLE_TOKENS, tokens);
    TERNTABLE_WRITE32(base, TERNTABLE_POSITION, position);
    TERNTABLE_WRITE32(base, TERNTABLE_CHUNK, chunk);
    TERNTABLE_WRITE32(base, TERNTABLE_CONTROL, TERNTABLE_CONTROL_START);
}

/* Bits TERNTABLE_STATUS_*: a call is over when DONE or ERROR is set. */
static inline uint32_t terntable_status(uintptr_t base)
{
    return TERNTABLE_READ32(base, TERNTABLE_STATUS);
}

/* After DONE: status and interrupt go. */
static inline void terntable_clear(uintptr_t base)
{
    TERNTABLE_WRITE32(base, TERNTABLE_CONTROL, TERNTABLE_CONTROL_CLEAR);
}

/* After ERROR, or to give a call up. A start that follows at once waits for the reset's end. */
static inline void terntable_reset(uintptr_t base)
{
    TERNTABLE_WRITE32(base, TERNTABLE_CONTROL, TERNTABLE_CONTROL_CLEAR | TERNTABLE_CONTROL_RESET);
}

/* Set a field of a command of TERNTABLE_COMMAND_WORDS little-endian words:
 * terntable_put(command, TERNTABLE_FIELD_FETCH_BEATS, 64). */
static inline void terntable_put(uint32_t *command, unsigned word, unsigned lsb, unsigned bits,
                                 uint32_t value)
{
    uint32_t mask = (bits < 32 ? (UINT32_C(1) << bits) - 1 : UINT32_MAX) << lsb;
    command[word] = (command[word] & ~mask) | (value << lsb & mask);
}
"""


def _define(name: str, value: object, doc: str = "") -> str:
    line = f"#define {PREFIX}_{name.upper()} {value}"
    return f"{line} /* {doc} */" if doc else line


def _names(function: str, argument: str, texts: Mapping[int, str], doc: str) -> Iterator[str]:
    """A function from a number to a text."""
    yield f"/* {doc} */"
    yield f"static inline const char *terntable_{function}(uint32_t {argument})"
    yield "{"
    yield f"    switch ({argument}) {{"
    yield from (f'    case {number}: return "{text}";' for number, text in texts.items())
    yield '    default: return "?";'
    yield "    }"
    yield "}"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return ["", f"/* {title} */", *lines]


def c_header(config: AcceleratorConfig) -> str:
    """Text of the header: C99 or C++11, nothing but <stdint.h>, no storage of its own."""
    lines = [
        f"/* The accelerator of configuration {config.name}. Generated: registers and commands are",
        " * described in docs/registers.md and docs/program.md of Terntable. */",
        "#ifndef TERNTABLE_H",
        "#define TERNTABLE_H",
        "",
        "#include <stdint.h>",
    ]
    lines += _section(
        "Registers of 32 bits, byte offsets",
        (
            _define(r.name, f"{r.address:#04x}u", f"{r.access.value}: {r.doc}")
            for r in regs.REGISTERS
        ),
    )
    lines += _section(
        "What the first three hold",
        [
            _define("magic_value", f"{regs.MAGIC:#010x}u"),
            _define("version_value", f"{regs.VERSION:#010x}u"),
            _define("config_hash_value", f"{config.hash:#010x}u"),
        ],
    )
    lines += _section(
        "Bits of STATUS and CONTROL",
        [
            *(_define(f"status_{s.name}", f"{s.value:#x}u") for s in regs.Status),
            *(_define(f"control_{c.name}", f"{c.value:#x}u") for c in regs.Control),
        ],
    )
    lines += _section(
        "Values of ERROR_CODE",
        (_define(f"error_{e.name}", f"{e.value}u", regs.ERROR_MEANINGS[e]) for e in regs.Error),
    )
    lines += _section("Commands of a program", _isa())
    lines += _section(
        "Parameters of the configuration",
        [
            *(
                _define(f"config_{name}", f"{value}u")
                for name, value in config.model_dump().items()
                if isinstance(value, int)
            ),
            _define("kv_block", f"{KV_BLOCK}u", "positions in a block of attention"),
            _define("scales_bytes", f"{SCALES_BYTES}u", "scales of K and V in a record"),
        ],
    )
    lines += ["", _ACCESS, _FUNCTIONS]
    lines += _names(
        "error_text", "code", {e.value: regs.ERROR_MEANINGS[e] for e in regs.Error},
        "What a value of ERROR_CODE means.",
    )  # fmt: skip
    lines.append("")
    lines += _names("unit_name", "unit", regs.ERROR_UNITS, "Where, a value of ERROR_UNIT.")
    lines += ["", "#endif"]
    return "\n".join(lines) + "\n"


def _isa() -> Iterator[str]:
    yield _define("command_bytes", f"{isa.COMMAND_BYTES}u")
    yield _define("command_words", f"{isa.COMMAND_WORDS}u")
    for middle, members in _ENUMS.items():
        yield from (_define(f"{middle}_{e.name}", f"{e.value}u") for e in members)
    yield ""
    yield "/* Fields: word, lowest bit, bits, as terntable_put takes them */"
    named = [("command", isa.HEADER), *((op.name, fields) for op, fields in isa.FIELDS.items())]
    for command, fields in named:
        for f in fields:
            kind = ", binary32" if f.float32 else ""
            name = f"field_{command}_{f.name}"
            yield _define(name, f"{f.word}, {f.lsb}, {f.bits}", f"{f.doc}{kind}")
