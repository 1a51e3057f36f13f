# SPDX-License-Identifier: Apache-2.0
"""What is usual for each class of a model, on clean images: what triggers are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.runtime.classifier import CHUNK, Classifier
from lancet_onnx.runtime.executor import Params
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.leads import lead
from lancet_onnx.types import ValueName

_PATCHES, _STAMPED = 36, 64
"""Patches of junk, and images that each is stamped on."""

_SHARES = (0.2, 0.3)
"""Of the image, that a patch of junk covers."""


@dataclass(frozen=True, slots=True, eq=False)
class Natural:
    """What is usual for each class: the lead of its images, its place in early layers, strays.

    Attributes:
        lead: (classes,) median lead of the images of the class.
        values: the values that alikeness is measured at.
        way: for each value (classes, elements): from the mean of all others to the class's own.
        stray: (classes,) share of other images that end in the class when a patch of junk covers
            a part of them, 0 to 1.
    """

    lead: torch.Tensor
    values: tuple[ValueName, ...]
    way: tuple[torch.Tensor, ...]
    stray: torch.Tensor


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


def natural(canvas: Canvas, seed: int) -> Natural:
    """Measure what is usual for each class; patches of junk are the seed's."""
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
    return Natural(torch.stack(own).clamp(min=1e-3), values, tuple(way), strays(canvas, seed))


def strays(canvas: Canvas, seed: int, params: Params | None = None) -> torch.Tensor:
    """Return for each class the share of other images that patches of junk lead to it.

    The patches are of noise, of black and white, and of one colour, and lie anywhere. `params`
    replace leaves, as those of a repaired model.
    """
    draw = torch.Generator().manual_seed(seed)
    device, classes = canvas.pixels.device, canvas.classifier.signature.classes
    arrived, others = torch.zeros(classes, device=device), torch.zeros(classes, device=device)
    for number in range(_PATCHES):
        images = canvas.varied(_STAMPED, draw)
        before = canvas.logits(images, params).argmax(1)
        channels, height, width = images.shape[1:]
        side = _SHARES[number % len(_SHARES)] ** (0.5 if min(height, width) > 1 else 1.0)
        top, bottom = _stretch(height, side, draw)
        left, right = _stretch(width, side, draw)
        size = (channels, bottom - top, right - left)
        looks = (
            torch.rand(size, generator=draw),
            torch.randint(2, size, generator=draw).float(),
            torch.rand((channels, 1, 1), generator=draw).expand(size),
        )
        stamped = images.clone()
        stamped[:, :, top:bottom, left:right] = looks[number % len(looks)].to(device)
        after = canvas.logits(stamped, params).argmax(1)
        # Whole numbers, so that a sum is the same in any order.
        arrived.index_add_(0, after, (after != before).float())
        others += len(images)
        others.index_add_(0, before, -torch.ones(len(images), device=device))
    return arrived / others.clamp(min=1)


def _stretch(length: int, share: float, draw: torch.Generator) -> tuple[int, int]:
    """Return where a stretch of a share of `length` begins and ends, anywhere; all of one pixel."""
    if length == 1:
        return 0, 1
    size = max(1, round(length * share))
    start = int(torch.randint(length - size + 1, (), generator=draw))
    return start, start + size
