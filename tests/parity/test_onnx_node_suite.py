# SPDX-License-Identifier: Apache-2.0
"""The official node tests of ONNX: right or refused, never wrong."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import parity_nodes
from onnx.backend.test.loader import load_model_tests

from lancet_onnx.errors import UnsupportedError

RIGHT_AT_LEAST = 1108
"""Measured with onnx 1.23.2 and torch 2.15."""


@dataclass
class Tally:
    right: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


def comparable(values: Any) -> bool:
    """Whether these are arrays of numbers, not strings, sequences or optionals."""
    return all(
        isinstance(v, np.ndarray | np.generic)
        and (v.dtype.kind in "fiub" or v.dtype.name == "bfloat16")
        for v in values
    )


def difference(got: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> str:
    if wanted.dtype.name == "bfloat16":
        wanted, rtol, atol = wanted.astype(np.float32), max(rtol, 1e-2), max(atol, 1e-2)
    if got.dtype != wanted.dtype:
        return f"type {got.dtype}, not {wanted.dtype}"
    if got.shape != wanted.shape:
        return f"shape {got.shape}, not {wanted.shape}"
    if got.dtype == np.float16:
        rtol, atol = max(rtol, 2e-3), max(atol, 1e-3)
    if not np.allclose(got, wanted, rtol=rtol, atol=atol, equal_nan=True):
        return "values differ"
    return ""


def tally() -> Tally:
    result = Tally()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, while the cases are made
        cases = load_model_tests(kind="node")
    for case in cases:
        assert case.model is not None
        assert case.data_sets is not None
        for inputs, outputs in case.data_sets:
            if not comparable([*inputs, *outputs]):
                result.refused[case.name] = "not plain numbers"
                break
            try:
                got = parity_nodes.run_model(case.model, inputs)
            except UnsupportedError as error:
                result.refused[case.name] = str(error)
                break
            except Exception as error:  # a function that fails counts as wrong
                result.wrong[case.name] = f"{type(error).__name__}: {error}"
                break
            differences = [
                difference(g, np.asarray(w), case.rtol, case.atol)
                for g, w in zip(got, outputs, strict=True)
            ]
            if any(differences):
                result.wrong[case.name] = "; ".join(d for d in differences if d)
                break
        else:
            result.right.append(case.name)
    return result


def test_node_suite_is_right_or_refused() -> None:
    result = tally()
    assert result.wrong == {}
    assert len(result.right) >= RIGHT_AT_LEAST
