# SPDX-License-Identifier: Apache-2.0
"""What location costs: the published ladder, a forward for each rung, against ours.

    python tests/bench/ladder.py --cases DIR [DIR ...] [--only NAME ...]

The paper zeroes more and more weights of a layer, runs the whole network each time, and does that
for each pair and layer (section 4.2); it takes 100 to 1,000 pairs. We gallop and bisect, run the
network from the layer on only, and take 20 pairs. Both are counted in image-forwards: a suffix
counts by its share of the multiplications. Search is what answers the ladder; location is all of
it, with importance values and what the weights are worth to 200 clean images.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.locate import locate, locate_as_published
from lancet_onnx.locate.ablation import ablate, restorer
from lancet_onnx.pairs import stamped_material
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import Sizes
from tests.bench.compare import find_cases
from tests.bench.compare_runs import Bench, Case, case_options
from tests.bench.compare_table import markdown

PUBLISHED_PAIRS = 100
HEADING = (
    "model",
    "layers",
    "pairs",
    "ladder, image-forwards",
    "our location, same pairs",
    "ratio",
    "our location, 20 pairs",
    "ratio",
    "its search",
    "ratio",
    "of that the last layer",
)


@contextmanager
def counted_rungs() -> Iterator[list[int]]:
    """Count how many pairs are tried on how many rungs of the published ladder."""
    rungs = [0]

    def counting(*args: Any) -> Any:
        ranks, restored = restorer(*args)

        def count(k: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            rungs[0] += len(rows)
            return restored(k, rows)

        return ranks, count

    with mock.patch("lancet_onnx.locate.published.restorer", counting):
        yield rungs


@contextmanager
def counted_searches(classifier: Classifier) -> Iterator[list[float]]:
    """Count the image-forwards of each layer's search."""
    spent: list[float] = []

    def counting(*args: Any) -> Any:
        before = classifier.forwards
        found = ablate(*args)
        spent.append(classifier.forwards - before)
        return found

    with mock.patch("lancet_onnx.locate.locator.ablate", counting):
        yield spent


def row(case: Case) -> tuple[list[str], list[float]]:
    """Locate in one model by both; return the table's cells and the three ratios."""
    bench = Bench.open(case, 0)
    classifier = bench.subject.classifier

    def material(pairs: int) -> Any:
        sizes = Sizes(pairs=pairs)
        arguments = (bench.split.tool, bench.stamp, bench.prepared.preprocess, bench.target)
        return stamped_material(classifier, *arguments, sizes)

    many, few = material(PUBLISHED_PAIRS), material(Sizes().pairs)
    with counted_rungs() as rungs:
        layers = len(locate_as_published(classifier, many).layers)
    spent = []
    for given in (many, few):
        before = classifier.forwards
        with counted_searches(classifier) as searches:
            locate(classifier, given)
        spent.append(classifier.forwards - before)
    spent.append(sum(searches))
    ratios = [rungs[0] / count for count in spent]
    cells = [case.name, str(layers), str(len(many.pairs)), f"{rungs[0]:,}"]
    for count, ratio in zip(spent, ratios, strict=True):
        cells += [f"{count:,.0f}", f"{ratio:.1f}"]
    return [*cells, f"{searches[-1] / sum(searches):.1%}"], ratios


def main() -> int:
    """Print a row a model and the medians of the ratios."""
    parser = case_options(__doc__)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [row(case) for case in find_cases(options.cases, options.only)]
    print(markdown(HEADING, [cells for cells, _ in found]))
    same, used, search = np.median([ratios for _, ratios in found], axis=0)
    print(
        f"\nmedian ratio: {same:.1f} on the same pairs, {used:.1f} as each is used, {search:.1f} "
        "the search alone"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
