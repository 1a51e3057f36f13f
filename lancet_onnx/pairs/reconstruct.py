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
from dataclasses import dataclass

import torch
from torch.nn import functional

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.runtime.classifier import CHUNK, Classifier
from lancet_onnx.runtime.executor import Params
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.leads import lead
from lancet_onnx.types import ValueName

ALIKE = 0.5
WANTED = 0.7
"""The lead asked for, as a share of what is usual for images of the class."""
ENOUGH = 0.8
"""A trigger works on an image with this share of the lead asked for."""
HOLDS = 0.93
"""A trigger counts if it works on so many of the images that it was just tried on."""
_RATE, _BETAS = 0.1, (0.5, 0.9)
_START = -2.0
_WARM = 20
_PRICE, _DEARER, _CHEAPER = 2.4, 1.1, 1.15
_MEMORY = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The cheapest trigger of each class that was looked for.

    Attributes:
        classes: (T,) the classes.
        cost: (T,) see the module; 2 where no trigger held.
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


@dataclass(frozen=True, slots=True, eq=False)
class Natural:
    """What is usual for each class: the lead of its images, and its place in early layers.

    Attributes:
        lead: (classes,) median lead of the images of the class.
        values: the values that alikeness is measured at.
        way: for each value (classes, elements): from the mean of all others to the class's own.
    """

    lead: torch.Tensor
    values: tuple[ValueName, ...]
    way: tuple[torch.Tensor, ...]


def early_values(classifier: Classifier) -> tuple[ValueName, ...]:
    """Return inputs of the last layers at which an image's parts are still apart.

    Behind the first fully connected layer or attention everything a class does looks alike.
    """
    names: list[ValueName] = []
    layers = find_layers(classifier)
    for layer in layers[:-1]:
        name = layer.node.inputs[0]
        if name != classifier.signature.input.name and name not in names:
            names.append(name)
        if layer.node.op_type not in ("Conv", "ConvTranspose"):
            break
    return tuple(names[-2:])


def natural(canvas: Canvas) -> Natural:
    """Measure what is usual for each class, on clean images."""
    classifier = canvas.classifier
    values, logits = early_values(classifier), classifier.signature.logits
    with torch.no_grad():
        rows = [canvas.run(part, [*values, logits]) for part in torch.split(canvas.pixels, CHUNK)]
    columns = [torch.cat(parts) for parts in zip(*rows, strict=True)]
    scores, labels = columns[-1], canvas.labels
    leads = lead(scores, labels)
    usual = leads.median()
    classes = classifier.signature.classes
    own = [leads[labels == c].median() if (labels == c).any() else usual for c in range(classes)]
    way = []
    for column in columns[:-1]:
        total, count = column.sum(0), len(column)
        ways = torch.zeros(classes, column.shape[1], device=column.device)
        for c in range(classes):
            mine = labels == c
            n = int(mine.sum())
            if 0 < n < count:
                inside = column[mine].sum(0)
                ways[c] = inside / n - (total - inside) / (count - n)
        way.append(ways)
    return Natural(torch.stack(own).clamp(min=1e-3), values, tuple(way))


def reconstruct(
    canvas: Canvas,
    usual: Natural,
    classes: Sequence[int],
    *,
    steps: int,
    batch: int,
    blob: int = 0,
    seed: int = 0,
    alike: float = ALIKE,
    asked: float = WANTED,
    params: Params | None = None,
    stop: Callable[[float], bool] = lambda share: False,
) -> Found | None:
    """Search all `classes` at once, each with its own mask, pattern and price.

    A class may be given several times: each search starts elsewhere. With `blob` the mask is made
    of soft blobs of that many pixels. `asked` is the lead asked for as a share of what is usual;
    `params` replace leaves, as those of a repaired model. `stop` hears how far the search is; what
    it breaks off comes to None.
    """
    device = canvas.pixels.device
    draw = torch.Generator().manual_seed(seed)
    count, (channels, height, width) = len(classes), canvas.pixels.shape[1:]
    targets = torch.tensor(list(classes), device=device)
    wanted = (asked * usual.lead[targets]).repeat_interleave(batch)
    labels = targets.repeat_interleave(batch)
    ways = [way[targets] for way in usual.way]
    lengths = [way.square().sum(1).clamp(min=1e-12) for way in ways]
    mask = _START + 0.1 * torch.randn((count, 1, height, width), generator=draw)
    pattern = 0.5 * torch.randn((count, channels, height, width), generator=draw)
    mask, pattern = (t.to(device).requires_grad_() for t in (mask, pattern))
    adam = torch.optim.Adam([mask, pattern], lr=_RATE, betas=_BETAS)
    price = torch.full((count,), _PRICE, device=device)
    works, likes = torch.zeros(count, device=device), torch.zeros(count, device=device)
    best = torch.full((count,), torch.inf, device=device)
    kept = [torch.zeros(count, device=device), torch.zeros(count, device=device)]
    pictures = [torch.zeros_like(mask), torch.zeros_like(pattern)]
    wanted_values = [*usual.values, canvas.classifier.signature.logits]
    for step in range(steps):
        images = canvas.varied(batch, draw)
        with torch.no_grad():
            *clean, scores = canvas.run(images, wanted_values, params)
        others = (scores.argmax(1).repeat(count) != labels).float()
        number = others.reshape(count, batch).sum(1).clamp(min=1)
        shown, colour = _opacity(mask, blob), torch.sigmoid(pattern)
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
        gradients = torch.autograd.grad((misses + price * cost).sum(), [mask, pattern])
        mask.grad, pattern.grad = gradients
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
    return Found(targets, torch.where(lost, 2.0, best), kept[0], kept[1], *pictures)


def _opacity(mask: torch.Tensor, blob: int) -> torch.Tensor:
    if not blob:
        return torch.sigmoid(mask)
    soft = functional.avg_pool2d(mask, blob, 1, blob // 2, count_include_pad=False)
    return torch.sigmoid(3 * soft)
