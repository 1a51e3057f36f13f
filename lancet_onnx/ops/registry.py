# SPDX-License-Identifier: Apache-2.0
"""The operator table: ONNX operators as plain torch functions, looked up by exact version.

A function takes the operator's inputs by position (``None`` for an absent optional one) and its
attributes by the names of the specification. An operator revision that nobody wrote is not found,
rather than run with the meaning of an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

OpResult = torch.Tensor | tuple[torch.Tensor, ...] | list[torch.Tensor]
"""One tensor, several outputs, or one sequence of tensors."""

OpFunction = Callable[..., OpResult]
OpKey = tuple[str, str, int]
"""Operator domain, operator type, ``since_version``; the default domain is the empty string."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One entry of the table.

    Attributes:
        function: computes the operator.
        counts_outputs: it wants ``n_outputs``, the number of outputs that the node names, because
            its meaning depends on it (Split before opset 18, BatchNormalization).
        host: positions of float inputs that it reads on the host (scales and bounds, no weights).
        carried: outputs that ONNX types as integers are float tensors of whole numbers, so that
            gradients pass straight through the rounding (QuantizeLinear and its like).
    """

    function: OpFunction
    counts_outputs: bool = False
    host: tuple[int, ...] = ()
    carried: bool = False


_TABLE: dict[OpKey, Operator] = {}

F = TypeVar("F", bound=OpFunction)


def op(
    op_type: str,
    *since_versions: int,
    domain: str = "",
    counts_outputs: bool = False,
    host: tuple[int, ...] = (),
    carried: bool = False,
) -> Callable[[F], F]:
    """Register a function for the named operator at each of `since_versions`; see `Operator`.

    Operators of com.microsoft, which has one version only, have since_version 1.
    """

    def register(function: F) -> F:
        for version in since_versions:
            key = (domain, op_type, version)
            if key in _TABLE:
                raise RuntimeError(f"operator {key} is registered twice")
            _TABLE[key] = Operator(function, counts_outputs, host, carried)
        return function

    return register


def lookup(key: OpKey) -> Operator | None:
    """Return the entry for exactly this operator version, or None."""
    return _TABLE.get(key)


def table() -> Mapping[OpKey, Operator]:
    """Return a copy of the whole table, for listings and tests."""
    return dict(_TABLE)
