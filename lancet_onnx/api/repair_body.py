# SPDX-License-Identifier: Apache-2.0
"""What a report and a patch say of a repair's edit."""

from __future__ import annotations

from collections.abc import Mapping

from lancet_onnx.api.subject import Subject
from lancet_onnx.patch import Patch
from lancet_onnx.repair import (
    CHOICE,
    PRUNING,
    SEARCH,
    TRAINING,
    Choice,
    Settings,
    TuneSettings,
)
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.samples import Material
from lancet_onnx.verify.metrics import Rate


def describe_edit(
    made: Settings | TuneSettings, material: Material, *, compared: bool
) -> tuple[str, ...]:
    """Name how an edit was made, with all parameters and how many images served which purpose.

    With `compared` it was taken from several.
    """
    ways = (SEARCH,) if isinstance(made, Settings) else (TRAINING, PRUNING)
    images = (
        f"images(pairs={len(material.pairs)}, stop={len(material.stop)}, "
        f"lessons={len(material.lessons)}, check={len(material.check)}, "
        f"guard={len(material.guard)}, labelled={material.guard_labels is not None})"
    )
    return (str(made), *ways, *((CHOICE,) if compared else ()), images)


def changed_layers(subject: Subject, patch: Patch | None) -> list[dict[str, object]]:
    """Return what the patch changes where: an initializer an entry, a bias under its layer."""
    layers = find_layers(subject.classifier)
    biases = {layer.bias.param: layer.node.name for layer in layers if layer.bias is not None}
    nodes = {**biases, **{layer.param: layer.node.name for layer in layers}}
    leaves = subject.classifier.module.leaves
    return [
        {
            "node": nodes[delta.param],
            "initializer": delta.param,
            "weights_changed": delta.count,
            "share": round(delta.count / leaves[delta.param].numel(), 6),
        }
        for delta in (patch.deltas if patch else ())
    ]


def search_table(choice: Choice | None, material: Material | None) -> dict[str, object]:
    """Return the edits that were compared and the images that served for it."""
    if choice is None or material is None:
        return {"reached": False, "candidates": []}
    return {
        "pairs": len(material.pairs),
        "stop_pairs": len(material.stop),
        "guard_images": len(material.guard),
        "lessons": len(material.lessons),
        "check_pairs": len(material.check),
        "loss_measured_as": "agreement" if material.guard_labels is None else "accuracy",
        "reached": choice.reached,
        "candidates": [
            {
                "method": j.offer.method,
                "nodes": list(j.offer.nodes),
                "order": j.offer.how,
                "weights": j.offer.weights,
                "share": round(j.offer.share, 6),
                "excess": round(j.excess, 6),
                "loss": round(j.loss, 6),
                "regret": round(j.regret, 6),
                "agreement": round(j.agreement, 6),
                "recovery": round(j.recovery, 6),
                "chosen": j is choice.chosen,
            }
            for j in choice.judged
        ],
    }


def flat_metrics(before: Mapping[str, Rate], after: Mapping[str, Rate]) -> dict[str, float]:
    """Return the figures before and after under names of their own, as a patch keeps them."""
    return {
        f"{when}.{name}": rate.value
        for when, figures in (("before", before), ("after", after))
        for name, rate in figures.items()
        if rate.n
    }
