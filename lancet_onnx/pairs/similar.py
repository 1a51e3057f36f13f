# SPDX-License-Identifier: Apache-2.0
"""More errors of the same kind (the paper's N_e): errors seen a little otherwise that stay errors.

A transform is used only where it fits the data: where the model still knows nearly all of the
images that it knows as they are. A mirrored digit is another sign, a mirrored cat is a cat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from lancet_onnx.pairs.canvas import Canvas

_TURN, _SHIFT, _SCALE, _LIGHT = math.radians(8), 0.07, 0.08, 0.15
"""How far images are turned, shifted (share of a side), scaled and made brighter, at most."""

FITS = 0.97
"""A transform fits if the model keeps its label on so many images that it gets right."""

_JUDGED_ON = 500

Transform = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Similar:
    """Errors made from errors.

    Attributes:
        pixels: (M, C, H, W) in [0, 1]; all of them are misclassified.
        origin: (M,) the position of the error that each was made from.
    """

    pixels: torch.Tensor
    origin: torch.Tensor


def similar(
    canvas: Canvas, errors: torch.Tensor, true: torch.Tensor, right: torch.Tensor, seed: int
) -> Similar:
    """Return transformed errors that the model still gets wrong, each transform once an error.

    Args:
        canvas: the way into the model.
        errors: (E, C, H, W) misclassified pixels.
        true: (E,) their true labels.
        right: (R, C, H, W) pixels that the model gets right; they say which transforms fit.
        seed: of the amounts.
    """
    draw = torch.Generator().manual_seed(seed)
    names = fitting(canvas, right, seed) if len(errors) else ()
    pixels, origin = [errors[:0]], [torch.zeros(0, dtype=torch.int64)]
    for name in names:
        made = TRANSFORMS[name](errors, draw)
        wrong = (canvas.read(made) != true).nonzero()[:, 0]
        pixels.append(made[wrong])
        origin.append(wrong.cpu())
    return Similar(torch.cat(pixels), torch.cat(origin))


def fitting(canvas: Canvas, right: torch.Tensor, seed: int) -> tuple[str, ...]:
    """Return the names of the transforms that keep the label of `FITS` of the images `right`."""
    draw = torch.Generator().manual_seed(seed)
    few = right[:_JUDGED_ON]
    if not canvas.layout or not len(few):
        return ()
    labels = canvas.read(few)

    def kept(transform: Transform) -> float:
        return float((canvas.read(transform(few, draw)) == labels).float().mean())

    return tuple(name for name, transform in TRANSFORMS.items() if kept(transform) >= FITS)


def turned(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Return images each turned by up to some degrees about its middle."""
    angle = _amounts(images, _TURN, draw)
    return _resampled(images, angle.cos(), angle.sin())


def scaled(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Return images each made a little larger or smaller."""
    size = 1 + _amounts(images, _SCALE, draw)
    return _resampled(images, size, torch.zeros_like(size))


def shifted(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Return images all shifted by the same few pixels."""
    most = [max(1, round(_SHIFT * side)) for side in images.shape[2:]]
    by = [int(torch.randint(-m, m + 1, (), generator=draw)) for m in most]
    if by == [0, 0]:
        by = most
    return images.roll(by, (2, 3))


def mirrored(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Return images with left and right exchanged."""
    return images.flip(3)


def brightened(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Return images each made brighter or darker."""
    factor = 1 + _amounts(images, _LIGHT, draw)
    return (images * factor[:, None, None, None]).clamp(0, 1)


TRANSFORMS: dict[str, Transform] = {
    "rotation": turned,
    "shift": shifted,
    "scale": scaled,
    "flip": mirrored,
    "brightness": brightened,
}


def _amounts(images: torch.Tensor, most: float, draw: torch.Generator) -> torch.Tensor:
    """Return an amount for each image, from half of `most` on to either side."""
    part = 0.5 + 0.5 * torch.rand(len(images), generator=draw)
    side = 2 * torch.randint(2, (len(images),), generator=draw) - 1
    return (most * part * side).to(images)


def _resampled(images: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    height, width = images.shape[2:]
    zero = torch.zeros_like(cosine)
    # The grid's axes are both [-1, 1], whatever the sides.
    rows = [
        torch.stack([cosine, -sine * height / width, zero], 1),
        torch.stack([sine * width / height, cosine, zero], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
