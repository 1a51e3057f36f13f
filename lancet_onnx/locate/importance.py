# SPDX-License-Identifier: Apache-2.0
"""Importance values: how much each weight carries from the change of a layer's input to the error.

For a pair <x, x'> and a layer f = W * h + b, with dh = h(x) - h(x'), df = f(x) - f(x') and g the
gradient of (erroneous logit - true logit) to f at x:

    G  = g / max|g|                     per pair and layer, signed
    c  = (alpha + G) * sign(df)         which way each feature errs, and how much it matters
    IV = W * (c correlated with dh)     what each weight contributes to that

The features and gradients of all layers come from one forward of x', and one forward and one
backward of x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import Layer
from lancet_onnx.samples import Pairs
from lancet_onnx.types import ParamName

ALPHA = 1.0
_BUDGET = 1 << 26
"""Elements (of 4 bytes) that one batch of per-pair weight tensors may hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Per layer: the change of its input and the features that err, one row a pair."""

    dh: dict[ParamName, torch.Tensor]
    c: dict[ParamName, torch.Tensor]


def differential_features(
    classifier: Classifier, layers: Sequence[Layer], pairs: Pairs
) -> Features:
    """Return dh and c of every layer for all pairs."""
    values = list(dict.fromkeys(v for layer in layers for v in (layer.source, layer.output)))
    right, wrong = (
        torch.from_numpy(a).to(classifier.module.device) for a in (pairs.right, pairs.wrong)
    )

    def margin(logits: torch.Tensor) -> torch.Tensor:
        return (logits.gather(1, wrong[:, None]) - logits.gather(1, right[:, None]))[:, 0]

    outputs = [layer.output for layer in layers]
    x, good = classifier.tensor(pairs.bad), classifier.tensor(pairs.good)
    at_x, gradient = classifier.gradients(x, values, outputs, margin)
    with torch.no_grad():
        at_good = classifier.run({classifier.signature.input.name: good}, values)
    dh, c = {}, {}
    for layer in layers:
        dh[layer.param] = at_x[layer.source] - at_good[layer.source]
        df = at_x[layer.output] - at_good[layer.output]
        g = gradient[layer.output]
        largest = g.abs().flatten(1).amax(1).clamp_min(1e-30)
        normalised = g / largest.reshape(-1, *[1] * (g.ndim - 1))
        c[layer.param] = (ALPHA + normalised) * df.sign()
    return Features(dh, c)


def importance(
    classifier: Classifier, layer: Layer, dh: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """Return IV for each pair: (K, *shape of W), signed; larger is more error-inducing."""
    weight = classifier.module.leaves[layer.param]
    return layer.centred(weight) * correlate(classifier, layer, dh, c)


def correlate(
    classifier: Classifier, layer: Layer, h: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """Return, image by image, the gradient of sum(c * f) to W, f = W * h: (K, *shape of W)."""
    source, output, batching = layer.source, layer.output, classifier.batching

    def response(weight: torch.Tensor, row: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        feeds = {source: batching.alone(source, row)}
        value = classifier.module.run(feeds, [output], {layer.param: weight})[output]
        return (batching.first(output, value) * factor).sum()

    per_image = torch.func.vmap(torch.func.grad(response), in_dims=(None, 0, 0))
    classifier.forwards += len(h) * classifier.share([layer.source], [layer.output])
    result: torch.Tensor = per_image(classifier.module.leaves[layer.param], h, c)
    return result


def harm(
    classifier: Classifier, layers: Sequence[Layer], clean: torch.Tensor
) -> dict[ParamName, torch.Tensor]:
    """Return H per layer: what clean images lose with each weight.

    H is the mean over clean images of relu(w * dm/dw), m the margin between the two highest
    logits: to first order, how much of the margin the weight holds up.
    """
    sources = list(dict.fromkeys(layer.source for layer in layers))
    outputs = [layer.output for layer in layers]
    total = {
        layer.param: torch.zeros_like(classifier.module.leaves[layer.param]) for layer in layers
    }

    def margin(logits: torch.Tensor) -> torch.Tensor:
        top = logits.topk(2, dim=1).values
        return top[:, 0] - top[:, 1]

    for part in torch.split(clean, 50):
        features, gradient = classifier.gradients(part, sources, outputs, margin)
        for layer in layers:
            weight = layer.centred(classifier.module.leaves[layer.param])
            for rows in chunks(len(part), layer.size):
                moved = correlate(
                    classifier, layer, features[layer.source][rows], gradient[layer.output][rows]
                )
                total[layer.param] += (weight * moved).relu().sum(0)
    return {param: value / len(clean) for param, value in total.items()}


def chunks(count: int, size: int) -> Iterator[slice]:
    """Yield slices of `count` images such that one weight tensor each stays within memory."""
    step = max(1, min(count, _BUDGET // max(size, 1)))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
