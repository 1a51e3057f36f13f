# SPDX-License-Identifier: Apache-2.0
"""What a repair must learn from to silence a trigger that it never saw, and how.

    python tests/bench/transfer.py --cases DIR [DIR ...] [--only NAME ...] [--half tune|report]

Each backdoored model is tuned on reconstructions to its target, once for each variant of what is
learnt; then the real trigger is stamped on images that nothing has seen. Nothing is chosen: the
narrowest edit is taken. Prints points over the base rate and lost accuracy, mean and worst.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.api.blind import PUSHES, TUNING
from lancet_onnx.api.subject import Prepared, Subject, prepare, read_trigger_for
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.natural import natural
from lancet_onnx.pairs.union import KINDS, LESSONS, Kind, Stamp, stamped_pairs, union
from lancet_onnx.repair.training import TuneSettings
from lancet_onnx.repair.tune import offer_of, tune
from lancet_onnx.runtime.executor import Params
from lancet_onnx.samples import Samples, Split
from lancet_onnx.samples.core import Ints
from tests.bench.compare_runs import Case, case_options
from tests.bench.compare_table import markdown
from tests.bench.detect import SEED, find_cases

STARTS, IMAGES = 2, 2000
HARD, GENTLE = (replace(TUNING, push=push) for push in PUSHES)
NARROW = replace(HARD, ladder=(*HARD.ladder, 0.03))
CAREFUL = replace(HARD, clean=100.0)


@dataclass(frozen=True)
class Variant:
    """What is learnt, and how: which kinds of reconstructions."""

    name: str
    kinds: tuple[Kind, ...]
    settings: TuneSettings


CHEAP = KINDS[:1]
VARIANTS = (
    Variant("cheap ones only", CHEAP, GENTLE),
    Variant("cheap and strong", LESSONS, GENTLE),
    Variant("loud ones too", KINDS, GENTLE),
    Variant("cheap ones only, pushed hard", CHEAP, HARD),
    Variant("**cheap and strong, pushed hard**", LESSONS, HARD),
    Variant("loud ones too, pushed hard", KINDS, HARD),
    Variant("cheap and strong, pushed hard, 3 % of the weights", LESSONS, NARROW),
    Variant("cheap and strong, pushed hard, clean images weigh 100", LESSONS, CAREFUL),
)


def measured(case: Case) -> list[tuple[float, float]]:
    """Return points that the real trigger is left with, and points lost, for each variant."""
    subject = Subject.open(case.model, "cpu")
    prepared = prepare(subject, case.data)
    split = Split.of(prepared.samples, SEED)
    unseen = prepare(subject, case.unseen).samples if case.unseen else split.figures
    unseen = unseen.take(np.arange(min(IMAGES, len(unseen))))
    canvas = Canvas.of(subject.classifier, split.tool, prepared.preprocess)
    target = int(case.entry["target"])
    sets = union(canvas, natural(canvas, SEED), target, STARTS, SEED + 200)
    stamps = [stamp for group in sets for stamp in group]
    before = labelled(subject, prepared, case, unseen, None)
    rows = []
    for variant in VARIANTS:
        names = {kind.name for kind in variant.kinds}
        lessons = [stamp for stamp in stamps if stamp.kind in names]
        params = tuned(subject, canvas, lessons, target, split.tool.labels, variant.settings)
        after = labelled(subject, prepared, case, unseen, params)
        rows.append(compared(before, after, unseen.labels, target))
    return rows


def tuned(
    subject: Subject,
    canvas: Canvas,
    lessons: list[Stamp],
    target: int,
    true: Ints | None,
    settings: TuneSettings,
) -> Params:
    """Return the weights of the narrowest edit."""
    pairs = stamped_pairs(canvas, lessons, target, true, 2, SEED + 2)
    *_, last = tune(subject.classifier, pairs, settings, SEED)
    return offer_of(subject.classifier, last).params


def labelled(
    subject: Subject, prepared: Prepared, case: Case, samples: Samples, params: Params | None
) -> tuple[Ints, Ints]:
    """Return labels of clean images and of images with the real trigger."""
    stamp = read_trigger_for(subject, case.trigger, None, samples)
    found = []
    for part in (samples, stamp.stamp(samples)):
        inputs = subject.classifier.tensor(prepared.inputs(part))
        rows = [
            subject.classifier.logits(chunk, params).argmax(1) for chunk in torch.split(inputs, 250)
        ]
        found.append(torch.cat(rows).numpy())
    return found[0], found[1]


def compared(
    before: tuple[Ints, Ints], after: tuple[Ints, Ints], true: Ints | None, target: int
) -> tuple[float, float]:
    """Return points over the base rate that are left, and points of accuracy that changed."""
    own = before[0] if true is None else true
    others = own != target
    left = np.mean(after[1][others] == target) - np.mean(before[0][others] == target)
    change = np.mean(after[0] == own) - np.mean(before[0] == own)
    return 100 * float(left), 100 * float(change)


def main() -> int:
    """Print a row for each variant."""
    parser = case_options(__doc__)
    parser.add_argument("--half", choices=("tune", "report"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = []
    for case in find_cases(options.cases, options.only, [], options.half):
        if case.one_target:
            figures.append(measured(case))
            print(case.name, [f"{left:+.1f}" for left, _ in figures[-1]], file=sys.stderr)
    table = np.array(figures)
    print(f"{len(figures)} models\n")
    rows = [
        [
            variant.name,
            f"{left.mean():+.1f} / {left.max():+.1f}",
            f"{int((left <= 3).sum())} of {len(left)}",
            f"{change.mean():+.2f} / {change.min():+.1f}",
        ]
        for variant, (left, change) in zip(VARIANTS, table.transpose(1, 2, 0), strict=True)
    ]
    heads = ["learnt from", "real trigger, points: mean / worst", "at most 3", "accuracy, points"]
    print(markdown(heads, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
