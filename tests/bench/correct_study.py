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
from lancet_onnx.locate.importance import chunks, differential_features, importance
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.companions import Companions
from lancet_onnx.repair.correct import CorrectSettings, fisher
from lancet_onnx.repair.moving import Tensors, top, weights_of
from lancet_onnx.runtime.classifier import Classifier, compute_device
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.samples import Material, Split
from lancet_onnx.scores import Location
from tests.bench.compare_runs import Case

GROUPS, ROUNDS = 4, 20
"""Groups of errors, and rounds in which they are found."""
SEEN_BEFORE = 3
"""An error is similar by its labels if so many of the tool's errors have the same two."""


@dataclass(frozen=True, eq=False)
class Group:
    """Errors that resemble each other and all right images: (N,) labels, and where they sit."""

    canvas: Canvas
    true: torch.Tensor
    location: Location


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
    def pairs(self) -> tuple[Material, Companions]:
        """Pairs <error, companion>, and the companions."""
        return error_pairs(self.canvas, self.true, self.seed)

    @cached_property
    def location(self) -> Location:
        """Where our formulas find the errors."""
        return locate(self.classifier, self.pairs[0])

    @cached_property
    def by_labels(self) -> list[Group]:
        """Errors of the same two labels apart."""
        kinds = torch.stack([self.true, self.canvas.labels], 1)
        counted = Counter(map(tuple, kinds[self.wrong].tolist()))
        return [
            self._group((kinds == torch.tensor(kind, device=kinds.device)).all(1))
            for kind, _ in counted.most_common(GROUPS)
        ]

    @cached_property
    def by_weights(self) -> list[Group]:
        """Errors apart whose importance values lie in the same weights of the chosen layer."""
        material, found = self.pairs
        best = self.location.best
        assert best is not None, "nothing is located in this model"
        (layer,) = (each for each in find_layers(self.classifier) if each.param == best.param)
        features = differential_features(self.classifier, [layer], material.pairs)
        dh, c = features.dh[layer.param], features.c[layer.param]
        values = torch.cat(
            [
                importance(self.classifier, layer, dh[part], c[part]).flatten(1).relu()
                for part in chunks(len(material.pairs), layer.size)
            ]
        )
        where = self.wrong.nonzero()[:, 0][found.positions[: len(values)]]
        nearest, groups = clusters(values, GROUPS, self.seed), []
        for number in range(GROUPS):
            mine = torch.zeros_like(self.wrong)
            mine[where[nearest == number]] = True
            if mine.any():
                groups.append(self._group(mine))
        return groups

    def _group(self, mine: torch.Tensor) -> Group:
        rows = (mine | ~self.wrong).nonzero()[:, 0]
        part = self.canvas.take(rows)
        pairs = error_pairs(part, self.true[rows], self.seed)[0]
        return Group(part, self.true[rows], locate(self.classifier, pairs))

    @cached_property
    def published(self) -> Location:
        """Where the published ones do."""
        return locate_as_published(self.classifier, self.pairs[0])

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


def clusters(rows: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Return the cluster (N,) of each row (N, D): k-means by the angle between them."""
    rows = torch.nn.functional.normalize(rows)
    draw = torch.Generator().manual_seed(seed)
    centres = rows[torch.randperm(len(rows), generator=draw)[:count].to(rows.device)]
    for _ in range(ROUNDS):
        nearest = (rows @ centres.T).argmax(1)
        total = torch.zeros_like(centres).index_add_(0, nearest, rows)
        centres = torch.nn.functional.normalize(total)
    return nearest


def _kinds(true: torch.Tensor, said: torch.Tensor) -> list[tuple[int, int]]:
    """Return (true label, wrong label) of each image; (-1, -1) where it is right."""
    pairs = zip(true.tolist(), said.tolist(), strict=True)
    return [(t, w) if t != w else (-1, -1) for t, w in pairs]
