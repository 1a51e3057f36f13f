# SPDX-License-Identifier: Apache-2.0
"""What real triggers do that the search relies on: on changed images, and inside the model.

    python tests/bench/planted.py --cases DIR [DIR ...] [--only NAME ...]

For every backdoored model with one target: the share of images that the real trigger moves to it,
by the change that was made to the images before stamping; and the cosine between what the trigger
does to the values where alikeness is measured and the way to the class, for each of the values.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.api.subject import Subject, prepare, read_trigger_for
from lancet_onnx.pairs.canvas import CHANGES, Canvas
from lancet_onnx.pairs.natural import natural
from lancet_onnx.samples import Split
from tests.bench.compare import find_cases
from tests.bench.compare_runs import Case, case_options
from tests.bench.compare_table import markdown

IMAGES = 200


def looked_at(case: Case) -> tuple[list[float], list[float]]:
    """Return the success by change, and the cosines by value, of one model's real trigger."""
    subject = Subject.open(case.model, "cpu")
    prepared = prepare(subject, case.data)
    stamp = read_trigger_for(subject, case.trigger, None, prepared.samples)
    tool = Split.of(prepared.samples, 0).tool
    canvas = Canvas.of(
        subject.classifier, tool.take(np.arange(min(IMAGES, len(tool)))), prepared.preprocess
    )
    target, usual = int(case.entry["target"]), natural(canvas, 0)
    draw = torch.Generator().manual_seed(0)
    mask, pattern = (
        torch.from_numpy(part.transpose(2, 0, 1)) for part in (stamp.mask, stamp.pattern)
    )

    def stamped(images: torch.Tensor) -> torch.Tensor:
        if stamp.mode == "add":
            return (images + mask * pattern).clamp(0, 1)
        return images * (1 - mask) + pattern * mask

    success = []
    for number in range(len(CHANGES)):
        images = canvas.changed(canvas.pixels, number, draw)
        labels = torch.cat([canvas.logits(stamped(p)) for p in torch.split(images, 100)]).argmax(1)
        success.append(float((labels == target).float().mean()))
    with torch.no_grad():
        clean = canvas.run(canvas.pixels, usual.values)
        after = canvas.run(stamped(canvas.pixels), usual.values)
    others = canvas.labels != target
    cosines = [
        float(functional.cosine_similarity((a - b)[others].mean(0), way[target], 0))
        for a, b, way in zip(after, clean, usual.way, strict=True)
    ]
    return success, cosines


def main() -> int:
    """Print both tables."""
    parser = case_options(__doc__)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [looked_at(case) for case in find_cases(options.cases, options.only)]
    success = np.array([row for row, _ in found])
    columns = zip(CHANGES, success.mean(0), success.min(0), strict=True)
    rows = [[name, f"{mean:.1%}", f"{least:.1%}"] for name, mean, least in columns]
    print(f"{len(found)} models\n")
    print(markdown(["images", "real trigger moves, mean", "least"], rows))
    cosines = np.array([value for _, values in found for value in values])
    parts = np.percentile(cosines, [5, 25, 50, 75, 95])
    print("\nCosine, percentiles 5, 25, 50, 75, 95: " + ", ".join(f"{v:.2f}" for v in parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
