# SPDX-License-Identifier: Apache-2.0
"""An earlier gate's JSON: what failed then. It may come from a stranger: nothing is trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lancet_onnx.errors import DataError
from lancet_onnx.verify.gate_policy import Known

LARGEST = 64 << 20
_UNUSABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,  # a whole number that no float holds
)


def read_baseline(path: Path) -> Mapping[str, tuple[Known, ...]]:
    """Return the failures of each model in an earlier gate's JSON, by the path it was given.

    Raises:
        DataError: unreadable, or not what `lancet-onnx gate -f json` writes.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"over {LARGEST >> 20} MiB")
        content = json.loads(path.read_bytes())
        if content["command"] != "gate":
            raise ValueError(f"a report of {content['command']}")
        return {str(each["path"]): _failures(each["checks"]) for each in content["models"]}
    except _UNUSABLE as error:
        reason = getattr(error, "strerror", None) or (
            str(error) if type(error) is ValueError else type(error).__name__
        )
        raise DataError(
            f"{path}: cannot be the baseline ({reason}); expected a file that "
            "`lancet-onnx gate ... -f json -o FILE` wrote"
        ) from error


def refuse_foreign(
    path: Path, baseline: Mapping[str, Sequence[Known]], models: Sequence[Path]
) -> None:
    """Refuse a baseline that speaks of none of these models.

    Raises:
        DataError: not one name is the same.
    """
    if any(failures_of(baseline, model) is not None for model in models):
        return
    there = ", ".join(sorted(Path(name).name for name in baseline)[:3]) or "no model"
    raise DataError(
        f"{path}: the baseline is a report on {there}, not on "
        f"{', '.join(sorted({model.name for model in models})[:3])}; make one of these models with "
        "`lancet-onnx gate ... -f json -o FILE`"
    )


def failures_of(baseline: Mapping[str, Sequence[Known]], model: Path) -> Sequence[Known] | None:
    """Return what failed for `model`: by its path or, if there is one only, by its file name."""
    if str(model) in baseline:
        return baseline[str(model)]
    named = [known for name, known in baseline.items() if Path(name).name == model.name]
    return named[0] if len(named) == 1 else None


def _failures(checks: object) -> tuple[Known, ...]:
    if not isinstance(checks, list):
        raise TypeError("no checks")
    return tuple(
        Known(str(check["fingerprint"]), _figure(check["value"]), _figure(check["limit"]))
        for check in checks
        if check["result"] == "fail"
    )


def _figure(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise TypeError("no figure")
