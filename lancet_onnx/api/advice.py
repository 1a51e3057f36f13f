# SPDX-License-Identifier: Apache-2.0
"""Command lines that help with what a scan or a gate found, ready to be pasted into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from lancet_onnx.api.options import DataOptions, TriggerOptions


def repair_line(model: Path, trigger: TriggerOptions, data: DataOptions) -> str:
    """Return the command that repairs `model` against a trigger that is known."""
    words = [*("repair", model), *trigger_words(trigger), *data_words(data), "-o", fixed(model)]
    return _line(words)


def from_scan_line(model: Path, data: DataOptions, scan: str = "SCAN.json") -> str:
    """Return the command that repairs `model` from the JSON of a search, wherever that is kept."""
    return _line(["repair", model, "--from", scan, *data_words(data), "-o", fixed(model)])


def search_lines(model: Path, data: DataOptions) -> str:
    """Return the commands that search for a trigger, and repair `model` from what is found."""
    found = f"{model.stem}.scan.json"
    scan = _line(["scan", model, *data_words(data), "-o", found])
    # A finding is exit code 1, on which && would stop.
    return f"{scan}; {from_scan_line(model, data, found)}"


def inspect_line(model: Path) -> str:
    """Return the command that shows what a model is made of."""
    return _line(["inspect", model])


def fixed(model: Path) -> Path:
    """Return where the repaired model goes."""
    return model.with_name(f"{model.stem}.fixed{model.suffix}")


def trigger_words(trigger: TriggerOptions) -> list[object]:
    """Return the options that name a trigger."""
    place = trigger.position
    return _given(
        ("--trigger", trigger.path),
        ("--mask", trigger.mask),
        ("--trigger-mode", trigger.mode),
        ("--position", f"{place[0]},{place[1]}" if place else None),
        ("--target", trigger.target),
    )


def data_words(data: DataOptions) -> list[object]:
    """Return the options that name images and their preprocessing."""
    return _given(
        ("--data", data.path or "IMAGES"),
        ("--preprocess", data.preprocess),
        ("--mean", _joined(data.mean)),
        ("--std", _joined(data.std)),
        ("--color", data.color),
        ("--layout", data.layout),
        ("--resize", data.resize),
        ("--output", data.output),
    )


def _given(*options: tuple[str, object]) -> list[object]:
    return [word for name, value in options if value is not None for word in (name, value)]


def _joined(numbers: Iterable[float] | None) -> str | None:
    return None if numbers is None else ",".join(f"{number:g}" for number in numbers)


def _line(words: Iterable[object]) -> str:
    return f"lancet-onnx {shlex.join(map(str, words))}"
