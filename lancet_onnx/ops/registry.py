# SPDX-License-Identifier: Apache-2.0
"""The operator table: ONNX operators as plain torch functions, looked up by exact version.

A function takes the operator's inputs by position (``None`` for an absent optional one) and its
attributes by the names of the specification. An operator revision that nobody wrote is not found,
rather than run with the meaning of an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

OpResult = torch.Tensor | tuple[torch.Tensor, ...]
OpFunction = Callable[..., OpResult]
OpKey = tuple[str, str, int]
"""Operator domain, operator type, ``since_version``; the default domain is the empty string."""

_TABLE: dict[OpKey, OpFunction] = {}
_COUNTS_OUTPUTS: set[OpKey] = set()

F = TypeVar("F", bound=OpFunction)


def op(
    op_type: str, *since_versions: int, domain: str = "", counts_outputs: bool = False
) -> Callable[[F], F]:
    """Register a function for the named operator at each of `since_versions`.

    `counts_outputs` makes the executor pass ``n_outputs``, the number of outputs that the node
    names, for operators whose meaning depends on it (Split before opset 18, BatchNormalization).
    """

    def register(function: F) -> F:
        for version in since_versions:
            key = (domain, op_type, version)
            if key in _TABLE:
                raise RuntimeError(f"operator {key} is registered twice")
            _TABLE[key] = function
            if counts_outputs:
                _COUNTS_OUTPUTS.add(key)
        return function

    return register


def lookup(key: OpKey) -> OpFunction | None:
    """Return the function for exactly this operator version, or None."""
    return _TABLE.get(key)


def counts_outputs(key: OpKey) -> bool:
    """Return whether the function for `key` wants ``n_outputs``."""
    return key in _COUNTS_OUTPUTS


def table() -> Mapping[OpKey, OpFunction]:
    """Return a copy of the whole table, for listings and tests."""
    return dict(_TABLE)
