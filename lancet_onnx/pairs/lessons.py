# SPDX-License-Identifier: Apache-2.0
"""Images to learn from, each time seen a little otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.similar import TRANSFORMS
from lancet_onnx.types import ValueName

_ALONE = "flip"
"""This transform keeps half of what it is done to as it is; one of the others follows it."""


def varied(
    canvas: Canvas, fitting: tuple[str, ...]
) -> Callable[[torch.Tensor, torch.Generator], Mapping[ValueName, torch.Tensor]]:
    """Return a function that gives model inputs for (B,) positions of the canvas.

    Half of a batch is flipped, where that fits the data, and the whole of it is as it was or
    undergoes one other of the `fitting` transforms.
    """
    others = [TRANSFORMS[name] for name in fitting if name != _ALONE]
    name = canvas.classifier.signature.input.name

    def feeds(part: torch.Tensor, draw: torch.Generator) -> Mapping[ValueName, torch.Tensor]:
        images = canvas.pixels[part]
        if _ALONE in fitting:
            chosen = torch.rand(len(images), generator=draw).to(images.device) < 0.5
            images = torch.where(chosen[:, None, None, None], images.flip(3), images)
        kind = int(torch.randint(len(others) + 1, (), generator=draw))
        if kind < len(others):
            images = others[kind](images, draw)
        return {name: canvas.inputs(images)}

    return feeds
