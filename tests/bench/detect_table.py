# SPDX-License-Identifier: Apache-2.0
"""Lines of `detect.py` -> Markdown: how well each method tells backdoored models from clean ones.

Backdoors of one class into another, and those without one target, ask for something else than the
others: they have columns of their own and count in no overall figure.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lancet_onnx.verify.metrics import Rate
from tests.bench.compare_table import RESAMPLES, Line, markdown

TOOL = "ours"
METHODS = (TOOL, "neural-cleanse", "tabor", "sign-gradient", "maximum-margin")

GROUPS: Mapping[str, str] = {
    "small": "one patch, to 8 %",
    "several": "several patches",
    "large": "one patch, 15 to 33 %",
    "scattered": "scattered, blended",
    "faint": "whole image, faint",
    "neurons": "important neurons, spread",
    "source-specific": "source-specific (apart)",
    "all-to-all": "all-to-all (apart)",
}
APART = ("source-specific", "all-to-all")

SPLITS = ("tune", "report", "shared zoo", "shared cases")
WHOLE = 0.9
"""Share from which on a trigger is said to change the whole image."""
LARGE = 0.1
"""Share of the image from which on a patch is large; there is none between 8 and 15 %."""

_NONE = "-"


def in_matrix(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry of a cases.json is one of the zoo's, as fixtures/zoo.py writes it."""
    return "poison_rate" in entry


def split_of(entry: Mapping[str, Any], folder: str) -> str:
    """Return which part of the figures a model belongs to: half of the zoo, or shared folder.

    The zoo's models are halved by their names; settings were tuned on one half only.
    """
    if in_matrix(entry):
        return "report" if zlib.crc32(str(entry["name"]).encode()) % 2 else "tune"
    return f"shared {folder}"


def group_of(attack: str | None, kind: str | None, mode: str, share: float) -> str:
    """Return the group of a trigger: by the attack, or else by what it looks like."""
    if attack in APART:
        return attack
    if attack in ("important-neurons", "spread"):
        return "neurons"
    if share > WHOLE:
        return "faint"
    if mode == "blend":
        return "scattered"
    if kind and kind[0].isdigit():
        return "several"
    return "large" if share > LARGE else "small"


def area(backdoored: Sequence[float], clean: Sequence[float]) -> float:
    """Return the area under the ROC: how often a backdoored model scores higher; ties are half."""
    return float(_wins(backdoored, clean).mean()) if backdoored and clean else float("nan")


def area_interval(backdoored: Sequence[float], clean: Sequence[float]) -> tuple[float, float]:
    """Return the area's 95 % interval: a seeded bootstrap over the models of either kind."""
    wins, rng = _wins(backdoored, clean), np.random.default_rng(0)
    draws = [
        rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in (len(backdoored), len(clean))
    ]
    areas = np.einsum("ri,ij,rj->r", draws[0], wins, draws[1])
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(low), float(high)


def tables(lines: Sequence[Line]) -> str:
    """Return two tables for each part of the models and for all: overall, and by trigger."""
    good = [line for line in lines if "error" not in line]
    parts = [(split, [line for line in good if line["split"] == split]) for split in SPLITS]
    sections = [
        "\n\n".join(filter(None, (f"### {name}", _overall(found), _by_group(found))))
        for name, found in [*parts, ("all", good)]
        if found
    ]
    told = (
        "AUC: area under the ROC with its 95 % interval (bootstrap over models). Found, false "
        "alarms: models flagged at the method's own threshold, with Wilson's 95 % interval. "
        "By trigger: found, and AUC against all clean models."
    )
    missed = [
        f"- `{n['model']}`: {n['verdict']}, score {n['score']:.2f}, suspect {n['suspect']}, "
        f"target {n['target']}"
        for n in good
        if n["method"] == TOOL and n["backdoored"] and not n["flagged"] and n["group"] not in APART
    ]
    lists = ["\n".join([f"Missed by **{TOOL}**:", "", *missed])] if missed else []
    failed = [f"- {n['model']} ({n['split']}), {n['method']}: {n['error']}" for n in lines
              if "error" in n]  # fmt: skip
    lists += ["\n".join(["Failed:", "", *failed])] if failed else []
    return "\n\n".join([*sections, told, *lists])


def _overall(lines: Sequence[Line]) -> str:
    heading = (
        "method",
        "backdoored + clean models",
        "AUC [95 %]",
        "found",
        "false alarms",
        "inconclusive",
        "right class when found",
        "image-forwards, median",
        "seconds, median",
    )
    rows = []
    for method, found in _by_method(lines):
        bad = [n for n in found if n["backdoored"] and n["group"] not in APART]
        clean = [n for n in found if not n["backdoored"]]
        hits = [n for n in bad if n["flagged"] and n["target"] is not None]
        unsure = sum(n["verdict"] == "inconclusive" for n in [*bad, *clean])
        rows.append(
            (
                f"**{method}**" if method == TOOL else method,
                f"{len(bad)} + {len(clean)}",
                _area_cell(_scores(bad), _scores(clean)),
                _rate(n["flagged"] for n in bad),
                _rate(n["flagged"] for n in clean),
                str(unsure) if method == TOOL else _NONE,
                f"{sum(n['suspect'] == n['target'] for n in hits)} of {len(hits)}",
                f"{np.median([n['image_forwards'] for n in found]):,.0f}",
                f"{np.median([n['seconds'] for n in found]):.1f}",
            )
        )
    return markdown(heading, rows)


def _by_group(lines: Sequence[Line]) -> str:
    present = [g for g in GROUPS if any(n["group"] == g for n in lines)]
    rows = []
    for method, found in _by_method(lines):
        clean = _scores(n for n in found if not n["backdoored"])
        cells = []
        for group in present:
            bad = [n for n in found if n["group"] == group]
            value = area(_scores(bad), clean)
            shown = _NONE if np.isnan(value) else f"{value:.2f}"
            cells.append(f"{sum(n['flagged'] for n in bad)} of {len(bad)}; {shown}")
        rows.append((f"**{method}**" if method == TOOL else method, *cells))
    return markdown(("method", *(GROUPS[g] for g in present)), rows) if present else ""


def _by_method(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    groups = [(m, [line for line in lines if line["method"] == m]) for m in METHODS]
    return [(method, found) for method, found in groups if found]


def _scores(lines: Iterable[Line]) -> list[float]:
    return [float(line["score"]) for line in lines]


def _area_cell(bad: Sequence[float], clean: Sequence[float]) -> str:
    if not bad or not clean:
        return _NONE
    low, high = area_interval(bad, clean)
    return f"{area(bad, clean):.2f} [{low:.2f}, {high:.2f}]"


def _rate(flags: Iterable[bool]) -> str:
    rate = Rate.of(np.array(list(flags), bool))
    if not rate.n:
        return _NONE
    return f"{rate.count} of {rate.n} [{100 * rate.low:.0f}, {100 * rate.high:.0f}] %"


def _wins(backdoored: Sequence[float], clean: Sequence[float]) -> np.ndarray[Any, Any]:
    one, two = np.asarray(backdoored)[:, None], np.asarray(clean)[None]
    wins: np.ndarray[Any, Any] = (one > two) + 0.5 * (one == two)
    return wins
