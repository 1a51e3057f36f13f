# SPDX-License-Identifier: Apache-2.0
"""Cheap looks at each class: they say where to search first, and are no verdict."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.leads import lead

_IMAGES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Robust z-scores over classes; the higher, the more unusual a class is.

    Attributes:
        static: mean weight of the last layer into the class; 0 where the layer cannot be read.
        margin: lead of the class on noise, without any data.
        outlier: how far the class could be lifted by the one unit that lifts it most, from its
            mean to the largest value that it has on clean images.
    """

    static: torch.Tensor
    margin: torch.Tensor
    outlier: torch.Tensor

    @property
    def order(self) -> list[int]:
        """Classes, the most unusual first."""
        total = self.static + self.margin + self.outlier
        return [int(c) for c in total.argsort(descending=True, stable=True)]


def looks(canvas: Canvas, seed: int) -> Looks:
    """Take all three looks; one forward of a few images."""
    classifier, device = canvas.classifier, canvas.pixels.device
    classes = classifier.signature.classes
    draw = torch.Generator().manual_seed(seed)
    shape = (_IMAGES, *canvas.pixels.shape[1:])
    scores = canvas.logits(torch.rand(shape, generator=draw).to(device))
    rows = [lead(scores, torch.full((_IMAGES,), c, device=device)).mean() for c in range(classes)]
    static, outlier = torch.zeros(classes), torch.zeros(classes)
    layer = find_layers(classifier)[-1:]
    weight = classifier.module.leaves[layer[0].param].detach() if layer else torch.zeros(0)
    if weight.ndim == 2 and classes in weight.shape:
        by_class = weight if weight.shape[0] == classes else weight.T
        static = _z(by_class.mean(1))
        with torch.no_grad():
            inside = canvas.run(canvas.pixels[:_IMAGES], [layer[0].node.inputs[0]])[0]
        if inside.shape[1] == by_class.shape[1]:
            room = inside.amax(0) - inside.mean(0)
            outlier = _z((room * (by_class - by_class.mean(0))).amax(1))
    return Looks(static.cpu(), _z(torch.stack(rows)).cpu(), outlier.cpu())


def _z(values: torch.Tensor) -> torch.Tensor:
    # Not `median`, which of an even number of values takes the lower of the two in the middle.
    middle = values.quantile(0.5)
    spread = 1.4826 * (values - middle).abs().quantile(0.5)
    # Of three or four classes most are often alike: their deviation tells nothing.
    spread = torch.maximum(spread, values.std(correction=0) / 3)
    return (values - middle) / spread.clamp(min=1e-6)
