# SPDX-License-Identifier: Apache-2.0
"""The words of the command line as the library's frozen options."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from lancet_onnx_cli.choices import Color, Layout, Mode, Resize

if TYPE_CHECKING:
    from lancet_onnx.api import DataOptions, SearchOptions, TriggerOptions

T = TypeVar("T", int, float)


def data_of(
    path: Path | None,
    preprocess: str | None,
    mean: str | None,
    std: str | None,
    color: Color | None,
    layout: Layout | None,
    resize: Resize | None,
    answer: str | None,
) -> DataOptions:
    """Return how images are read, completed by the policy in the working folder.

    Raises:
        BadParameter: means or deviations that are no numbers.
        UsageError: a policy that cannot be used.
    """
    told = told_data(path, preprocess, mean, std, color, layout, resize, answer)
    from lancet_onnx_cli.policy_file import with_policy

    return with_policy(told)


def told_data(
    path: Path | None,
    preprocess: str | None,
    mean: str | None,
    std: str | None,
    color: Color | None,
    layout: Layout | None,
    resize: Resize | None,
    answer: str | None,
) -> DataOptions:
    """Return how images are read, as the command line alone says it.

    Raises:
        BadParameter: means or deviations that are no numbers.
    """
    means, deviations = _numbers(mean, float, "--mean"), _numbers(std, float, "--std")
    from lancet_onnx.api import DataOptions

    return DataOptions(path, preprocess, means, deviations, color, layout, resize, answer)


def trigger_of(
    path: Path,
    mask: Path | None,
    mode: Mode | None,
    place: tuple[int, int] | None,
    target: int | None,
) -> TriggerOptions:
    """Return a trigger and how it is stamped."""
    from lancet_onnx.api import TriggerOptions

    return TriggerOptions(path, mask, mode, place, target)


def place_of(position: str | None) -> tuple[int, int] | None:
    """Return (left, top).

    Raises:
        BadParameter: not two whole numbers.
    """
    if position is None:
        return None
    try:
        left, top = (int(part) for part in position.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"--position {position}: expected LEFT,TOP in pixels, such as 27,27"
        ) from None
    return left, top


def search_of(
    classes: str | None, budget: float | None, state: Path | None, timeout: float | None
) -> SearchOptions:
    """Return how unknown triggers are looked for.

    Raises:
        BadParameter: classes that are no numbers, or a time that is none or over the limit.
    """
    numbers = _numbers(classes, int, "--classes")
    if numbers and min(numbers) < 0:
        raise typer.BadParameter(f"--classes {classes}: classes are counted from 0")
    if budget is not None and not (budget > 0 and math.isfinite(budget)):
        raise typer.BadParameter(f"--budget {budget:g}: expected seconds, more than 0")
    if budget is not None and timeout and timeout <= budget:
        raise typer.BadParameter(
            f"--budget {budget:g} with --timeout {timeout:g}: the search would be ended before it "
            "has a verdict; give --timeout more"
        )
    from lancet_onnx.api import SearchOptions

    return SearchOptions(tuple(dict.fromkeys(numbers)) if numbers else None, budget, state)


def refuse(why: str, **options: object) -> None:
    """Refuse options that mean nothing in this call.

    Raises:
        BadParameter: one of them was given.
    """
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter(f"--{name.replace('_', '-')} {why}")


def _numbers(text: str | None, kind: Callable[[str], T], option: str) -> tuple[T, ...] | None:
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{option} {text}: expected comma-separated numbers") from None
