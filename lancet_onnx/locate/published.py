# SPDX-License-Identifier: Apache-2.0
"""AI-Lancet to the letter (CCS 2021, doi 10.1145/3460120.3484818): the reference to compare with.

The features are those of a layer's block, behind activation and pooling:

    df  = f(x) - f(x')
    G   = |dCE(logits(x), true label) / d f| / max|.|      per pair and layer
    EIf = df * (G + alpha),  alpha = 0.5
    IV  = |d norm2(EIf) / dW|                               weights only, no bias

Weights are zeroed in descending IV by a decimal ladder of ratios until x gets its true label; one
layer is chosen, and its weights are ranked by votes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from lancet_onnx.locate.ablation import Restored, restorer
from lancet_onnx.locate.importance import chunks
from lancet_onnx.model import Graph
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import Layer, find_layers
from lancet_onnx.samples import Material, Pairs
from lancet_onnx.scores import LayerLocation, Location, ScoreMap
from lancet_onnx.types import Progress, ValueName, no_progress

ALPHA = 0.5
METHOD = f"ai-lancet-as-published(alpha={ALPHA}, decimal ladder 1e-6..0.9)"

_BLOCK = {
    "BatchNormalization",
    "Relu",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Sigmoid",
    "Tanh",
    "Clip",
    "MaxPool",
    "AveragePool",
    "Dropout",
}


def locate_as_published(
    classifier: Classifier, material: Material, progress: Progress = no_progress
) -> Location:
    """Locate by the paper's formulas; only the layer it chooses gets an order (by votes)."""
    layers = find_layers(classifier)
    pairs = material.pairs
    blocks = {layer.param: block_output(classifier.graph, layer) for layer in layers}
    right = torch.from_numpy(pairs.right).to(classifier.module.device)
    _, gradient = classifier.gradients(
        classifier.tensor(pairs.bad),
        [],
        list(dict.fromkeys(blocks.values())),
        lambda logits: functional.cross_entropy(logits, right, reduction="none"),
    )
    found: list[LayerLocation] = []
    for done, layer in enumerate(layers):
        progress("locating error-inducing weights", done / max(len(layers), 1))
        block = blocks[layer.param]
        found.append(_search_layer(classifier, layer, block, gradient[block], pairs))
    progress("locating error-inducing weights", 1.0)
    best = Location(METHOD, tuple(found)).best
    chosen = [layer if layer is best else replace(layer, orders=()) for layer in found]
    return Location(METHOD, tuple(chosen))


def block_output(graph: Graph, layer: Layer) -> ValueName:
    """Return the value behind a layer's own activation, normalisation and pooling."""
    value = layer.output
    while len(readers := graph.consumers.get(value, ())) == 1 and readers[0].op_type in _BLOCK:
        value = readers[0].outputs[0]
    return value


def _importance(
    classifier: Classifier,
    layer: Layer,
    block: ValueName,
    at_x: torch.Tensor,
    at_good: torch.Tensor,
    factor: torch.Tensor,
) -> torch.Tensor:
    source, batching = layer.source, classifier.batching

    def norm(
        weight: torch.Tensor, x: torch.Tensor, good: torch.Tensor, weighting: torch.Tensor
    ) -> torch.Tensor:
        runs = [
            classifier.module.run(
                {source: batching.alone(source, row)}, [block], {layer.param: weight}
            )
            for row in (x, good)
        ]
        features = [batching.first(block, run[block]) for run in runs]
        length: torch.Tensor = ((features[0] - features[1]) * weighting).norm()
        return length

    per_pair = torch.func.vmap(torch.func.grad(norm), in_dims=(None, 0, 0, 0))
    classifier.forwards += 2 * len(at_x) * classifier.share([layer.source], [block])
    gradient: torch.Tensor = per_pair(classifier.module.leaves[layer.param], at_x, at_good, factor)
    return gradient.abs()


def _search_layer(
    classifier: Classifier,
    layer: Layer,
    block: ValueName,
    gradient: torch.Tensor,
    pairs: Pairs,
) -> LayerLocation:
    magnitude = gradient.abs()
    largest = magnitude.flatten(1).amax(1).clamp_min(1e-30)
    factor = magnitude / largest.reshape(-1, *[1] * (gradient.ndim - 1)) + ALPHA
    name = classifier.signature.input.name
    names = list(dict.fromkeys([*classifier.cut_set([layer.node]), layer.source]))
    right = torch.from_numpy(pairs.right).to(gradient.device)
    votes = torch.zeros(layer.size, device=gradient.device)
    mean = torch.zeros_like(votes)
    counts: list[int] = []
    with torch.no_grad():
        x, good = classifier.tensor(pairs.bad), classifier.tensor(pairs.good)
        for rows in chunks(len(pairs), 4 * layer.size):
            cut = classifier.run({name: x[rows]}, names)
            source = classifier.run({name: good[rows]}, [layer.source])[layer.source]
            iv = _importance(classifier, layer, block, cut[layer.source], source, factor[rows])
            ranks, restored = restorer(classifier, layer, cut, iv, right[rows])
            found = _ladder(layer.size, len(iv), restored, gradient.device)
            votes += (ranks < found[:, None]).sum(0)
            mean += iv.flatten(1).mean(0)
            counts += found.tolist()
    located = [count for count in counts if count]
    score = votes + 0.999 * mean / mean.max().clamp_min(1e-30)
    shape = classifier.module.leaves[layer.param].shape
    order = ScoreMap("votes", {layer.param: score.reshape(shape).cpu().numpy()})
    share = float(np.median(located)) / layer.size if located else 0.0
    return LayerLocation(
        layer.node.name, layer.param, layer.size, len(counts), len(located), share, (order,)
    )


def _ladder(size: int, pairs: int, restored: Restored, device: torch.device) -> torch.Tensor:
    """Climb ratios k * 10^-u, then refine the first that works by tenths of its last step."""
    result = torch.zeros(pairs, dtype=torch.long, device=device)
    waiting = torch.arange(pairs, device=device)
    rungs = [(k * 10.0**-u, 10.0**-u) for u in range(6, 0, -1) for k in range(1, 10)]
    tried = 0
    for ratio, step in rungs:
        count = math.ceil(ratio * size)
        if not len(waiting) or count == tried:
            continue
        tried = count
        done = restored(torch.full_like(result, count), waiting)
        for row in waiting[done]:
            one = row[None]
            finer = [math.ceil((ratio - step + i * step / 10) * size) for i in range(1, 10)]
            result[row] = next(
                (n for n in finer if n and bool(restored(torch.full_like(result, n), one))), count
            )
        waiting = waiting[~done]
    return result
