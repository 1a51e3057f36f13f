# SPDX-License-Identifier: Apache-2.0
"""What a repair of honest errors learns from: images, labels, and what must stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from lancet_onnx.errors import DataError
from lancet_onnx.locate import locate_as_published
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.companions import Companions, as_pairs, companions
from lancet_onnx.pairs.lessons import varied
from lancet_onnx.pairs.similar import fitting, similar
from lancet_onnx.repair.correct import CorrectSettings, Lessons, correct
from lancet_onnx.repair.moving import Tensors, top, weights_of
from lancet_onnx.runtime.classifier import CHUNK, Classifier
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.samples import Material
from lancet_onnx.scores import Location
from lancet_onnx.types import ParamName, Progress, ValueName, no_progress

OFTEN = 3.0
"""Errors are learnt from so many times as often as other images."""

PAIRS, GUARD = 40, 200
"""Pairs <error, companion> that weights are located on, and right images beside them."""

FEATURES = 1.0
"""Weight of the distance to the unrepaired model's features, in the published loss."""


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """What training came to.

    Attributes:
        deltas: what it adds to which leaf.
        how: the training with all its parameters.
        location: where the errors were located; None where that was not asked for.
        unsolved: errors that no companion was found for.
    """

    deltas: Tensors
    how: str
    location: Location | None = None
    unsolved: int = 0


def teach(
    canvas: Canvas,
    true: torch.Tensor,
    seed: int,
    *,
    published: bool = False,
    progress: Progress = no_progress,
) -> Taught:
    """Learn the true labels (N,) of the canvas's images, or do as the paper does.

    Raises:
        DataError: as published only: no error has a companion, or none can be located.
    """
    if published:
        return _as_published(canvas, true, seed, progress)
    settings = CorrectSettings()
    deltas = correct(
        canvas.classifier, plain_lessons(canvas, true, seed), settings, seed, progress=progress
    )
    return Taught(deltas, f"{settings} | lessons(often={OFTEN})")


def plain_lessons(canvas: Canvas, true: torch.Tensor, seed: int) -> Lessons:
    """Return all images with their labels, errors more often, each time seen a little otherwise."""
    wrong = canvas.labels != true
    target = functional.one_hot(true, canvas.classifier.signature.classes).float()
    kinds = fitting(canvas, canvas.pixels[~wrong], seed)
    return Lessons(target, torch.where(wrong, OFTEN, 1.0), varied(canvas, kinds))


def error_pairs(canvas: Canvas, true: torch.Tensor, seed: int) -> tuple[Material, Companions]:
    """Return pairs <error, companion> to locate weights on, and the companions.

    Raises:
        DataError: no error has a companion, or the inputs are no pictures.
    """
    wrong = canvas.labels != true
    rows = wrong.nonzero()[: PAIRS * 3 // 2, 0]
    part = canvas.take(rows)
    found = companions(part, true[rows].cpu().numpy(), seed=seed)
    if not len(found):
        raise DataError(
            f"no companion was found for any of {len(rows)} errors: no small region of these "
            "images decides that they are misread, so there is nothing to locate. Leave "
            "--as-published away"
        )
    pairs = as_pairs(part, found.take(range(min(PAIRS, len(found)))))
    clean = canvas.inputs(canvas.pixels[~wrong][:GUARD]).cpu().numpy()
    return Material.to_locate(pairs, clean), found


def with_votes(classifier: Classifier, location: Location, width: float) -> Tensors:
    """Return masks of the weights with most votes in the layer that was chosen.

    Raises:
        DataError: no pair was located anywhere.
    """
    best = location.best
    if best is None:
        raise DataError(
            "in no layer does ablation of a fifth of the weights mend an error, so nothing is "
            "located. Leave --as-published away"
        )
    votes = torch.from_numpy(best.orders[0].scores[best.param])
    scores = over_layers(classifier, {best.param: votes.where(votes >= 1, 0.0)})
    return top(scores, max(1, int(width * weights_of(classifier))))


def over_layers(classifier: Classifier, known: Mapping[ParamName, torch.Tensor]) -> Tensors:
    """Return scores of all layers on the model's device, 0 where none are known."""
    leaves = classifier.module.leaves
    return {
        layer.param: known[layer.param].to(leaves[layer.param])
        if layer.param in known
        else torch.zeros_like(leaves[layer.param])
        for layer in find_layers(classifier)
    }


def published_lessons(canvas: Canvas, true: torch.Tensor, kept: Tensors, seed: int) -> Lessons:
    """Return N_e with true labels and as many of N_o with the unrepaired model's answers.

    N_e are the errors and transformed ones, N_o right images. One layer changes, so the part of the
    network before it is run once.
    """
    wrong, classifier = canvas.labels != true, canvas.classifier
    errors, right = canvas.pixels[wrong], canvas.pixels[~wrong]
    more = similar(canvas, errors, true[wrong], right, seed)
    taught = torch.cat([errors, more.pixels])
    labels = torch.cat([true[wrong], true[wrong][more.origin.to(wrong.device)]])
    old = right[: len(taught)]
    answers = classifier.logits(canvas.inputs(old)).softmax(1)
    onehot = functional.one_hot(labels, answers.shape[1]).float()
    (layer,) = (one for one in find_layers(classifier) if bool(kept[one.param].any()))
    names = classifier.cut_set([layer.node])
    with torch.no_grad():
        parts = [
            classifier.run({classifier.signature.input.name: canvas.inputs(part)}, names)
            for part in torch.split(torch.cat([taught, old]), CHUNK)
        ]
    cut = {name: torch.cat([part[name] for part in parts]) for name in names}

    def feeds(part: torch.Tensor, _draw: torch.Generator) -> Mapping[ValueName, torch.Tensor]:
        return {name: value[part] for name, value in cut.items()}

    often = torch.cat([torch.full((len(x),), 1 / len(x)) for x in (taught, old)])
    return Lessons(torch.cat([onehot, answers]), often, feeds, (layer.output,))


def _as_published(canvas: Canvas, true: torch.Tensor, seed: int, progress: Progress) -> Taught:
    """Tune the located weights of one layer (paper, sections 4 and 5)."""
    classifier = canvas.classifier
    material, found = error_pairs(canvas, true, seed)
    location = locate_as_published(classifier, material, progress)
    settings = CorrectSettings(features=FEATURES)
    settings = replace(settings, steps=settings.steps + settings.warm, warm=0)
    kept = with_votes(classifier, location, settings.width)
    lessons = published_lessons(canvas, true, kept, seed)
    deltas = correct(classifier, lessons, settings, seed, kept, progress)
    how = f"{location.method} | {settings} | lessons(errors and similar, right images)"
    return Taught(deltas, how, location, found.unsolved)
