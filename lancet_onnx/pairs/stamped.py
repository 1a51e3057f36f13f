# SPDX-License-Identifier: Apache-2.0
"""Pairs from a known trigger: x' is a clean image, x the same image with the trigger on it."""

from __future__ import annotations

import numpy as np

from lancet_onnx.errors import DataError
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import Material, Pairs, Preprocess, Samples, Sizes
from lancet_onnx.samples.core import Ints
from lancet_onnx.trigger import Trigger

FEWEST_TO_SPLIT = 40
"""With fewer images than this, edits are chosen on the images that they were made from."""


def stamped_material(
    classifier: Classifier,
    samples: Samples,
    trigger: Trigger,
    preprocess: Preprocess,
    target: int,
    sizes: Sizes | None = None,
    *,
    aside: bool = False,
) -> Material:
    """Choose pairs, stop set and guard from `samples` (the tool's half; already shuffled).

    A clean image serves as x' when the model gets it right (without labels: whatever the model
    says is taken for right) and it is not of the target class; it serves as a locating pair when
    the trigger moves it to the target. With `aside` a quarter of the images serves only to compare
    edits.

    Raises:
        DataError: the trigger moves too few images for a location.
    """
    sizes = sizes or Sizes()
    good = preprocess.apply(samples.pixels)
    bad = preprocess.apply(trigger.stamp(samples).pixels)
    before = classifier.logits(classifier.tensor(good)).argmax(1).cpu().numpy()
    after = classifier.logits(classifier.tensor(bad)).argmax(1).cpu().numpy()
    right = before if samples.labels is None else samples.labels
    usable = (before == right) & (right != target)
    moved = usable & (after == target)
    if moved.sum() < 4:
        raise DataError(
            f"{samples.source}: the trigger moves only {int(moved.sum())} of {int(usable.sum())} "
            f"usable images to class {target}; at least 4 are needed to locate weights. Give more "
            "images, or check the trigger, its position and the preprocessing"
        )
    # Of few images all are needed for both purposes: a choice by four of them would be worse.
    apart = len(samples) // 4 if aside and len(samples) >= FEWEST_TO_SPLIT else 0
    work = np.arange(len(samples)) >= apart
    located = np.flatnonzero(moved & work)[: min(sizes.pairs, max(4, int(moved.sum()) // 4))]
    usable &= work
    stop = np.setdiff1d(np.flatnonzero(usable), located, assume_unique=True)[: sizes.stop]
    # The guard must look like the data (the target's own images are what a clumsy repair loses),
    # so it is a plain random sample and shares clean images with the stop pairs.
    guard = np.arange(apart, len(samples))[: sizes.guard]

    def pairs(index: Ints | slice) -> Pairs:
        wrong = np.full(len(right[index]), target, np.int64)
        return Pairs(bad[index], good[index], wrong, right[index].astype(np.int64))

    labels = None if samples.labels is None else samples.labels[guard]
    lessons = pairs(slice(apart, apart + sizes.guard))
    # As many that are learnt from beside them: half the noise, and what over-fits still shows.
    check = pairs(slice(apart)).join(lessons.take(slice(apart))) if apart else lessons
    return Material(pairs(located), pairs(stop), lessons, check, good[guard], labels)
