# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, comparison, logic and the plain mathematical functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce as fold

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import is_wide_unsigned, meet, require_float, widen
from lancet_onnx.ops.registry import op

Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_UNARY: tuple[tuple[str, tuple[int, ...], Callable[[torch.Tensor], torch.Tensor]], ...] = (
    ("Acos", (7, 22), torch.acos),
    ("Acosh", (9, 22), torch.acosh),
    ("Asin", (7, 22), torch.asin),
    ("Asinh", (9, 22), torch.asinh),
    ("Atan", (7, 22), torch.atan),
    ("Atanh", (9, 22), torch.atanh),
    ("Ceil", (6, 13), torch.ceil),
    ("Cos", (7, 22), torch.cos),
    ("Cosh", (9, 22), torch.cosh),
    ("Erf", (9, 13), torch.erf),
    ("Exp", (6, 13), torch.exp),
    ("Floor", (6, 13), torch.floor),
    ("IsNaN", (9, 13, 20), torch.isnan),
    ("Log", (6, 13), torch.log),
    ("Neg", (6, 13), torch.neg),
    ("Not", (1,), torch.logical_not),
    ("Reciprocal", (6, 13), torch.reciprocal),
    ("Round", (11, 22), torch.round),
    ("Sin", (7, 22), torch.sin),
    ("Sinh", (9, 22), torch.sinh),
    ("Sqrt", (6, 13), torch.sqrt),
    ("Tan", (7, 22), torch.tan),
)


def _named(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def unary(X: torch.Tensor) -> torch.Tensor:
        return function(X)

    return unary


for _op_type, _versions, _function in _UNARY:
    op(_op_type, *_versions)(_named(_function))


def _binary(function: Binary, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Bring both to one device; unsigned types that torch lacks are computed in wider ones."""
    left, right = meet(A, B)
    if not is_wide_unsigned(left):
        return function(left, right)
    result = function(widen(left), widen(right))
    return result if result.dtype == torch.bool else result.to(A.dtype)


def _ordered(tensor: torch.Tensor) -> torch.Tensor:
    """Return uint64 as int64 of the same order; undone by the same flip of the highest bit."""
    return tensor.to(torch.int64) ^ torch.iinfo(torch.int64).min


def _compared(function: Binary, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Apply a function that depends on order alone, which torch does not know of uint64."""
    if A.dtype != torch.uint64:
        return _binary(function, A, B)
    result = function(*(_ordered(tensor) for tensor in meet(A, B)))
    return result if result.dtype == torch.bool else _ordered(result).to(A.dtype)


def _quotient(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Return the quotient of two uint64 tensors, as int64 with the same bits."""
    top = torch.iinfo(torch.int64).max
    above, below = (tensor.to(torch.int64) for tensor in meet(A, B))
    # Half of A is positive as int64; what that leaves is less than twice a divisor, if that is
    # positive too. A larger divisor fits once or not at all.
    small = torch.where(below < 0, torch.ones_like(below), below)
    guess = torch.div((above >> 1) & top, small, rounding_mode="trunc")
    guess = torch.where(below < 0, torch.zeros_like(guess), guess << 1)
    rest = above - guess * below
    flip = torch.iinfo(torch.int64).min
    return guess + ((rest ^ flip) >= (below ^ flip)).to(torch.int64)


def _refuse_uint64(tensor: torch.Tensor, what: str) -> None:
    if tensor.dtype == torch.uint64:
        raise UnsupportedError(f"{what} of uint64 is not computed")


@op("Abs", 6, 13)
def abs_(X: torch.Tensor) -> torch.Tensor:
    """Abs (6, 13)."""
    return X if is_wide_unsigned(X) else torch.abs(X)


@op("Sign", 9, 13)
def sign(input: torch.Tensor) -> torch.Tensor:
    """Sign (9, 13)."""
    return torch.sign(widen(input)).to(input.dtype)


@op("Add", 7, 13, 14)
def add(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Add (7, 13, 14)."""
    return _binary(torch.add, A, B)


@op("Sub", 7, 13, 14)
def sub(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Sub (7, 13, 14)."""
    return _binary(torch.sub, A, B)


@op("Mul", 7, 13, 14)
def mul(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Mul (7, 13, 14)."""
    return _binary(torch.mul, A, B)


@op("Div", 7, 13, 14)
def div(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Div (7, 13, 14): integers are truncated toward zero."""
    if A.is_floating_point():
        return _binary(torch.div, A, B)
    if A.dtype == torch.uint64:
        return _quotient(A, B).to(A.dtype)
    return _binary(lambda a, b: torch.div(a, b, rounding_mode="trunc"), A, B)


@op("Mod", 10, 13)
def mod(A: torch.Tensor, B: torch.Tensor, *, fmod: int = 0) -> torch.Tensor:
    """Mod (10, 13): floats need fmod=1."""
    if A.is_floating_point() and not fmod:
        raise UnsupportedError("Mod of floats needs fmod=1 before opset 28")
    return mod_28(A, B, fmod=fmod)


@op("Mod", 28)
def mod_28(A: torch.Tensor, B: torch.Tensor, *, fmod: int = 0) -> torch.Tensor:
    """Mod (28): fmod=0 takes the divisor's sign, floats as well; a zero may have either sign."""
    if A.dtype == torch.uint64:
        above, below = meet(A, B)
        return (widen(above) - _quotient(A, B) * widen(below)).to(A.dtype)
    return _binary(torch.fmod if fmod else torch.remainder, A, B)


@op("Pow", 7, 12, 13, 15)
def pow_(X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """Pow (7, 12, 13, 15): the result has the base's type."""
    _refuse_uint64(X, "Pow")
    base, exponent = meet(widen(X), widen(Y))
    return torch.pow(base, exponent).to(X.dtype)


@op("Max", 6, 8, 12, 13)
def max_(*data_0: torch.Tensor) -> torch.Tensor:
    """Max (6, 8, 12, 13) of any number of tensors."""
    return fold(lambda a, b: _compared(torch.maximum, a, b), data_0)


@op("Min", 6, 8, 12, 13)
def min_(*data_0: torch.Tensor) -> torch.Tensor:
    """Min (6, 8, 12, 13) of any number of tensors."""
    return fold(lambda a, b: _compared(torch.minimum, a, b), data_0)


@op("Sum", 6, 8, 13)
def sum_(*data_0: torch.Tensor) -> torch.Tensor:
    """Sum (6, 8, 13) of any number of tensors."""
    return fold(add, data_0)


@op("Mean", 6, 8, 13)
def mean(*data_0: torch.Tensor) -> torch.Tensor:
    """Mean (6, 8, 13) of any number of tensors."""
    return fold(add, data_0) / len(data_0)


@op("Equal", 7, 11, 13, 19)
def equal(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Equal (7, 11, 13, 19)."""
    return _binary(torch.eq, A, B)


@op("Greater", 7, 9, 13)
def greater(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Greater (7, 9, 13)."""
    return _compared(torch.gt, A, B)


@op("GreaterOrEqual", 12, 16)
def greater_or_equal(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """GreaterOrEqual (12, 16)."""
    return _compared(torch.ge, A, B)


@op("Less", 7, 9, 13)
def less(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Less (7, 9, 13)."""
    return _compared(torch.lt, A, B)


@op("LessOrEqual", 12, 16)
def less_or_equal(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """LessOrEqual (12, 16)."""
    return _compared(torch.le, A, B)


@op("And", 7)
def and_(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """And (7)."""
    return _binary(torch.logical_and, A, B)


@op("Or", 7)
def or_(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Or (7)."""
    return _binary(torch.logical_or, A, B)


@op("Xor", 7)
def xor(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Xor (7)."""
    return _binary(torch.logical_xor, A, B)


@op("Where", 9, 16)
def where(condition: torch.Tensor, X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """Where (9, 16)."""
    mask, left, right = meet(condition, X, Y)
    return torch.where(mask, left, right)


@op("IsInf", 10, 20)
def is_inf(X: torch.Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> torch.Tensor:
    """IsInf (10, 20)."""
    if detect_negative and detect_positive:
        return torch.isinf(X)
    if detect_negative:
        return torch.isneginf(X)
    if detect_positive:
        return torch.isposinf(X)
    return torch.zeros_like(X, dtype=torch.bool)


@op("Einsum", 12, 28)
def einsum(*Inputs: torch.Tensor, equation: str) -> torch.Tensor:
    """Einsum (12, 28)."""
    return torch.einsum(equation.replace(" ", ""), *meet(*Inputs))


@op("Clip", 6)
def clip_6(
    input: torch.Tensor,
    *,
    min: float = -3.4028234663852886e38,
    max: float = 3.4028234663852886e38,
) -> torch.Tensor:
    """Clip (6): bounds are attributes."""
    require_float(input, "Clip 6")
    return torch.clamp(input, min, max)


@op("Clip", 11, 12, 13)
def clip(
    input: torch.Tensor,
    min: torch.Tensor | None = None,
    max: torch.Tensor | None = None,
) -> torch.Tensor:
    """Clip (11, 12, 13): bounds are inputs; where min exceeds max the result is max."""
    _refuse_uint64(input, "Clip")
    result = widen(input)
    if min is not None:
        result = torch.clamp(result, min=widen(min).reshape(()).to(result.device))
    if max is not None:
        result = torch.clamp(result, max=widen(max).reshape(()).to(result.device))
    return result.to(input.dtype)
