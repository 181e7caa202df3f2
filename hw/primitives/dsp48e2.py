"""DSP48E2, the arithmetic block of UltraScale+, with every port and attribute given.

Source: AMD UG579. A block of the gateware does not place it directly: it is a component whose
`elaborate` describes the same behaviour for simulation, and has a subclass that calls `dsp48e2`.
"""

from __future__ import annotations

from amaranth import C, Cat, ClockSignal, Instance, Value

FAMILIES = ("xcup",)
"""Families that have the block (Yosys' names)."""

# Operands of the adder, by the multiplexer of OPMODE that takes them.
W_ZERO, W_P, W_RND, W_C = (n << 7 for n in range(4))
Z_ZERO, Z_PCIN, Z_P, Z_C = (n << 4 for n in range(4))
Z_PCIN_SHIFTED = 0b101 << 4
"""PCIN shifted right by 17 bits, its sign kept."""
Y_ZERO, Y_M, Y_ONES, Y_C = (n << 2 for n in range(4))
X_ZERO, X_M, X_P, X_AB = range(4)
XY_PRODUCT = X_M | Y_M

_REGISTERS = {
    "A": 30, "B": 18, "C": 48, "D": 27, "INMODE": 5, "OPMODE": 9, "ALUMODE": 4, "CARRYIN": 1,
    "CARRYINSEL": 3,
}  # fmt: skip
"""Inputs with a register, and their widths."""

_ENABLES = (
    "CEA1", "CEA2", "CEAD", "CEALUMODE", "CEB1", "CEB2", "CEC", "CECARRYIN", "CECTRL", "CED",
    "CEINMODE", "CEM", "CEP",
)  # fmt: skip
_RESETS = (
    "RSTA", "RSTALLCARRYIN", "RSTALUMODE", "RSTB", "RSTC", "RSTCTRL", "RSTD", "RSTINMODE", "RSTM",
    "RSTP",
)  # fmt: skip
_CASCADES = {"ACIN": 30, "BCIN": 18, "PCIN": 48, "CARRYCASCIN": 1, "MULTSIGNIN": 1}
_OUTPUTS = {"P": 48, "PCOUT": 48, "ACOUT": 30, "BCOUT": 18}


def dsp48e2(ports: dict[str, Value | int], **attributes: int | str) -> Instance:
    """An instance on the clock of domain sync.

    ports: by UG579's name. Inputs that are left out are 0; clock enables are high and resets low,
    so that a register that an attribute asks for (AREG = 1, ...) just delays. Attributes that are
    left out: no registers (A, B, C, D, M, AD, P, OPMODE, ...), inputs not from a cascade, the
    multiplier used, ONE48. Raises ValueError for a port that is none of these.
    """
    known = _REGISTERS | _CASCADES | dict.fromkeys((*_ENABLES, *_RESETS), 1)
    given: dict[str, object] = {"i_CLK": ClockSignal("sync")}
    for name, width in known.items():
        idle = C(int(name in _ENABLES), width)
        given[f"i_{name}"] = idle if name not in ports else _fitted(ports[name], width)
    for name in _OUTPUTS:
        if name in ports:
            given[f"o_{name}"] = ports[name]
    unknown = [name for name in ports if name not in known | _OUTPUTS]
    if unknown:
        raise ValueError(f"{unknown[0]}: not a port of DSP48E2 that is used here")
    defaults: dict[str, int | str] = {
        **dict.fromkeys(
            (
                "ADREG", "ALUMODEREG", "AREG", "BREG", "CARRYINREG", "CARRYINSELREG", "CREG",
                "DREG", "INMODEREG", "MREG", "OPMODEREG", "PREG",
            ),
            0,
        ),
        "ACASCREG": attributes.get("AREG", 0), "BCASCREG": attributes.get("BREG", 0),
        "A_INPUT": "DIRECT", "B_INPUT": "DIRECT", "USE_MULT": "MULTIPLY", "USE_SIMD": "ONE48",
    }  # fmt: skip
    given |= {f"p_{name}": value for name, value in (defaults | attributes).items()}
    return Instance("DSP48E2", **given)


def _fitted(value: Value | int, width: int) -> Value:
    """`value` with its sign, or zeros, up to `width` bits."""
    fitted = Value.cast(value)
    if len(fitted) > width:
        raise ValueError(f"{fitted!r} has over {width} bits")
    missing = width - len(fitted)
    sign = fitted[-1] if fitted.shape().signed else C(0, 1)
    return fitted if not missing else Cat(fitted, sign.replicate(missing))
