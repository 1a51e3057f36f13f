# SPDX-License-Identifier: Apache-2.0
"""Triggers from nothing: for each class the cheapest one that the model does not see as the class.

A trigger is cheap if it covers little of the image, and if what it does inside the model is not
what the class itself does there. Every class of a clean model has small universal triggers, but
they work by drawing what the class is made of; a planted one works by itself:

    success = mean relu(1 - lead / wanted)              of images that are not of the class
    cost    = coverage + ALIKE * alikeness
    loss    = success + price * cost

lead is by how much the class's logit is over the best other one, wanted what is usual for images of
the class. alikeness is how far the trigger moves the values of early layers along the way from all
images to those of the class, as a share of that way. price goes up while the trigger works and down
while it does not (Neural Cleanse, S&P 2019), for each class by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch.nn import functional

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.masks import FREE, Form, begin, opacity
from lancet_onnx.pairs.natural import Natural
from lancet_onnx.runtime.executor import Params
from lancet_onnx.runtime.leads import lead

ALIKE = 0.5
WANTED = 0.7
"""The lead asked for, as a share of what is usual for images of the class."""
ENOUGH = 0.8
"""A trigger works on an image with this share of the lead asked for."""
HOLDS = 0.93
"""A trigger counts if it works on so many of the images that it was just tried on."""
_RATE, _BETAS = 0.2, (0.5, 0.9)
_WARM = 20
_PRICE, _DEARER, _CHEAPER = 2.4, 1.1, 1.15
_MEMORY = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The cheapest trigger of each class that was looked for.

    Attributes:
        classes: (T,) the classes.
        cost: (T,) see the module; 2 to 3 where no trigger held, less the more images it worked on.
        coverage: (T,) mean of the mask, 0 to 1.
        alikeness: (T,) 0 nothing of the class, 1 as far as the class itself.
        mask: (T, 1, H, W) opacity.
        pattern: (T, C, H, W) in [0, 1].
    """

    classes: torch.Tensor
    cost: torch.Tensor
    coverage: torch.Tensor
    alikeness: torch.Tensor
    mask: torch.Tensor
    pattern: torch.Tensor

    def row(self, i: int) -> Found:
        """Return what was found for the i-th class alone."""
        return Found(*(getattr(self, name)[i : i + 1] for name in FIELDS))


FIELDS = tuple(field.name for field in fields(Found))


def joined(parts: Sequence[Found]) -> Found:
    """Return what several searches found, one after the other."""
    return Found(*(torch.cat([getattr(part, name) for part in parts]) for name in FIELDS))


def reconstruct(
    canvas: Canvas,
    usual: Natural,
    classes: Sequence[int],
    *,
    steps: int,
    batch: int,
    form: Form = FREE,
    seed: int = 0,
    alike: float = ALIKE,
    asked: float = WANTED,
    params: Params | None = None,
    source: int | None = None,
    stop: Callable[[float], bool] = lambda share: False,
) -> Found | None:
    """Search all `classes` at once, each with its own mask, pattern and price.

    A class may be given several times: each search starts elsewhere. `asked` is the lead asked for
    as a share of what is usual; `params` replace leaves, as those of a repaired model. With
    `source` a trigger need only work on images that the model reads as that class, and is compared
    with the way from there. `stop` hears how far the search is; what it breaks off comes to None.
    """
    device = canvas.pixels.device
    draw = torch.Generator().manual_seed(seed)
    count, (channels, height, width) = len(classes), canvas.pixels.shape[1:]
    targets = torch.tensor(list(classes), device=device)
    wanted = (asked * usual.lead[targets]).repeat_interleave(batch)
    labels = targets.repeat_interleave(batch)
    ways = [way[targets] if source is None else way[targets] - way[source] for way in usual.way]
    lengths = [way.square().sum(1).clamp(min=1e-12) for way in ways]
    numbers = begin(form, count, height, width, draw, device).requires_grad_()
    pattern = 0.5 * torch.randn((count, channels, height, width), generator=draw)
    pattern = pattern.to(device).requires_grad_()
    adam = torch.optim.Adam([numbers, pattern], lr=_RATE, betas=_BETAS)
    price = torch.full((count,), _PRICE, device=device)
    works, likes = torch.zeros(count, device=device), torch.zeros(count, device=device)
    best = torch.full((count,), torch.inf, device=device)
    kept = [torch.zeros(count, device=device), torch.zeros(count, device=device)]
    pictures = [torch.zeros_like(pattern[:, :1]), torch.zeros_like(pattern)]
    wanted_values = [*usual.values, canvas.classifier.signature.logits]
    for step in range(steps):
        images = (
            canvas.varied(batch, draw) if source is None else canvas.nearby(source, batch, draw)
        )
        with torch.no_grad():
            *clean, scores = canvas.run(images, wanted_values, params)
        before = scores.argmax(1).repeat(count)
        others = (before != labels if source is None else before == source).float()
        number = others.reshape(count, batch).sum(1).clamp(min=1)
        shown, colour = opacity(form, numbers, height, width), torch.sigmoid(pattern)
        m, p = shown[:, None], colour[:, None]
        stamped = (images[None] * (1 - m) + p * m).reshape(-1, channels, height, width)
        *inside, scores = canvas.run(stamped, wanted_values, params)
        share = lead(scores, labels) / wanted
        misses = (functional.relu(1 - share) * others).reshape(count, batch).sum(1) / number
        alikeness = torch.zeros(count, device=device)
        for after, before, way, length in zip(inside, clean, ways, lengths, strict=True):
            moved = after.reshape(count, batch, -1) - before[None]
            moved = (moved * others.reshape(count, batch, 1)).sum(1) / number[:, None]
            alikeness = alikeness + functional.relu((moved * way).sum(1) / length) / len(ways)
        coverage = shown.mean((1, 2, 3))
        cost = coverage + alike * min(1.0, step / _WARM) * alikeness
        gradients = torch.autograd.grad((misses + price * cost).sum(), [numbers, pattern])
        numbers.grad, pattern.grad = gradients
        adam.step()
        canvas.classifier.forwards += 2 * len(stamped)
        with torch.no_grad():
            hit = ((share > ENOUGH).float() * others).reshape(count, batch).sum(1) / number
            works = _MEMORY * works + (1 - _MEMORY) * hit
            likes = _MEMORY * likes + (1 - _MEMORY) * alikeness
            now = coverage + alike * likes
            better = (works >= HOLDS) & (now < best)
            best = torch.where(better, now, best)
            kept = [
                torch.where(better, *both) for both in zip((coverage, likes), kept, strict=True)
            ]
            pictures = [
                torch.where(better[:, None, None, None], *both)
                for both in zip((shown, colour), pictures, strict=True)
            ]
            up = works > HOLDS + 0.02
            price = torch.where(up, price * _DEARER, price / _CHEAPER).clamp(1e-3, 1e3)
        if stop((step + 1) / steps) and step + 1 < steps:
            return None
    lost = best.isinf()
    pictures[0][lost], pictures[1][lost] = shown.detach()[lost], colour.detach()[lost]
    kept[0][lost], kept[1][lost] = 1.0, likes[lost]
    return Found(targets, torch.where(lost, 3.0 - works, best), kept[0], kept[1], *pictures)
