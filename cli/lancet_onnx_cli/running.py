# SPDX-License-Identifier: Apache-2.0
"""One call of the library, here or (with limits) in a child process."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from lancet_onnx_cli.bars import progress, waiting
from lancet_onnx_cli.output import Output

if TYPE_CHECKING:
    from lancet_onnx.contain import Limits
    from lancet_onnx.report import Report
    from lancet_onnx.types import Progress

SILENT = {
    "inspect": "inspecting",
    "doctor": "looking at what is installed",
    "show_patch": "reading the patch",
    "apply_patch": "applying the patch",
    "revert_patch": "reverting the patch",
    "diff_models": "comparing the models",
    "compose_patches": "joining the patches",
    "sign": "signing",
    "check_signature": "checking the signature",
}
"""Calls that tell no progress, and what their bar says."""

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def limits_of(
    memory: str | None, seconds: float | None, *, usual: bool, budget: float | None = None
) -> Limits:
    """Return the limits that were asked for; `usual` says that there are some if none were.

    A limit of 0 is none. The usual time is what is left for a call beside its own `budget`.

    Raises:
        BadParameter: no size, or a time under 0.
    """
    from lancet_onnx.contain import Limits, default_limits

    known = default_limits() if usual else Limits()
    size = known.memory if memory is None else _size(memory)
    if seconds is not None and not (seconds >= 0 and math.isfinite(seconds)):
        raise typer.BadParameter(f"--timeout {seconds}: expected seconds, 0 for no limit")
    time = seconds
    if time is None and known.seconds is not None:
        time = known.seconds + (budget or 0)
    return Limits(size or None, time or None)


def run(
    command: str, arguments: Mapping[str, object], limits: Limits | None, output: Output
) -> Report:
    """Call `lancet_onnx.<command>(**arguments)` behind a bar and return its report.

    Raises:
        LancetError: as the call does, or a limit was passed.
    """
    if command in SILENT:
        with waiting(output, SILENT[command]):
            return _called(command, arguments, limits)
    with progress(output) as told:
        return _called(command, arguments, limits, told)


def _called(
    command: str,
    arguments: Mapping[str, object],
    limits: Limits | None,
    progress: Progress | None = None,
) -> Report:
    # Imported behind the bar: loading torch is most of what some calls take.
    if limits:
        from lancet_onnx.contain import contained
        from lancet_onnx.types import no_progress

        return contained(command, arguments, limits, progress or no_progress)
    from lancet_onnx import api

    told = {} if progress is None else {"progress": progress}
    report: Report = getattr(api, command)(**arguments, **told)
    return report


def _size(text: str) -> int:
    found = re.fullmatch(
        r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE
    )
    if found is None:
        raise typer.BadParameter(
            f"--memory-limit {text}: expected a size such as 4G or 500M, 0 for no limit"
        )
    return int(float(found[1]) * (1 << _UNITS[found[2].upper()]))
