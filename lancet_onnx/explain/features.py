# SPDX-License-Identifier: Apache-2.0
"""What a model looks for in a class, or what a few weights do: pictures by gradient ascent.

    pixels = sigmoid(mean + root * inverse FFT(spectrum / frequency))
    whole        maximises  logit_c(x; W)
    conditioned  maximises  logit_c(x; W) - logit_c(x; W with the few weights at zero)

Without regularisers the ascent ends in noise that no person reads. Here colours are mixed as the
data mixes them, low frequencies move most, differences between neighbours cost, and each step sees
the picture shifted, turned, scaled and with noise: only forms that hold through all of that grow.

Source: Olah et al., "Feature Visualization", Distill 2017 (doi 10.23915/distill.00007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from lancet_onnx.pairs.canvas import Canvas, check_gradients
from lancet_onnx.runtime.executor import Params
from lancet_onnx.types import Progress, no_progress

STEPS = 128
_RATE, _START = 0.05, 0.1
_SHIFT, _TURN, _SCALE = 1 / 8, 0.15, 0.1
"""How far a step shifts (share of a side), turns (radians) and scales the picture, at most."""
_NOISE, _LOUD = 0.03, 0.3
"""Noise on the pixels, and how much more there is at first: a unit that is off on plain grey gets
a gradient only while something turns it on."""
_ROUGH = 0.06
"""The price of differences between neighbours, beside an ascent that is 1 in the mean."""
_DARKEST = 0.02
_IMAGES = 200
"""Images that colours are learnt from."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Pictures of what raises some numbers that a model computes.

    Attributes:
        pixels: (K, C, H, W) float32 in [0, 1], one for each class.
        values: (K,) the number that each picture comes to.
    """

    pixels: torch.Tensor
    values: torch.Tensor


def visualise(
    canvas: Canvas,
    classes: Sequence[int],
    without: Params | None = None,
    *,
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress = no_progress,
) -> tuple[Features, Features | None]:
    """Draw `classes`: whole, and what some weights contribute to each (None without weights).

    `without` are leaves in which these weights are zero. The canvas gives size and colours: pixels
    (N, C, H, W) in [0, 1] of ordinary images. All pictures are drawn at once, as far as memory
    goes. The two of a class start from the same noise and move alike, so that what differs between
    them is the weights' doing.

    Raises:
        UnsupportedError: the model takes whole numbers, through which no gradient passes.
    """
    check_gradients(canvas.classifier)
    size = max(1, canvas.at_once() // (1 if without is None else 3))
    parts = torch.split(torch.tensor(list(classes), dtype=torch.int64), size)
    drawn = []
    for number, part in enumerate(parts):

        def tick(share: float, number: int = number) -> None:
            progress("drawing what classes look like", (number + share) / len(parts))

        drawn.append(_ascend(canvas, part.to(canvas.pixels.device), without, steps, seed, tick))
    pixels, values = (torch.cat([pair[i] for pair in drawn], 1) for i in (0, 1))
    found = [Features(*both) for both in zip(pixels, values, strict=True)]
    return found[0], found[1] if without is not None else None


def contribution(
    canvas: Canvas, pixels: torch.Tensor, labels: torch.Tensor, without: Params
) -> torch.Tensor:
    """Return (N,) what the weights that are zero in `without` add to a logit of each image.

    `pixels` are (N, C, H, W) in [0, 1], `labels` (N,) the class that is asked about for each.
    """
    own = labels[:, None]
    there, gone = (canvas.logits(pixels, params).gather(1, own)[:, 0] for params in (None, without))
    return there - gone


def _ascend(
    canvas: Canvas,
    labels: torch.Tensor,
    without: Params | None,
    steps: int,
    seed: int,
    tick: Callable[[float], None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures (kinds, K, C, H, W) and values (kinds, K); two kinds if there are weights."""
    kinds, count = 1 if without is None else 2, len(labels)
    draw = torch.Generator().manual_seed(seed)
    spectrum, pixels = _painter(canvas, kinds, count, draw)
    adam = torch.optim.Adam([spectrum], lr=_RATE)
    for step in range(steps):
        shown = pixels()
        noise = _NOISE + _LOUD * (1 - step / steps) ** 4
        goal = _values(canvas, _moved(shown, noise, draw), labels, without).sum()
        (uphill,) = torch.autograd.grad(goal, [shown], retain_graph=True)
        # Logits and contributions differ in size, and the price of roughness must suit all.
        length = uphill.abs().mean((2, 3, 4), keepdim=True).clamp(min=1e-12)
        loss = _ROUGH * _roughness(shown) - (shown * uphill / length).sum()
        (spectrum.grad,) = torch.autograd.grad(loss, [spectrum])
        adam.step()
        # What the forwards do not count: the way back.
        canvas.classifier.forwards += 2 * count * (2 * kinds - 1)
        tick((step + 1) / steps)
    with torch.no_grad():
        shown = pixels()
        return shown, _values(canvas, shown, labels, without)


def _values(
    canvas: Canvas, pixels: torch.Tensor, labels: torch.Tensor, without: Params | None
) -> torch.Tensor:
    """Return (kinds, K) what the pictures (kinds, K, C, H, W) are to raise."""
    logits, own = canvas.classifier.signature.logits, labels[:, None]
    (scores,) = canvas.run(pixels.flatten(0, 1), [logits])
    values = scores.gather(1, own.repeat(len(pixels), 1)).reshape(len(pixels), -1)
    if without is None:
        return values
    (rest,) = canvas.run(pixels[1], [logits], without)
    return torch.stack([values[0], values[1] - rest.gather(1, own)[:, 0]])


def _painter(
    canvas: Canvas, kinds: int, count: int, draw: torch.Generator
) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
    """Return spectra to move, and the pictures (kinds, count, C, H, W) that they stand for."""
    channels, height, width = canvas.pixels.shape[1:]
    device = canvas.pixels.device
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency = (down.square() + across.square()).sqrt().clamp(min=1 / max(height, width))
    scale = 1 / frequency
    scale = (scale / scale.square().mean().sqrt()).to(device)
    mean, root = _colours(canvas.pixels[:_IMAGES])
    shape = (1, count, channels, height, width // 2 + 1, 2)
    start = _START * torch.randn(shape, generator=draw).repeat(kinds, 1, 1, 1, 1, 1)
    spectrum = start.to(device).requires_grad_()

    def pixels() -> torch.Tensor:
        waves = torch.view_as_complex(spectrum) * scale
        values = torch.fft.irfft2(waves, s=(height, width), norm="ortho")
        mixed = torch.einsum("dc,kncyx->kndyx", root, values)
        return torch.sigmoid(mixed + mean[:, None, None])

    return spectrum, pixels


def _colours(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean (C,) and a root (C, C) of the covariance of colours, both before the sigmoid."""
    flat = images.transpose(0, 1).flatten(1).clamp(_DARKEST, 1 - _DARKEST)
    values = torch.logit(flat)
    mean = values.mean(1)
    off = values - mean[:, None]
    lengths, axes = torch.linalg.eigh(off @ off.T / max(1, off.shape[1]))
    # A channel that never varies must be able to move, or nothing could be drawn in it.
    return mean, axes * lengths.clamp(min=0.1).sqrt()


def _moved(pixels: torch.Tensor, loud: float, draw: torch.Generator) -> torch.Tensor:
    """Return pictures (kinds, K, C, H, W) shifted, turned, scaled and with noise.

    Each class moves otherwise, both its pictures alike.
    """
    kinds, count, channels, height, width = pixels.shape
    drawn = 2 * torch.rand((4, count), generator=draw).to(pixels) - 1
    angle, size = _TURN * drawn[0], 1 + _SCALE * drawn[1]
    cosine, sine = size * angle.cos(), size * angle.sin()
    rows = [
        torch.stack([cosine, -sine * height / width, 2 * _SHIFT * drawn[2]], 1),
        torch.stack([sine * width / height, cosine, 2 * _SHIFT * drawn[3]], 1),
    ]
    theta = torch.stack(rows, 1).repeat(kinds, 1, 1)
    grid = functional.affine_grid(
        theta, [kinds * count, channels, height, width], align_corners=False
    )
    moved = functional.grid_sample(
        pixels.flatten(0, 1), grid, padding_mode="reflection", align_corners=False
    )
    noise = torch.randn((count, channels, height, width), generator=draw).to(pixels)
    return moved.reshape(pixels.shape) + loud * noise


def _roughness(pixels: torch.Tensor) -> torch.Tensor:
    """Return the total variation, for pictures of any size as if they had 32 pixels a side."""
    side = math.sqrt(math.prod(pixels.shape[-2:]))
    down, across = pixels.diff(dim=-2).abs().sum(), pixels.diff(dim=-1).abs().sum()
    return (down + across) * 32 / side
