# SPDX-License-Identifier: Apache-2.0
"""Forms of a mask: what a reconstructed trigger may look like.

Free masks find scattered pixels, soft blobs find several small patches, one window finds a large
patch, in which a free mask loses its way: a part of it does little until the rest is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

_SHARP = 3.0
_LONGEST = 0.55
"""Half a window's side at most, as a share of the image's."""


@dataclass(frozen=True, slots=True)
class Form:
    """How opacity is made of numbers.

    Attributes:
        name: what reports call it.
        start: what the numbers begin at; higher ones cover more of the image. A window begins
            large, so that the place it has to shrink to is inside.
        blob: side of soft blobs in pixels; 0 for pixels by themselves.
        window: one soft rectangle, of a middle and half a side along each axis.
    """

    name: str
    start: float
    blob: int = 0
    window: bool = False


FREE = Form("free", -1.5)
BLOB = Form("blob", -1.0, blob=5)
WINDOW = Form("window", 1.5, window=True)


def begin(
    form: Form, count: int, height: int, width: int, draw: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Return `count` masks' numbers to begin with, all different."""
    if form.window:
        middle, half = 0.3 * torch.randn((2, count, 1, 2), generator=draw)
        return torch.stack([middle, form.start + half], -1).to(device)
    shape = (count, 1, height, width)
    return (form.start + 0.1 * torch.randn(shape, generator=draw)).to(device)


def opacity(form: Form, numbers: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return opacities (count, 1, height, width) in [0, 1] of the masks' numbers."""
    if form.window:
        middle, half = torch.sigmoid(2 * numbers[..., 0]), _LONGEST * torch.sigmoid(numbers[..., 1])
        down, across = (
            _inside(middle[:, 0, axis], half[:, 0, axis], side)
            for axis, side in enumerate((height, width))
        )
        return (down[:, :, None] * across[:, None, :])[:, None]
    if form.blob:
        soft = functional.avg_pool2d(numbers, form.blob, 1, form.blob // 2, count_include_pad=False)
        return torch.sigmoid(_SHARP * soft)
    return torch.sigmoid(numbers)


def _inside(middle: torch.Tensor, half: torch.Tensor, side: int) -> torch.Tensor:
    """Return for each of `side` pixels how far it is inside; edges are soft over two pixels."""
    if side == 1:
        return torch.ones(len(middle), 1, device=middle.device)
    at = (torch.arange(side, device=middle.device) + 0.5) / side
    return torch.sigmoid(side * (half[:, None] - (at - middle[:, None]).abs()))
