# SPDX-License-Identifier: Apache-2.0
"""What reports of several commands say of model, data, triggers and located weights."""

from __future__ import annotations

import numpy as np

from lancet_onnx.api.subject import Prepared, Subject
from lancet_onnx.explain import pair_png, trigger_png
from lancet_onnx.report import Picture
from lancet_onnx.runtime.reach import unreached
from lancet_onnx.samples import Samples, Split
from lancet_onnx.samples.core import Floats
from lancet_onnx.scores import Location
from lancet_onnx.trigger import Trigger
from lancet_onnx.types import Digest
from lancet_onnx.verify.metrics import Labels

PICTURES = 6


def located(location: Location | None) -> list[dict[str, object]]:
    """Return the JSON form of what was located, layer by layer."""
    if location is None:
        return []
    best = location.best
    return [
        {
            "node": layer.node,
            "initializer": layer.param,
            "weights": layer.weights,
            "share": round(layer.share, 6),
            "pairs_located": layer.pairs_located,
            "pairs": layer.pairs,
            "chosen": layer is best,
        }
        for layer in location.layers
    ]


def describe_model(subject: Subject) -> dict[str, object]:
    """Return path and digest of the model."""
    return {"path": str(subject.model.path), "sha256": str(subject.model.digest)}


def describe_trigger(trigger: Trigger) -> dict[str, object]:
    """Return what is reported of a trigger."""
    return {
        "path": trigger.source,
        "mode": trigger.mode,
        "coverage": round(trigger.coverage, 6),
    }


def unreached_weights(subject: Subject, inputs: Floats) -> dict[str, str]:
    """Return the weights that no gradient reaches from these inputs, and why."""
    classifier = subject.classifier
    found = unreached(classifier, classifier.tensor(inputs))
    return {entry.param: entry.reason for entry in found}


def data_digest(samples: Samples) -> str:
    """Return a digest of images and labels, by which a later `verify` knows them again.

    Labels are in it because the split into halves goes by them.
    """
    labels = b"" if samples.labels is None else samples.labels.tobytes()
    return str(Digest.of(samples.images.tobytes() + labels))


def describe_data(prepared: Prepared, split: Split) -> dict[str, object]:
    """Return how many images served the tool, and how many the figures."""
    return {
        "path": prepared.samples.source,
        "sha256": data_digest(prepared.samples),
        "images": len(prepared.samples),
        "left_out": prepared.samples.left_out,
        "labelled": prepared.samples.labels is not None,
        "preprocess": str(prepared.preprocess),
        "tool_images": len(split.tool),
        "figures_images": len(split.figures),
        "split": f"halved at random, class by class, seed {split.seed}",
    }


def trigger_pictures(trigger: Trigger, samples: Samples, labels: Labels) -> tuple[Picture, ...]:
    """Return the trigger, and some images without and with it; nothing for raw inputs."""
    if samples.raw or trigger.pattern.ndim != 3:
        return ()
    # Images that the trigger moves tell most; the others follow where there are too few.
    moved = labels.clean != labels.triggered
    index = np.argsort(~moved, kind="stable")[:PICTURES]
    shown = samples.take(index)
    clean, stamped = shown.pixels, trigger.stamp(shown).pixels
    pairs = [
        Picture(
            "pairs",
            f"read as {labels.clean[i]} without the trigger, "
            f"as {labels.triggered[i] if labels.triggered is not None else '?'} with it",
            pair_png(clean[row], stamped[row]),
        )
        for row, i in enumerate(index)
    ]
    return (Picture("trigger", f"the trigger ({trigger.mode})", trigger_png(trigger)), *pairs)
