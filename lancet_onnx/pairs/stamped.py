# SPDX-License-Identifier: Apache-2.0
"""Pairs from a known trigger: x' is a clean image, x the same image with the trigger on it."""

from __future__ import annotations

import numpy as np

from lancet_onnx.errors import DataError
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import Material, Pairs, Preprocess, Samples, Sizes
from lancet_onnx.samples.core import Ints
from lancet_onnx.trigger import Trigger


def stamped_material(
    classifier: Classifier,
    samples: Samples,
    trigger: Trigger,
    preprocess: Preprocess,
    target: int,
    sizes: Sizes | None = None,
) -> Material:
    """Choose pairs, stop set and guard from `samples` (the tool's half; already shuffled).

    A clean image serves as x' when the model gets it right (without labels: whatever the model
    says is taken for right) and it is not of the target class; it serves as a locating pair when
    the trigger moves it to the target.

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
    moved = np.flatnonzero(usable & (after == target))
    if len(moved) < 4:
        raise DataError(
            f"{samples.source}: the trigger moves only {len(moved)} of {int(usable.sum())} usable "
            f"images to class {target}; at least 4 are needed to locate weights. Give more images, "
            "or check the trigger, its position and the preprocessing"
        )
    located = moved[: min(sizes.pairs, max(4, len(moved) // 4))]
    stop = np.setdiff1d(np.flatnonzero(usable), located, assume_unique=True)[: sizes.stop]
    # The guard must look like the data (the target's own images are what a clumsy repair loses),
    # so it is a plain random sample and shares clean images with the stop pairs.
    guard = np.arange(len(samples))[: sizes.guard]

    def pairs(index: Ints) -> Pairs:
        wrong = np.full(len(index), target, np.int64)
        return Pairs(bad[index], good[index], wrong, right[index].astype(np.int64))

    labels = None if samples.labels is None else samples.labels[guard]
    return Material(pairs(located), pairs(stop), good[guard], labels)
