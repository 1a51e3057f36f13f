# SPDX-License-Identifier: Apache-2.0
"""Neuron-flip: how many of which layer's ranked weights must turn before the error is gone.

For every layer and ranking the smallest number t is searched (gallop, then bisect) at which
triggered images no longer lean to the erroneous label more than their companions do. A first pass
looks at few images and walks the layers from last to first, leaving one early that costs too much
on clean images; the best of it are searched again on all images. Among those that stay inside the
budget, the one that gives most images their label back wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from lancet_onnx.repair.edit import Edit, edit_params
from lancet_onnx.runtime.classifier import CHUNK, Classifier
from lancet_onnx.runtime.layers import Layer, find_layers
from lancet_onnx.samples import Material
from lancet_onnx.samples.core import Floats, Ints
from lancet_onnx.scores import Location, ScoreMap
from lancet_onnx.types import Kind, ParamName, Progress, ValueName, no_progress

CACHE_BYTES = 2 << 30
"""Cached activations may take this much; a layer that needs more is run from the input."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """How finely one pass searches: factor of the gallop, relative precision of the bisection."""

    gallop: float
    precision: float


ROUGH, FINE = _Pass(2.5, 0.2), _Pass(1.6, 0.04)
FINALISTS = 4
"""Candidates of the first pass that are searched again on all images."""

ABORT = 0.05
"""A layer whose agreement falls this far under the best candidate's is left."""

SEARCH = (
    f"search(gallop={ROUGH.gallop}/{FINE.gallop}, precision={ROUGH.precision}/{FINE.precision}, "
    f"finalists={FINALISTS}, abort={ABORT})"
)
"""Names how numbers of weights are tried, with all parameters."""

Cut = Mapping[ValueName, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """Knobs of the search; the defaults are those of docs/results.md.

    Attributes:
        kind: flip or mute.
        compensate: keep the layer's mean output by moving its bias.
        max_loss: budget: what the guard may lose (see `Candidate.loss`), 0 to 1.
        leaning: an image leans to the erroneous label when its probability is over this.
        tolerance: triggered images may lean this much more often than their companions.
        max_share: at most this share of a layer's weights is changed.
    """

    kind: Kind = "flip"
    compensate: bool = True
    max_loss: float = 0.01
    leaning: float = 0.2
    tolerance: float = 0.0
    max_share: float = 0.3

    def __str__(self) -> str:
        return (
            f"{self.kind}(compensate={self.compensate}, max-loss={self.max_loss}, "
            f"leaning={self.leaning}, tolerance={self.tolerance}, max-share={self.max_share})"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One (layer, ranking, t) with what it does to the tool's own images.

    Attributes:
        edit: the weights and what is done with them.
        order: the ranking that was followed.
        params: leaves after the edit.
        excess: how much more often triggered images lean to the erroneous label than companions.
        loss: what the guard loses: accuracy where its labels are known, agreement where not.
        agreement: share of guard images that keep the label they had.
        error: standard error of the loss.
        recovery: share of triggered images that get their companions' label.
        share: changed weights over the layer's weights.
    """

    edit: Edit
    order: ScoreMap
    params: Mapping[ParamName, torch.Tensor]
    excess: float
    loss: float
    agreement: float
    error: float
    recovery: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The chosen candidate, all that were compared, and whether the chosen one is good enough."""

    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    reached: bool


class _Stop(NamedTuple):
    excess: float
    recovery: float


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """Cached values of one layer for the images that candidates are tried on."""

    classifier: Classifier
    layer: Layer
    bad: Sequence[Cut]
    good: Sequence[Cut]
    guard: Sequence[Cut]
    mean: Sequence[Cut]
    wrong: torch.Tensor
    right: torch.Tensor
    before: torch.Tensor
    labels: torch.Tensor | None

    def params(self, edit: Edit) -> dict[ParamName, torch.Tensor]:
        return edit_params(self.classifier, edit, self.mean)

    def logits(self, cuts: Sequence[Cut], params: Mapping[ParamName, torch.Tensor]) -> torch.Tensor:
        name = self.classifier.signature.logits
        return torch.cat([self.classifier.run(cut, [name], params)[name] for cut in cuts])

    def agreement(self, params: Mapping[ParamName, torch.Tensor]) -> tuple[float, float]:
        """Return agreement on the guard, and its loss (of accuracy where labels are known)."""
        after = self.logits(self.guard, params).argmax(1)
        kept = float((after == self.before).float().mean())
        if self.labels is None:
            return kept, 1.0 - kept
        right_before = (self.before == self.labels).float().mean()
        return kept, float(right_before - (after == self.labels).float().mean())

    def stop(self, params: Mapping[ParamName, torch.Tensor], settings: Settings) -> _Stop:
        """Return the excess of leaning on triggered images, and how many got their label back.

        Companions are looked at only if they could still excuse the triggered images.
        """
        scores = self.logits(self.bad, params)
        leaning = self._leaning(scores, settings.leaning)
        recovery = float((scores.argmax(1) == self.right).float().mean())
        if not settings.tolerance < leaning < settings.tolerance + 0.1:
            return _Stop(leaning, recovery)
        return _Stop(
            leaning - self._leaning(self.logits(self.good, params), settings.leaning), recovery
        )

    def _leaning(self, scores: torch.Tensor, leaning: float) -> float:
        p = scores.softmax(1).gather(1, self.wrong[:, None])[:, 0]
        return float((p > leaning).float().mean())


def search(
    classifier: Classifier,
    location: Location,
    material: Material,
    settings: Settings,
    progress: Progress = no_progress,
) -> Outcome:
    """Search every located layer and ranking; choose by budget, agreement, recovery and size."""
    layers = {layer.param: layer for layer in find_layers(classifier)}
    located = [entry for entry in location.layers if entry.orders]
    rough: list[Candidate] = []
    few = _part(material, CHUNK)
    with torch.no_grad():
        for done, entry in enumerate(reversed(located)):
            progress("searching for the fewest flips", 0.6 * done / len(located))
            bench = _prepare(classifier, layers[entry.param], few)
            for order in entry.orders:
                best = max((c.agreement for c in rough), default=0.0)
                found = _fewest(bench, order, settings, ROUGH, 1, best - ABORT)
                if found is not None:
                    rough.append(found)
        finalists = sorted(rough, key=lambda c: (-round(c.agreement, 2), -c.recovery))[:FINALISTS]
        best_recovery = sorted(rough, key=lambda c: -c.recovery)[:1]
        final: list[Candidate] = []
        for done, first in enumerate(dict.fromkeys([*finalists, *best_recovery])):
            progress("searching for the fewest flips", 0.6 + 0.4 * done / (FINALISTS + 1))
            bench = _prepare(classifier, first.edit.layer, material)
            start = max(1, len(first.edit.index) // 2)
            again = _fewest(bench, first.order, settings, FINE, start, 0.0)
            if again is not None:
                final.append(again)
    progress("searching for the fewest flips", 1.0)
    return choose(final, settings)


def choose(candidates: Sequence[Candidate], settings: Settings) -> Outcome:
    """Pick a candidate; `reached` says whether it silences the error inside the budget.

    A candidate is preferred if its loss stays inside the budget with one standard error added:
    many are compared on the same guard, and the luckiest loss is not the smallest one. Among those
    the highest recovery wins, then the smallest share of weights.
    """
    silent = [c for c in candidates if c.excess <= settings.tolerance]
    inside = [c for c in silent if c.loss <= settings.max_loss]
    safe = [c for c in inside if c.loss + c.error <= settings.max_loss]
    if safe:
        chosen = max(safe, key=lambda c: (round(c.recovery, 2), -c.share))
        return Outcome(chosen, tuple(candidates), True)
    pool = inside or silent or list(candidates)
    if not pool:
        return Outcome(None, (), False)
    chosen = min(pool, key=lambda c: (c.loss + c.error, -c.recovery))
    return Outcome(chosen, tuple(candidates), bool(inside))


def _part(material: Material, count: int) -> Material:
    labels = None if material.guard_labels is None else material.guard_labels[:count]
    stop = material.stop.take(slice(count))
    return replace(material, stop=stop, guard=material.guard[:count], guard_labels=labels)


def _prepare(classifier: Classifier, layer: Layer, material: Material) -> _Bench:
    names = classifier.cut_set([layer.node])
    images = len(material.stop) * 2 + len(material.guard)
    whole = classifier.bytes_per_image(names) * images > CACHE_BYTES
    device, source = classifier.module.device, classifier.signature.input.name

    def cache(inputs: Floats, *, whole: bool) -> list[Cut]:
        parts = torch.split(classifier.tensor(inputs), CHUNK)
        return [classifier.run({source: x}, [source] if whole else names) for x in parts]

    def tensor(labels: Ints) -> torch.Tensor:
        return torch.from_numpy(labels).to(device)

    guard = cache(material.guard, whole=whole)
    return _Bench(
        classifier,
        layer,
        cache(material.stop.bad, whole=whole),
        cache(material.stop.good, whole=whole),
        guard,
        cache(material.guard[:CHUNK], whole=False) if whole else guard[:2],
        tensor(material.stop.wrong),
        tensor(material.stop.right),
        classifier.logits(classifier.tensor(material.guard)).argmax(1),
        None if material.guard_labels is None else tensor(material.guard_labels),
    )


def _fewest(
    bench: _Bench,
    order: ScoreMap,
    settings: Settings,
    finely: _Pass,
    start: int,
    floor: float,
) -> Candidate | None:
    """Return the smallest t >= start that silences the error; None if agreement is under `floor`.

    `start` is known, or guessed, to be too few; if it is not, the search begins again at 1.
    """
    layer = bench.layer
    ranking = order.ranking(layer.param)
    limit = max(1, int(settings.max_share * layer.size))

    def candidate(t: int) -> Candidate:
        edit = Edit(layer, ranking[:t], settings.kind, settings.compensate)
        params = bench.params(edit)
        excess, recovery = bench.stop(params, settings)
        agreement, loss = bench.agreement(params)
        # Only images whose label changes make the loss vary.
        error = float(np.sqrt((1 - agreement) / len(bench.before)))
        share = t / layer.size
        return Candidate(edit, order, params, excess, loss, agreement, error, recovery, share)

    def silent(t: int) -> bool:
        edit = Edit(layer, ranking[:t], settings.kind, settings.compensate)
        return bench.stop(bench.params(edit), settings).excess <= settings.tolerance

    low, high = 0, min(start, limit)
    while not silent(high):
        if high >= limit:
            return None
        if floor > 0:
            edit = Edit(layer, ranking[:high], settings.kind, settings.compensate)
            if bench.agreement(bench.params(edit))[0] < floor:
                return None
        low, high = high, min(limit, max(high + 1, int(np.ceil(high * finely.gallop))))
    while high - low > max(1, int(finely.precision * high)):
        middle = (low + high) // 2
        if silent(middle):
            high = middle
        else:
            low = middle
    return candidate(high)
