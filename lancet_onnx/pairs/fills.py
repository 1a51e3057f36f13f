# SPDX-License-Identifier: Apache-2.0
"""What a region of an image is filled with to see what the region does.

Lengths are in pixels of an image of 32 x 32 and grow with the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

Fill = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From images (N, C, H, W) in [0, 1] and masks (N, 1, H, W) in [0, 1] to images of the same shape,
of which what is under the masks is used. All are float32."""


def filled(images: torch.Tensor, masks: torch.Tensor, fill: Fill) -> torch.Tensor:
    """Return images (N, C, H, W) with `fill` where the masks (N, 1, H, W) are; gradients pass."""
    return images * (1 - masks) + fill(images, masks) * masks


def blurred(images: torch.Tensor, _masks: torch.Tensor) -> torch.Tensor:
    """Fill by the image so blurred that only its large forms are left."""
    return blur(images, 4.0)


def mean_colour(images: torch.Tensor, _masks: torch.Tensor) -> torch.Tensor:
    """Fill by the mean colour of the image."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def drawn_in(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Fill by what is around, smoothly: nothing of what is under the mask is left."""
    around = (1 - masks).clamp(min=1e-3)
    return blur(images * around, 2.0) / blur(around, 2.0)


def colour_around(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Fill by the mean colour of a ring around the mask."""
    ring = (blur(masks, 2.0) > 0.1) * (1 - masks) + 1e-6
    mean = (images * ring).sum((2, 3), keepdim=True) / ring.sum((2, 3), keepdim=True)
    return mean.expand_as(images)


def noise(images: torch.Tensor, draw: torch.Generator) -> Fill:
    """Return a fill of noise with each image's own mean and spread.

    All images get the same draw, so that an image's result does not depend on its group.
    """
    drawn = torch.randn((1, *images.shape[1:]), generator=draw).to(images.device)

    def fill(images: torch.Tensor, _masks: torch.Tensor) -> torch.Tensor:
        mean = images.mean((2, 3), keepdim=True)
        spread = (images - mean).square().mean((2, 3), keepdim=True).sqrt()
        return (mean + spread * drawn).clamp(0, 1)

    return fill


def shuffled(images: torch.Tensor, draw: torch.Generator) -> Fill:
    """Return a fill of each image's own pixels in another order, the same for all images."""
    order = torch.randperm(math.prod(images.shape[2:]), generator=draw).to(images.device)
    return lambda images, _masks: images.flatten(2)[..., order].reshape(images.shape)


def blur(values: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return values (N, C, H, W) blurred by a Gaussian; nothing is lost over the edges."""
    height, width = values.shape[2:]
    own = max(0.5, sigma * math.sqrt(height * width) / 32)
    down, across = (_weights(side, own, values.device) for side in (height, width))
    return down @ values @ across.T


def _weights(side: int, sigma: float, device: torch.device) -> torch.Tensor:
    """Return (side, side) how much of each pixel goes into each one."""
    at = torch.arange(side, device=device, dtype=torch.float32)
    weights = torch.exp(-((at[:, None] - at) ** 2) / (2 * sigma * sigma))
    return weights / weights.sum(1, keepdim=True)
