# SPDX-License-Identifier: Apache-2.0
"""One model, its honest errors in two halves, and what methods of correcting them are given."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from lancet_onnx.api.learning import Learning, Probe
from lancet_onnx.api.subject import Subject, prepare
from lancet_onnx.api.teaching import error_pairs, plain_lessons, with_votes
from lancet_onnx.locate import locate, locate_as_published
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.repair.correct import CorrectSettings, fisher
from lancet_onnx.repair.moving import Tensors, top, weights_of
from lancet_onnx.runtime.classifier import Classifier, compute_device
from lancet_onnx.samples import Material, Split
from lancet_onnx.scores import Location
from tests.bench.compare_runs import Case

GROUPS = 4
SEEN_BEFORE = 3
"""An error is similar by its labels if so many of the tool's errors have the same two."""


@dataclass(frozen=True, eq=False)
class Study:
    """What a method may learn from and choose by (`learning`), and what it is told by.

    Attributes:
        named: (N,) which of the errors of `figures` have the labels of errors learnt from.
        share: of the usual steps that each method gets.
    """

    case: Case
    seed: int
    learning: Learning
    figures: Probe
    named: torch.Tensor
    share: float = 1.0

    @classmethod
    def open(cls, case: Case, seed: int, device: str, share: float = 1.0) -> Study:
        """Divide the images as `repair` does."""
        subject = Subject.open(case.model, "cpu")
        prepared = prepare(subject, case.data)
        split = Split.of(prepared.samples, seed)
        classifier = Classifier(subject.model.graph, compute_device(device))
        learning = Learning.of(classifier, prepared, split.tool, None, seed)
        figures = Probe.of(classifier, prepared, split.figures)
        seen = Counter(_kinds(learning.true, learning.canvas.labels))
        named = [
            kind[0] >= 0 and seen[kind] >= SEEN_BEFORE
            for kind in _kinds(figures.true, figures.before)
        ]
        where = classifier.module.device
        return cls(case, seed, learning, figures, torch.tensor(named, device=where), share)

    def settings(self, rate: float) -> CorrectSettings:
        """Return the usual settings, with as many steps as there are for all."""
        usual = CorrectSettings(rate=rate)
        warm, steps = (int(self.share * number) for number in (usual.warm, usual.steps))
        return replace(usual, warm=warm, steps=steps)

    @property
    def classifier(self) -> Classifier:
        """The model."""
        return self.learning.canvas.classifier

    @property
    def canvas(self) -> Canvas:
        """The images that are learnt from."""
        return self.learning.canvas

    @property
    def true(self) -> torch.Tensor:
        """(N,) their labels."""
        return self.learning.true

    @property
    def wrong(self) -> torch.Tensor:
        """(N,) which of them the model gets wrong."""
        return self.learning.wrong

    @cached_property
    def budget(self) -> int:
        """How many weights may change."""
        return int(CorrectSettings().width * weights_of(self.classifier))

    @cached_property
    def material(self) -> Material:
        """Pairs <error, companion>."""
        return error_pairs(self.canvas, self.true, self.seed)[0]

    @cached_property
    def location(self) -> Location:
        """Where our formulas find the errors."""
        return locate(self.classifier, self.material)

    @cached_property
    def groups(self) -> list[tuple[Canvas, torch.Tensor, Location]]:
        """Errors of the same two labels apart, the right images with each; where they sit."""
        kinds = torch.stack([self.true, self.canvas.labels], 1)
        counted = Counter(map(tuple, kinds[self.wrong].tolist()))
        found = []
        for kind, _ in counted.most_common(GROUPS):
            mine = (kinds == torch.tensor(kind, device=kinds.device)).all(1)
            rows = (mine | ~self.wrong).nonzero()[:, 0]
            part = self.canvas.take(rows)
            pairs = error_pairs(part, self.true[rows], self.seed)[0]
            found.append((part, self.true[rows], locate(self.classifier, pairs)))
        return found

    @cached_property
    def published(self) -> Location:
        """Where the published ones do."""
        return locate_as_published(self.classifier, self.material)

    @cached_property
    def gradients(self) -> tuple[Tensors, Tensors]:
        """Mean and mean square of the loss's gradient."""
        return fisher(
            self.classifier,
            plain_lessons(self.canvas, self.true, self.seed),
            CorrectSettings().batch,
            self.seed,
        )

    def masks(self, scores: Tensors, most: int | None = None) -> Tensors:
        """Return masks of the highest scores, within the budget."""
        return top(scores, min(self.budget, most or self.budget))

    def in_best_layer(self, location: Location, share: float = 1.0) -> Tensors:
        """Return the masks of the weights with votes in the layer that was chosen.

        They take a `share` of the budget at most.
        """
        return with_votes(self.classifier, location, share * CorrectSettings().width)

    @cached_property
    def like_paper(self) -> torch.Tensor:
        """(N,) which errors of `figures` are right once the located weights are ablated."""
        leaves = self.classifier.module.leaves
        masks = self.in_best_layer(self.location)
        ablated = {name: leaves[name] * ~mask for name, mask in masks.items() if bool(mask.any())}
        after = self.classifier.logits(self.figures.inputs, ablated).argmax(1)
        return after == self.figures.true


def _kinds(true: torch.Tensor, said: torch.Tensor) -> list[tuple[int, int]]:
    """Return (true label, wrong label) of each image; (-1, -1) where it is right."""
    pairs = zip(true.tolist(), said.tolist(), strict=True)
    return [(t, w) if t != w else (-1, -1) for t, w in pairs]
