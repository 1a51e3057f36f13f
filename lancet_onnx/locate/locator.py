# SPDX-License-Identifier: Apache-2.0
"""Location over all layers: importance, ablation, votes, and two rankings to repair by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lancet_onnx.locate.ablation import LARGEST_SHARE, PRECISION, ablate
from lancet_onnx.locate.importance import (
    ALPHA,
    Features,
    chunks,
    differential_features,
    harm,
    importance,
)
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import Layer, find_layers
from lancet_onnx.samples import Material, Pairs
from lancet_onnx.scores import LayerLocation, Location, ScoreMap
from lancet_onnx.types import Progress, no_progress

HARM_IMAGES = 200
HARM_FLOOR = 0.3
METHOD = (
    f"ai-lancet(alpha={ALPHA}, margin-gradient, ablation<= {LARGEST_SHARE}, precision={PRECISION}, "
    f"harm={HARM_IMAGES} images, floor={HARM_FLOOR})"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    layer: Layer
    counts: torch.Tensor
    votes: torch.Tensor
    mean: torch.Tensor


def locate(
    classifier: Classifier, material: Material, progress: Progress = no_progress
) -> Location:
    """Locate error-inducing weights layer by layer (AI-Lancet, sections 4.2 and 4.3).

    Each layer gets two orders to repair by, also where ablation located few pairs: flipping acts
    where zeroing does not (docs/results.md).

    * votes: the number of pairs whose located set holds the weight, ties by mean normalised IV;
    * ratio: mean normalised IV over what clean images lose with the weight.
    """
    layers = find_layers(classifier)
    pairs = material.pairs
    features = differential_features(classifier, layers, pairs)
    found = []
    for done, layer in enumerate(layers):
        progress("locating error-inducing weights", done / max(len(layers), 1))
        found.append(_search_layer(classifier, layer, features, pairs))
    clean = classifier.tensor(material.guard[:HARM_IMAGES])
    harms = harm(classifier, layers, clean)
    progress("locating error-inducing weights", 1.0)
    return Location(METHOD, tuple(_describe(f, harms[f.layer.param]) for f in found))


def _search_layer(classifier: Classifier, layer: Layer, features: Features, pairs: Pairs) -> _Found:
    right = torch.from_numpy(pairs.right).to(classifier.module.device)
    names = classifier.cut_set([layer.node])
    votes = torch.zeros(layer.size, device=right.device)
    mean = torch.zeros(layer.size, device=right.device)
    counts = []
    with torch.no_grad():
        x = classifier.tensor(pairs.bad)
        for rows in chunks(len(pairs), 4 * layer.size):
            cut = classifier.run({classifier.signature.input.name: x[rows]}, names)
            iv = importance(
                classifier, layer, features.dh[layer.param][rows], features.c[layer.param][rows]
            )
            found = ablate(classifier, layer, cut, iv, right[rows])
            flat = iv.flatten(1)
            mean += (flat / flat.abs().amax(1, keepdim=True).clamp_min(1e-30)).sum(0)
            votes += found.located.sum(0)
            counts.append(found.counts)
    return _Found(layer, torch.cat(counts), votes, mean / len(pairs))


def _describe(found: _Found, harm_of: torch.Tensor) -> LayerLocation:
    located = found.counts[found.counts > 0].cpu().numpy()
    layer = found.layer
    return LayerLocation(
        layer.node.name,
        layer.param,
        layer.size,
        len(found.counts),
        len(located),
        float(np.median(located)) / layer.size if len(located) else 0.0,
        _orders(found, harm_of),
    )


def _orders(found: _Found, harm_of: torch.Tensor) -> tuple[ScoreMap, ...]:
    shape, mean = harm_of.shape, found.mean
    spread = (mean.max() - mean.min()).clamp_min(1e-30)
    votes = found.votes + 0.999 * (mean - mean.min()) / spread
    cost = harm_of.flatten()
    ratio = mean / (cost + HARM_FLOOR * cost.mean() + 1e-30)
    return tuple(
        ScoreMap(name, {found.layer.param: score.reshape(shape).cpu().numpy()})
        for name, score in (("votes", votes), ("ratio", ratio))
    )
