"""Binary32 pipelines of the numeric contract, each a Component with a fixed LATENCY."""

from .add import Add
from .convert import FromInt, ToInt
from .delay import delay, register
from .divide import Divide
from .mul import Mul
from .parts import is_number, sanitise
from .scale2 import Scale2
from .sigmoid import Sigmoid
from .sqrt import Sqrt
from .table import Exp2Fraction, Reciprocal

__all__ = [
    "Add",
    "Divide",
    "Exp2Fraction",
    "FromInt",
    "Mul",
    "Reciprocal",
    "Scale2",
    "Sigmoid",
    "Sqrt",
    "ToInt",
    "delay",
    "is_number",
    "register",
    "sanitise",
]
