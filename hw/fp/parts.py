"""Steps that the floating-point pipelines share: unpack, normalise, round and pack.

They add registers (without reset) to the caller's module; their latency in cycles is stated.
"""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal, Value

from .delay import register

BIAS = 127
MANTISSA = 24
LARGEST = 0x7F7FFFFF
"""Bits of the largest finite number: what a result saturates to."""


def sign_of(x: Value) -> Value:
    return x[31]


def exponent_of(x: Value) -> Value:
    """The 8-bit exponent field, 0 for zero."""
    return x[23:31]


def mantissa_of(x: Value) -> Value:
    """The 24-bit significand, 0 for zero. The contract has no subnormals and one zero, all bits
    of which are 0."""
    return Cat(x[:23], x[23:31].any())


def magnitude_of(x: Value) -> Value:
    """|x| as binary32."""
    return Cat(x[:31], C(0, 1))


def _tiny(x: Value) -> Value:
    """Zero of either sign, a subnormal, or 2**-126 of either sign."""
    return ~x[24:31].any() & ~(x[23] & x[:23].any())


def sanitise(x: Value) -> Value:
    """A binary32 word as a number of the contract: `numeric.sanitise`, combinational."""
    largest = Cat(C(LARGEST, 31), x[31])
    return Mux(x[23:31].all(), largest, Mux(_tiny(x), C(0, 32), x))


def is_number(x: Value) -> Value:
    """Whether a binary32 word is a number of the contract: `numeric.is_number`, combinational."""
    return ~x[23:31].all() & (~_tiny(x) | ~x.any())


NORMALISE_LATENCY = 2


def normalise(m: Module, value: Value) -> tuple[Value, Value]:
    """Shift `value` left until its top bit is set. 2 cycles: whole bytes, then bits.

    Returns the shifted value (its width rounded up to bytes, low bits zero) and the number of
    leading zeros. A zero value stays zero (top bit clear), with any count.
    """
    groups = -(-len(value) // 8)
    width = groups * 8
    padded = Cat(C(0, width - len(value)), value)

    coarse = Signal(range(max(groups, 2)), reset_less=True, name="leading_bytes")
    by_bytes = Signal(width, reset_less=True, name="shifted_bytes")
    m.d.sync += by_bytes.eq(0)
    for g in reversed(range(groups)):  # the last assignment wins: the highest byte
        with m.If(padded.word_select(groups - 1 - g, 8).any()):
            m.d.sync += [coarse.eq(g), by_bytes.eq(padded << (8 * g))]

    fine = Signal(3, name="leading_bits")
    for bit in range(8):
        with m.If(by_bytes[width - 8 + bit]):
            m.d.comb += fine.eq(7 - bit)
    shifted = register(m, (by_bytes << fine)[:width])
    return shifted, register(m, Cat(fine, coarse))


ROUND_LATENCY = 2


def round_pack(
    m: Module,
    sign: Value,
    exponent: Value,
    fraction: Value,
    guard: Value,
    sticky: Value,
    zero: Value,
    low: bool = True,
    high: bool = True,
) -> Value:
    """Round to nearest even and pack as the numeric contract says. 2 cycles.

    `exponent` is signed and biased; it belongs to 1.`fraction` (23 bits), which `guard` (half an
    ulp) and `sticky` (anything below) follow. `zero` makes the result +0. Without `low` (`high`)
    the rounded result is known not to flush (saturate).
    """
    exponent = Value.cast(exponent)
    # A carry out of the fraction raises the exponent and leaves the fraction zero.
    joined = Cat(fraction[:23], exponent).as_signed()
    up = guard & (sticky | fraction[0])
    rounded = Signal(Shape(len(joined) + 1, signed=True), reset_less=True, name="rounded")
    m.d.sync += rounded.eq(joined + up)
    sign, zero = register(m, sign), register(m, zero)
    power, negative = rounded[23:-1], rounded[-1]
    # By bits rather than comparisons, which would be carry chains. 2**-126 itself is flushed too.
    if low:
        zero |= negative | (~power[1:].any() & (~power[0] | ~rounded[:23].any()))
    number: Value = rounded[:31]
    if high:
        number = Mux(~negative & (power[8:].any() | power[:8].all()), C(LARGEST, 31), number)
    return register(m, Mux(zero, 0, Cat(number, sign)))


def round_product(
    m: Module,
    product: Value,
    exponent: Value,
    sign: Value,
    zero: Value,
    high: bool = True,
) -> Value:
    """Round and pack the product of two 24-bit significands, in [2**46, 2**48). 2 cycles.

    `exponent` is signed and biased and belongs to products below 2**47; `zero` and `high` as in
    `round_pack`.
    """
    upper = product[47]
    return round_pack(
        m,
        sign=sign,
        exponent=(exponent + upper)[: len(exponent) + 1].as_signed(),
        fraction=Mux(upper, product[24:47], product[23:46]),
        guard=Mux(upper, product[23], product[22]),
        sticky=product[:22].any() | (upper & product[22]),
        zero=zero,
        high=high,
    )
