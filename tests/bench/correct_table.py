# SPDX-License-Identifier: Apache-2.0
"""Tables of what `tests/bench/correct.py` measured.

    python tests/bench/correct_table.py FILE [FILE ...]

First each method at the rate and the part of the way that do best on images set aside. Then the
most errors corrected at equal regression, over all rates and parts, by the reported images
themselves: too good as a figure, but as much so for each method.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.verify.metrics import Rate, mcnemar
from tests.bench.compare_table import markdown

Line = dict[str, Any]
LEVELS = (0.005, 0.01, 0.02)
"""Shares of the right images that may get worse."""


def chosen(lines: Iterable[Line]) -> tuple[Line, str]:
    """Return the line and the part of the way with the best net gain on images set aside."""
    every = [(line, part) for line in lines for part in line["parts"]]
    return max(every, key=lambda one: _net(one[0]["parts"][one[1]]["aside"]))


def row(method: str, lines: Sequence[Line]) -> list[str]:
    """Return the cells of a method."""
    line, part = chosen(lines)
    figures = line["parts"][part]["figures"]
    better, worse = figures["better"], figures["worse"]
    repaired, broken = Rate(better, figures["wrong"]), Rate(worse, figures["n"] - figures["wrong"])
    return [
        method,
        f"{line['rate']:g}, {part}",
        f"{line['changed']} ({line['changed'] / line['weights']:.1%})",
        f"{repaired.value:.1%} [{repaired.low:.0%}, {repaired.high:.0%}] of {repaired.n}",
        _share(figures["like_paper"]),
        _share(figures["named"]),
        f"{broken.value:.1%} of {broken.n}",
        f"{100 * _net(figures) / figures['n']:+.2f}",
        f"{mcnemar(better, worse):.2g}",
    ]


def at_equal(lines: Iterable[Line], level: float, what: str) -> str:
    """Return the largest share of errors corrected with no more than `level` regression."""
    best = Rate(0, 0)
    for line in lines:
        for part in line["parts"].values():
            figures = part["figures"]
            if figures["worse"] > level * (figures["n"] - figures["wrong"]):
                continue
            counts = [figures["better"], figures["wrong"]] if what == "all" else figures[what]
            best = max(best, Rate(*counts), key=lambda rate: rate.value if rate.n else -1.0)
    return f"{best.value:.0%}" if best.n else "-"


def main() -> int:
    """Print two tables for each model."""
    lines = [
        json.loads(text)
        for name in sys.argv[1:]
        for text in Path(name).read_text().split("\n")
        if text
    ]
    for case in dict.fromkeys(line["case"] for line in lines):
        mine = [line for line in lines if line["case"] == case]
        methods = list(dict.fromkeys(line["method"] for line in mine))
        of = {name: [line for line in mine if line["method"] == name] for name in methods}
        print(f"\n{case}\n")
        heading = ["method", "rate, part", "weights changed", "errors corrected [95 %]",
                   "similar, as in the paper", "similar by labels", "right ones broken",
                   "net, points", "McNemar's p"]  # fmt: skip
        print(markdown(heading, [row(name, own) for name, own in of.items()]))
        print()
        heading = ["method"] + [f"{what}, {level:.1%} broken" for what in ("all", "like_paper")
                                for level in LEVELS]  # fmt: skip
        rows = [
            [name] + [at_equal(own, level, w) for w in ("all", "like_paper") for level in LEVELS]
            for name, own in of.items()
        ]
        print(markdown(heading, rows))
    return 0


def _net(counts: Line) -> int:
    return int(counts["better"]) - int(counts["worse"])


def _share(counts: Sequence[int]) -> str:
    return f"{Rate(*counts).value:.0%} of {counts[1]}" if counts[1] else "-"


if __name__ == "__main__":
    sys.exit(main())
