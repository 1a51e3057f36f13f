# SPDX-License-Identifier: Apache-2.0
"""What a report says of corrected errors: better, worse, class by class, with examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lancet_onnx.explain import image_png
from lancet_onnx.report import Picture
from lancet_onnx.samples import Samples
from lancet_onnx.samples.core import Ints
from lancet_onnx.verify.metrics import mcnemar

SHOWN = 6
"""Examples of images that got better, and as many that got worse."""


def correction_body(
    before: Ints, after: Ints, true: Ints, classes: Sequence[str]
) -> dict[str, object]:
    """Return what got better and what got worse, in all and for each class among `true`.

    The arguments are (N,) labels: by the unrepaired model, by the repaired one, and the true ones.
    """
    was, now = before == true, after == true
    better, worse = ~was & now, was & ~now
    return {
        "better": int(better.sum()),
        "worse": int(worse.sum()),
        "net": int(better.sum()) - int(worse.sum()),
        "n": len(true),
        "mcnemar_p": mcnemar(int(better.sum()), int(worse.sum())),
        "classes": [
            {
                "class": int(label),
                "name": classes[label] if label < len(classes) else None,
                "n": int(mine.sum()),
                "right_before": int(was[mine].sum()),
                "right_after": int(now[mine].sum()),
                "better": int(better[mine].sum()),
                "worse": int(worse[mine].sum()),
            }
            for label in np.unique(true)
            for mine in [true == label]
        ],
    }


def correction_pictures(samples: Samples, before: Ints, after: Ints) -> tuple[Picture, ...]:
    """Return some images that got better and some that got worse; nothing for raw inputs."""
    if samples.raw or samples.images.ndim != 4 or samples.labels is None:
        return ()
    was, now = before == samples.labels, after == samples.labels
    pictures = []
    for group, hits in (("corrected", ~was & now), ("broken", was & ~now)):
        index = np.flatnonzero(hits)[:SHOWN]
        pixels = samples.take(index).pixels
        pictures += [
            Picture(
                group,
                f"class {samples.labels[i]}: read as {before[i]} before, as {after[i]} now",
                image_png(pixels[row]),
            )
            for row, i in enumerate(index)
        ]
    return tuple(pictures)
