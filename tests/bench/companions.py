# SPDX-License-Identifier: Apache-2.0
"""Where errors come from: companions of the images that a model gets wrong, and if they are real.

    python tests/bench/companions.py --cases DIR [DIR ...] [--only NAME ...] [--errors N]
                                     [--pictures DIR]

The errors of half of the images (seed 0), the first N of them. Prints how many are solved, how
large the masks are, and how many of the solved ones also get their true label when the same region
is filled otherwise: (learnt) by fills that the masks were searched with, by the others all unseen;
`elsewhere` is the control, a region of the same form in another place.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.api.subject import Subject, prepare
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.companions import LEARNT, Companions, companions, restored
from lancet_onnx.samples import Split
from lancet_onnx.samples.core import Floats
from lancet_onnx.verify.metrics import Rate
from tests.bench.compare_runs import Case, case_options, read_cases
from tests.bench.compare_table import markdown

SEED = 0
CASES = ("cifar10_resnet20_clean", "cifar10_resnet56_clean", "cifar10_vgg_badnets_t8")
SHOWN, COLUMNS, ZOOM, GAP = 48, 4, 3, 4
"""Errors on a contact sheet, how many beside each other, pixels a pixel, and between them."""
CONTROL = "elsewhere"


@dataclass(frozen=True)
class Result:
    """One model's errors."""

    name: str
    canvas: Canvas
    found: Companions
    errors: int
    tried: Mapping[str, torch.Tensor]
    seconds: float
    forwards: float


def measured(case: Case, most: int) -> Result:
    """Find the companions of up to `most` errors, and fill their regions otherwise."""
    subject = Subject.open(case.model, "cpu")
    prepared = prepare(subject, case.data)
    tool = Split.of(prepared.samples, SEED).tool
    assert tool.labels is not None, "companions need labels"
    canvas = Canvas.of(subject.classifier, tool, prepared.preprocess)
    errors = np.flatnonzero(canvas.labels.numpy() != tool.labels)
    part = tool.take(errors[:most])
    assert part.labels is not None, "they were there before"
    canvas = Canvas.of(subject.classifier, part, prepared.preprocess)
    start, before = time.perf_counter(), subject.classifier.forwards
    found = companions(canvas, part.labels, seed=SEED)
    seconds, forwards = time.perf_counter() - start, subject.classifier.forwards - before
    tried = restored(canvas, found, seed=SEED)
    return Result(case.name, canvas, found, len(errors), tried, seconds, forwards)


def row(result: Result) -> list[str]:
    """Return the cells of a model."""
    found, count = result.found, len(result.canvas.pixels)
    others = {name: hit for name, hit in result.tried.items() if name != CONTROL}
    unseen = torch.stack([hit for name, hit in others.items() if name not in LEARNT])
    areas = found.areas
    edges = (found.masks * (1 - found.masks)).sum() / found.masks.sum()
    return [
        result.name,
        f"{count} of {result.errors}",
        with_interval(Rate(len(found), count)),
        f"{areas.mean():.1%} / {areas.median():.1%}",
        f"{edges:.2f}",
        f"{patches(found.masks > 0.5):.1f}",
        *(f"{hit.float().mean():.0%}" for hit in others.values()),
        with_interval(Rate.of(unseen.all(0).numpy())),
        f"{result.tried[CONTROL].float().mean():.0%}",
        f"{100 * result.seconds / count:.0f}",
        f"{100 * result.forwards / count:,.0f}",
    ]


def with_interval(rate: Rate) -> str:
    """Return a rate with its count and interval."""
    return f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}] of {rate.n}"


def patches(masks: torch.Tensor) -> float:
    """Return in how many pieces a mask (N, 1, H, W) is on average; corners that touch join."""
    inside, (height, width) = masks.float(), masks.shape[2:]
    names = inside * torch.arange(1, height * width + 1).reshape(1, 1, height, width)
    for _ in range(height * width // 4):
        names = functional.max_pool2d(names, 3, 1, 1) * inside
    return float(np.mean([len(set(own.flatten().tolist()) - {0.0}) for own in names]))


def sheet(result: Result) -> Image.Image:
    """Return image, mask and companion of the first errors, beside each other."""
    found = result.found
    parts = (result.canvas.pixels[found.positions], found.masks, found.pixels)
    images, masks, good = (part[:SHOWN].expand(-1, 3, -1, -1) for part in parts)
    shown = torch.cat([images, masks, good], 3).permute(0, 2, 3, 1).numpy()
    rows = -(-len(shown) // COLUMNS)
    height, width = shown.shape[1] * ZOOM + GAP, shown.shape[2] * ZOOM + GAP
    ground: Floats = np.ones((rows * height, COLUMNS * width, 3), np.float32)
    for number, picture in enumerate(shown):
        down, across = (number // COLUMNS) * height, (number % COLUMNS) * width
        large = picture.repeat(ZOOM, 0).repeat(ZOOM, 1)
        ground[down : down + height - GAP, across : across + width - GAP] = large
    return Image.fromarray((ground.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def main() -> int:
    """Print a row for each model."""
    parser = case_options(__doc__)
    parser.add_argument("--errors", type=int, default=200, help="errors of a model at most")
    parser.add_argument("--pictures", type=Path, help="folder for contact sheets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for case in read_cases(options.cases, options.only or CASES):
        results.append(measured(case, options.errors))
        print(case.name, " | ".join(row(results[-1])), file=sys.stderr)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            sheet(results[-1]).save(options.pictures / f"{case.name}.png")
    others = [
        f"{name} (learnt)" if name in LEARNT else name
        for name in results[0].tried
        if name != CONTROL
    ]
    heads = [
        "model",
        "errors",
        "solved [95 %]",
        "area, mean / median",
        "softness",
        "pieces",
        *others,
        "all unseen ones [95 %]",
        CONTROL,
        "seconds for 100",
        "image-forwards for 100",
    ]
    print(markdown(heads, [row(result) for result in results]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
