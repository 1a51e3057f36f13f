# SPDX-License-Identifier: Apache-2.0
"""Casts, and tensors made from nothing but numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import DTYPES, dtype_of, host_floats, host_int, host_ints, refuse_bomb
from lancet_onnx.ops.registry import op

_KNOWN = frozenset(DTYPES.values())

Array = np.ndarray[Any, np.dtype[Any]]


def from_array(value: Array) -> torch.Tensor:
    """Return a copy of an array as a tensor on the host, refusing strings and 8-bit floats."""
    if value.dtype.name == "bfloat16":
        bits = np.array(value).view(np.uint16)
        return torch.from_numpy(bits).view(torch.bfloat16)
    try:
        tensor = torch.from_numpy(np.array(value))
    except TypeError:
        raise UnsupportedError(f"a constant of type {value.dtype} is not computed with") from None
    if tensor.dtype not in _KNOWN:
        raise UnsupportedError(f"a constant of type {value.dtype} is not computed with")
    return tensor


@op("Cast", 6, 9, 13)
def cast_6(input: torch.Tensor, *, to: int) -> torch.Tensor:
    """Cast (6, 9, 13) between numbers; floats are truncated toward zero."""
    return input.to(dtype_of(to))


@op("Cast", 19, 21, 23)
def cast_19(input: torch.Tensor, *, saturate: int = 1, to: int) -> torch.Tensor:
    """Cast (19, 21, 23): saturate is about 8-bit floats, which are refused."""
    return input.to(dtype_of(to))


@op("Cast", 24, 25, 28)
def cast(
    input: torch.Tensor,
    *,
    round_mode: str = "up",
    saturate: int = 1,
    to: int,
) -> torch.Tensor:
    """Cast (24, 25, 28): round_mode and saturate are about 8-bit floats, which are refused."""
    return input.to(dtype_of(to))


@op("CastLike", 15)
def cast_like_15(
    input: torch.Tensor,
    target_type: torch.Tensor,
) -> torch.Tensor:
    """CastLike (15)."""
    return input.to(target_type.dtype)


@op("CastLike", 19, 21, 23)
def cast_like_19(
    input: torch.Tensor,
    target_type: torch.Tensor,
    *,
    saturate: int = 1,
) -> torch.Tensor:
    """CastLike (19, 21, 23): saturate is about 8-bit floats."""
    return input.to(target_type.dtype)


@op("CastLike", 24, 25)
def cast_like(
    input: torch.Tensor,
    target_type: torch.Tensor,
    *,
    round_mode: str = "up",
    saturate: int = 1,
) -> torch.Tensor:
    """CastLike (24, 25): round_mode and saturate are about 8-bit floats."""
    return input.to(target_type.dtype)


@op("Constant", 1, 9)
def constant_1(*, value: Array) -> torch.Tensor:
    """Constant (1, 9)."""
    return from_array(value)


@op("Constant", 11)
def constant_11(*, sparse_value: object = None, value: Array | None = None) -> torch.Tensor:
    """Constant (11): a sparse value is refused."""
    if value is None:
        raise UnsupportedError(f"Constant with a sparse value ({type(sparse_value).__name__})")
    return from_array(value)


@op("Constant", 12, 13, 19, 21, 23, 24, 25)
def constant(
    *,
    sparse_value: object = None,
    value: Array | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
    value_string: str | None = None,
    value_strings: list[str] | None = None,
) -> torch.Tensor:
    """Constant (12, 13, 19, 21, 23, 24, 25): sparse values and strings are refused."""
    if value is not None:
        return from_array(value)
    floats = value_float if value_float is not None else value_floats
    if floats is not None:
        return torch.tensor(floats, dtype=torch.float32)
    ints = value_int if value_int is not None else value_ints
    if ints is not None:
        return torch.tensor(ints, dtype=torch.int64)
    strings = value_string is not None or value_strings is not None
    kind = "strings" if strings else f"a sparse value ({type(sparse_value).__name__})"
    raise UnsupportedError(f"Constant with {kind} is not computed with")


@op("ConstantOfShape", 9, 20, 21, 23, 24, 25)
def constant_of_shape(
    input: torch.Tensor,
    *,
    value: Array | None = None,
) -> torch.Tensor:
    """ConstantOfShape (9, 20, 21, 23, 24, 25): on the host."""
    sizes = host_ints(input, "the shape of ConstantOfShape")
    refuse_bomb(math.prod(sizes), "ConstantOfShape")
    if value is None:
        return torch.zeros(sizes, dtype=torch.float32)
    return from_array(value).reshape(()).expand(sizes).clone()


@op("EyeLike", 9, 22)
def eye_like(
    input: torch.Tensor,
    *,
    dtype: int | None = None,
    k: int = 0,
) -> torch.Tensor:
    """EyeLike (9, 22)."""
    rows, columns = input.shape
    refuse_bomb(rows * columns, "EyeLike")
    kind = input.dtype if dtype is None else dtype_of(dtype)
    down = torch.arange(rows, device=input.device).reshape(-1, 1)
    across = torch.arange(columns, device=input.device)
    return (down + k == across).to(kind)


def _range(start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    if not start.is_floating_point():
        first, last, step = (host_int(t, "the bounds of Range") for t in (start, limit, delta))
        _refuse_range(first, last, step)
        return torch.arange(max(-((first - last) // step), 0)).mul(step).add(first).to(start.dtype)
    low, high, gap = (host_floats(t, "the bounds of Range")[0] for t in (start, limit, delta))
    _refuse_range(low, high, gap)
    count = max(math.ceil((high - low) / gap), 0)
    return (torch.arange(count, dtype=torch.float64) * gap + low).to(start.dtype)


def _refuse_range(start: float, limit: float, step: float) -> None:
    if step == 0:
        raise UnsupportedError("Range with a step of 0 has no end")
    refuse_bomb((limit - start) / step, "Range")


@op("Range", 11, host=(0, 1, 2))
def range_11(start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Range (11): on the host."""
    return _range(start, limit, delta)


@op("Range", 27, host=(0, 1, 2))
def range_27(
    start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor, *, stash_type: int = 1
) -> torch.Tensor:
    """Range (27): on the host; half precision is counted in float32 or better."""
    if stash_type != 1:
        raise UnsupportedError(f"Range with stash_type={stash_type} is not computed")
    return _range(start, limit, delta)
