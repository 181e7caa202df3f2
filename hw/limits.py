"""What the dimensions of a command may be, as data.

The sequencer refuses a command outside of these limits (`hw/control/check.py`), the emulator
refuses the same ones, and `docs/program.md` shows them. Within them no unit writes outside of its
memories, and no unit waits for what can't come of this command alone.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from .config import SCALES_BYTES, AcceleratorConfig
from .isa import FIELDS, PLANES, Command, Dest, KvFormat, Mode, Op, Source
from .numeric import is_number

ROW_NUMBER_BITS = 24
"""Bits in which the engine counts rows; the planes of an LM head count singly."""


@dataclass(frozen=True)
class Quantity:
    """A number that a configuration makes, and what it is called."""

    value: int
    name: str

    @classmethod
    def of(cls, number: int | Quantity) -> Quantity:
        return number if isinstance(number, Quantity) else cls(number, str(number))


@dataclass(frozen=True)
class Term:
    """`factor` times the product of the fields."""

    factor: Quantity
    fields: tuple[str, ...]

    def __str__(self) -> str:
        parts = [] if abs(self.factor.value) == 1 else [self.factor.name.lstrip("-")]
        return " * ".join([*parts, *self.fields])


@dataclass(frozen=True)
class Limit:
    """`low` <= the sum of the terms <= `high`, and it is a multiple of `multiple`.

    It holds for commands whose field `when` has one of `values`, for all without `when`. `high` is
    None where there is no upper limit.
    """

    terms: tuple[Term, ...]
    low: int
    high: Quantity | None
    multiple: Quantity
    when: str | None
    values: tuple[int, ...]

    @property
    def expression(self) -> str:
        """The sum as a reader writes it."""
        text = str(self.terms[0])
        for term in self.terms[1:]:
            text += f" {'-' if term.factor.value < 0 else '+'} {term}"
        return text

    def applies(self, command: Command) -> bool:
        return self.when is None or command[self.when] in self.values

    def value(self, command: Command) -> int:
        """The sum for a command."""
        total = 0
        for term in self.terms:
            product = term.factor.value
            for field in term.fields:
                product *= command[field]
            total += product
        return total

    def holds(self, command: Command) -> bool:
        value = self.value(command)
        return (
            value >= self.low
            and (self.high is None or value <= self.high.value)
            and value % self.multiple.value == 0
        )


def _limit(
    *terms: str | tuple[int | Quantity, str],
    low: int = 1,
    high: int | Quantity | None = None,
    multiple: int | Quantity = 1,
    when: str | None = None,
    values: tuple[int, ...] = (),
) -> Limit:
    """A limit; a term is `"a * b"`, or a factor and that."""
    parts = []
    for term in terms:
        factor, product = term if isinstance(term, tuple) else (1, term)
        parts.append(Term(Quantity.of(factor), tuple(product.split(" * "))))
    most = None if high is None else Quantity.of(high)
    return Limit(tuple(parts), low, most, Quantity.of(multiple), when, values)


def numbers(op: Op) -> tuple[str, ...]:
    """Fields of a command that have to be numbers of the numeric contract, binary32."""
    return tuple(field.name for field in FIELDS[op] if field.float32)


@functools.lru_cache(maxsize=16)
def limits(config: AcceleratorConfig) -> dict[Op, tuple[Limit, ...]]:
    """The limits of each command that has any."""
    c = config
    lanes = Quantity(c.lanes, "lanes")
    hidden = Quantity(c.max_hidden // c.lanes, "max_hidden / lanes")
    row = Quantity(c.max_row // c.lanes, "max_row / lanes")
    head = Quantity(c.max_head_dim // c.lanes, "max_head_dim / lanes")
    heads = Quantity(c.max_heads, "max_heads")
    words = Quantity(c.tile_rows // c.rows, "tile_rows / rows")
    depth = Quantity(c.weight_depth, "weight_depth")
    rows = Quantity(c.rows, "rows")
    planes = (1 << ROW_NUMBER_BITS) - 1
    beat = Quantity(c.bus_bytes, "bus_bits / 8")
    kv_format = _limit("format", low=0, high=int(max(KvFormat)))
    record = _limit("record_bytes", multiple=beat)

    def codes(field: str, unit: Quantity) -> list[Limit]:
        """A record has room for the scales behind the codes of K and V; `field` gives the head's
        dimensions in units of `unit`."""
        found = []
        for kv in KvFormat:
            size = kv.bits // 4  # bytes of a dimension, K and V
            name = " * ".join(part for part in (str(size), unit.name) if part != "1")
            term = Quantity(-size * unit.value, name), field
            found.append(
                _limit("record_bytes", term, low=SCALES_BYTES, when="format", values=(kv,))
            )
        return found

    def mode(*modes: Mode) -> dict[str, Any]:
        return {"when": "mode", "values": tuple(map(int, modes))}

    matrix = mode(*(m for m in Mode if m is not Mode.HEAD))
    return {
        Op.FETCH: (
            _limit(
                (Quantity(5 * c.beat_bytes, "5 * ports * bus_bits / 8"), "beats"),
                (Quantity(-c.word_trits, "rows * group * tables"), "words"),
                low=0,
            ),
        ),
        Op.LOAD: (
            _limit("ew", high=hidden, when="dest", values=(Dest.RESIDUAL,)),
            _limit("ew", high=head, when="dest", values=(Dest.ROPE,)),
            _limit(
                "ew",
                high=Quantity(c.longest_row // c.lanes, "max(max_hidden, max_row) / lanes"),
                when="dest",
                values=(Dest.GAIN,),
            ),
            _limit("count", high=planes // min(PLANES), when="dest", values=(Dest.SCALE,)),
        ),
        Op.NORM_QUANT: (
            _limit("source", low=0, high=int(max(Source))),
            _limit("ew", high=hidden, when="source", values=(Source.RESIDUAL,)),
            _limit("ew", high=row, when="source", values=(Source.ROW,)),
        ),
        Op.KV_QUANT: (
            kv_format,
            _limit("heads_per_kv * kv_heads", high=heads),
            _limit("head_ew", high=head),
            _limit("heads_per_kv * kv_heads * head_ew", (2, "kv_heads * head_ew"), high=row),
            record,
            *codes("head_ew", lanes),
        ),
        Op.LINEAR: (
            _limit("mode", low=0, high=int(max(Mode))),
            _limit(
                "k_tiles",
                high=Quantity(
                    c.k_tiles(c.longest_row),
                    "K tiles of a row of max(max_hidden, max_row) elements",
                ),
            ),
            _limit("tile_words", high=words),
            _limit("last_words"),
            _limit("tile_words", (-1, "last_words"), low=0),
            _limit("k_tiles * tile_words", high=depth),
            _limit("out_rows", multiple=lanes, **matrix),
            _limit("planes", low=0, high=0, **matrix),
            _limit("planes", low=min(PLANES), high=max(PLANES), **mode(Mode.HEAD)),
            *(
                _limit("out_rows", high=planes, multiple=n, when="planes", values=(n,))
                for n in PLANES
            ),
            # The tiles' rows, less those that are written.
            _limit(
                (rows, "tiles * tile_words"),
                (Quantity(-c.rows, "rows"), "tile_words"),
                (rows, "last_words"),
                (-1, "out_rows"),
                low=0,
                high=planes,
            ),
            _limit("first_row", low=0, multiple=lanes, **matrix),
            _limit("first_row", low=0, high=0, **mode(Mode.HEAD)),
            _limit(
                "first_row",
                "out_rows",
                high=Quantity(c.max_row, "max_row"),
                **mode(Mode.PLAIN, Mode.QKV),
            ),
            _limit(
                "first_row",
                "out_rows",
                high=Quantity(c.max_hidden, "max_hidden"),
                **mode(Mode.RESIDUAL),
            ),
            _limit(
                "first_row",
                "out_rows",
                high=Quantity(2 * c.max_row, "2 * max_row"),
                **mode(Mode.GLU_RELU2, Mode.GLU_SILU),
            ),
            _limit("head_ew", high=head, **mode(Mode.QKV)),
        ),
        Op.ATTENTION: (
            kv_format,
            _limit("heads_per_kv * kv_heads", high=heads),
            _limit(
                "head_dims",
                high=Quantity(c.max_head_dim, "max_head_dim"),
                multiple=Quantity(c.attention_dims, "attention_dims"),
            ),
            _limit(
                "heads_per_kv * kv_heads * head_dims",
                high=Quantity(c.max_row, "max_row"),
            ),
            record,
            *codes("head_dims", Quantity.of(1)),
        ),
    }


def violation(config: AcceleratorConfig, command: Command) -> str | None:
    """The first limit that a command breaks, or the first binary32 field that holds no number of
    the numeric contract, in words; None for a command that is fine."""
    for limit in limits(config).get(command.op, ()):
        if limit.applies(command) and not limit.holds(command):
            allowed = f"at least {limit.low}" if limit.high is None else ""
            if limit.high is not None:
                allowed = f"{limit.low} to {limit.high.value}"
            if limit.multiple.value != 1:
                allowed += f", multiples of {limit.multiple.value}"
            value = limit.value(command)
            return f"{command.op.name}: {limit.expression} is {value}: {allowed} can be"
    for name in numbers(command.op):
        if not is_number(command[name]):
            return (
                f"{command.op.name}: {name} is {command[name]}: only numbers of the numeric"
                " contract can be"
            )
    return None
