"""Checks commands on their way to the sequencer against the configuration's limits."""

from __future__ import annotations

from amaranth import C, Module, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from .. import isa, limits
from ..config import AcceleratorConfig
from ..elementwise.rows import times
from ..fp import is_number

COMMAND_BITS = 8 * isa.COMMAND_BYTES


def reference(config: AcceleratorConfig, command: bytes) -> bool:
    """Whether a command fits; what is no command does."""
    try:
        decoded = isa.decode(command)
    except ValueError:
        return True
    return limits.violation(config, decoded) is None


def checked_layout() -> data.StructLayout:
    """A command, and whether it keeps the limits of its opcode."""
    return data.StructLayout({"command": unsigned(COMMAND_BITS), "fits": unsigned(1)})


class CommandCheck(Component):
    """Passes commands on with a verdict: see `limits.violation`. What is no command fits.

    Latency: LATENCY cycles; nothing is stored but the verdict, `i` is held until it is passed on.
    Throughput: a command every LATENCY + 1 cycles. Back-pressure: `i.ready` follows `o.ready`.
    Reset begins anew.
    """

    LATENCY = 7

    i: stream.Interface
    o: stream.Interface

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(COMMAND_BITS)),
                "o": Out(stream.Signature(checked_layout())),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words = Signal(data.ArrayLayout(unsigned(32), isa.COMMAND_WORDS))
        m.d.comb += words.eq(self.i.payload)

        broken = [
            self._broken(m, words, op, limit)
            for op, found in limits.limits(self._config).items()
            for limit in found
        ]
        broken += [
            self._no_number(m, words, op, name) for op in isa.Op for name in limits.numbers(op)
        ]
        fits = Signal()
        m.d.sync += fits.eq(~_any(broken))

        # The command stands still until all of that has settled.
        settled = Signal(range(self.LATENCY + 1))
        done = settled == self.LATENCY
        m.d.comb += [
            self.o.valid.eq(self.i.valid & done),
            self.o.payload.command.eq(self.i.payload),
            self.o.payload.fits.eq(fits),
            self.i.ready.eq(self.o.ready & done),
        ]
        with m.If(self.i.valid & ~done):
            m.d.sync += settled.eq(settled + 1)
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += settled.eq(0)
        return m

    def _broken(self, m: Module, words: data.View, op: isa.Op, limit: limits.Limit) -> Signal:
        """High while the command breaks `limit`, LATENCY - 1 cycles after it has come at most."""
        places = {f.name: f for f in isa.HEADER + isa.FIELDS[op]}

        def field(name: str) -> Value:
            f = places[name]
            return words[f.word][f.lsb : f.lsb + f.bits]

        total: Value | None = None
        for term in limit.terms:
            product = field(term.fields[0])
            for other in term.fields[1:]:
                following = Signal(len(product) + places[other].bits)
                m.d.sync += following.eq(product * field(other))
                product = following
            amount = times(product, abs(term.factor.value))
            if total is None:
                total = amount  # the first one is never negative
            else:
                total = total - amount if term.factor.value < 0 else total + amount
        assert total is not None
        value = Signal(total.shape())
        m.d.sync += value.eq(total)

        wrong = value < limit.low if limit.low or value.shape().signed else C(0, 1)
        if limit.high is not None:
            wrong |= value > limit.high.value
        if limit.multiple.value != 1:
            wrong |= ~_is_multiple(m, value, limit.multiple.value)
        concerned = field("op") == op
        if limit.when is not None:
            concerned &= _any([field(limit.when) == v for v in limit.values])
        broken = Signal()
        m.d.sync += broken.eq(wrong & concerned)
        return broken

    @staticmethod
    def _no_number(m: Module, words: data.View, op: isa.Op, name: str) -> Signal:
        """High while a binary32 field of a command `op` is no number of the numeric contract."""
        word = next(f.word for f in isa.FIELDS[op] if f.name == name)
        broken = Signal()
        m.d.sync += broken.eq((words[0][:8] == op) & ~is_number(words[word]))
        return broken


def _any(conditions: list[Value]) -> Value:
    result = conditions[0]
    for condition in conditions[1:]:
        result = result | condition
    return result


def _is_multiple(m: Module, value: Value, of: int) -> Value:
    """Whether a value from 0 on is a multiple of a power of two, or of a divisor of 15; the latter
    takes up to two cycles."""
    if of & (of - 1) == 0:
        return value[: of.bit_length() - 1] == 0
    if 15 % of:
        raise ValueError(f"multiples of {of}: powers of two and divisors of 15 can be told")
    # 16 leaves 1, so a number and the sum of its hexadecimal digits leave the same.
    while len(value) > 5:
        digits = [value[at : at + 4] for at in range(0, len(value), 4)]
        folded = Signal((15 * len(digits)).bit_length())
        m.d.sync += folded.eq(sum(digits[1:], digits[0]))
        value = folded
    return _any([value == n for n in range(0, 1 << len(value), of)])
