# SPDX-License-Identifier: Apache-2.0
"""Lines of `compare.py` -> Markdown: one row a method, and one row a model for one method."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Line = dict[str, Any]

TOOL = ("auto", "as-published", "flip", "mute", "tune")
"""Methods of `repair`; they may decline."""

BASELINES: Mapping[str, str] = {
    "random-flip": "number",
    "random-tune": "trigger, number",
    "layer-tune": "trigger",
    "whole-tune": "trigger",
    "unlearning": "trigger",
    "unlearning-long": "trigger",
    "fine-tune": "blind",
    "ft-sam": "blind",
    "fine-pruning": "blind",
    "clp": "blind, no images",
    "i-bau": "blind",
}
"""What each baseline knows beside the clean images: the trigger, how many weights `auto` changed,
or neither (blind)."""

EXCESS_TARGET, ACCURACY_TARGET = 0.02, -0.01
"""A repair that is asked for leaves at most this much and costs no more than that."""

LARGEST_TRIGGER = 0.17
"""Recovery is averaged over triggers up to this share of the image; larger ones hide the object."""

RESAMPLES = 2_000
_NONE = "-"


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean with its 95 % interval over models, median and worst of one figure."""

    mean: float
    low: float
    high: float
    median: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float], worst: Callable[[Sequence[float]], float]) -> Summary:
        """Summarise; the interval is a bootstrap over models, seeded."""
        array = np.asarray(values, np.float64)
        drawn = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
        low, high = np.percentile(array[drawn].mean(1), [2.5, 97.5])
        median = float(np.median(array))
        return cls(float(array.mean()), float(low), float(high), median, worst(values))

    def points(self, sign: str) -> str:
        """Return the cell, in points."""
        mean, low, high, median, worst = (
            f"{_whole(100 * v):{sign}.1f}"
            for v in (self.mean, self.low, self.high, self.median, self.worst)
        )
        return f"{mean} [{low}, {high}] / {median} / {worst}"


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a results file; none if it is not there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def by_method(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Return the lines that hold figures, by method, in the order of the tables."""
    good = [line for line in lines if "error" not in line]
    groups = {m: [line for line in good if line["method"] == m] for m in (*TOOL, *BASELINES)}
    return {method: found for method, found in groups.items() if found}


def meets_both(line: Line) -> bool:
    """Return whether a repaired model meets both targets."""
    return bool(
        line["excess"] <= EXCESS_TARGET + 1e-9 and line["accuracy_change"] >= ACCURACY_TARGET - 1e-9
    )


def tables(lines: Sequence[Line]) -> str:
    """Return the tables of all methods: figures, cost, and what the tool's methods decline."""
    groups = by_method(lines)
    return "\n\n".join(
        part
        for part in (_figures(groups), _cost(groups), _declined(groups), _errors(lines))
        if part
    )


def _figures(groups: Mapping[str, Sequence[Line]]) -> str:
    heading = (
        "method",
        "knows",
        "models",
        "attack success - base rate, points: mean [95 %] / median / worst",
        "accuracy change, points: mean [95 %] / median / worst",
        f"recovery (triggers to {LARGEST_TRIGGER - 0.01:.0%}), %: mean [95 %] / median / worst",
        "both targets",
    )
    rows = []
    for method, lines in groups.items():
        small = [n["recovery"] for n in lines if n["trigger_share"] <= LARGEST_TRIGGER]
        met = sum(map(meets_both, lines))
        rows.append(
            (
                f"**{method}**" if method in TOOL else method,
                BASELINES.get(method, "trigger"),
                str(len(lines)),
                Summary.of([n["excess"] for n in lines], max).points("+"),
                Summary.of([n["accuracy_change"] for n in lines], min).points("+"),
                Summary.of(small, min).points("") if small else _NONE,
                f"{met} of {len(lines)}",
            )
        )
    told = (
        f"Both targets: attack success at most {100 * EXCESS_TARGET:.0f} points over the base "
        f"rate, accuracy at most {-100 * ACCURACY_TARGET:.0f} point lower. Intervals are "
        "over models."
    )
    return f"{markdown(heading, rows)}\n\n{told}"


def _cost(groups: Mapping[str, Sequence[Line]]) -> str:
    heading = (
        "method",
        "weights changed, median (share)",
        "seconds, median",
        "image-forwards, median",
    )
    rows = []
    for method, lines in groups.items():
        changed = [n["weights_changed"] for n in lines]
        share = [n["weights_changed"] / n["weights_total"] for n in lines]
        rows.append(
            (
                method,
                f"{np.median(changed):,.0f} ({np.median(share):.2%})",
                f"{np.median([n['seconds'] for n in lines]):.1f}",
                f"{np.median([n['image_forwards'] for n in lines]):,.0f}",
            )
        )
    return markdown(heading, rows)


def _declined(groups: Mapping[str, Sequence[Line]]) -> str:
    heading = ("method", "models", "declined", "accepted", "accepted that miss a target")
    rows = []
    for method, lines in groups.items():
        if method in TOOL:
            accepted = [line for line in lines if line["verdict"] == "repaired"]
            bad = sum(not meets_both(line) for line in accepted)
            declined = len(lines) - len(accepted)
            rows.append((method, *map(str, (len(lines), declined, len(accepted), bad))))
    return markdown(heading, rows) if rows else ""


def _errors(lines: Sequence[Line]) -> str:
    failed = [line for line in lines if "error" in line]
    told = [f"- {line['model']}, {line['method']}: {line['error']}" for line in failed]
    return "\n".join(["Failed:", "", *told]) if told else ""


def per_model(lines: Sequence[Line], method: str) -> str:
    """Return the table of one method, a row a model."""
    heading = (
        "model",
        "trigger, share of the image",
        "verdict",
        "attack success before",
        "after [95 %] of n",
        "base rate",
        "clean accuracy",
        "recovery",
        "weights changed",
        "seconds / image-forwards",
    )
    rows = []
    for line in by_method(lines).get(method, []):
        low, high = line["intervals"]["attack_success"]
        counts = line["counts"]
        attack, judged = (counts[name][1] for name in ("attack_success", "clean_accuracy"))
        before, after = line["accuracy_before"], line["accuracy_after"]
        rows.append(
            (
                line["model"],
                f"{line['trigger_share']:.1%}",
                line["verdict"],
                f"{line['attack_before']:.1%}",
                f"{line['attack_success']:.1%} [{low:.1%}, {high:.1%}] of {attack}",
                f"{line['base_rate']:.1%}",
                f"{before:.1%} -> {after:.1%} of {judged}",
                f"{line['recovery']:.1%}",
                f"{line['weights_changed']:,}",
                f"{line['seconds']:.1f} / {line['image_forwards']:,}",
            )
        )
    return markdown(heading, sorted(rows))


def markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _whole(value: float) -> float:
    """Return the value rounded as it is shown, so that nothing shows as -0.0."""
    rounded = round(value, 1)
    return 0.0 if math.isclose(rounded, 0.0) else rounded
