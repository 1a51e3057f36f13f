# SPDX-License-Identifier: Apache-2.0
"""Pixels on which a trigger is drawn by gradients: from [0, 1] to the model's input and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.runtime.classifier import CHUNK, Classifier
from lancet_onnx.runtime.executor import Params
from lancet_onnx.runtime.signature import torch_dtype
from lancet_onnx.samples import Preprocess, Samples
from lancet_onnx.samples.core import Floats
from lancet_onnx.trigger import Mode, Trigger
from lancet_onnx.types import ValueName

CHANGES = ("as they are", "flipped", "turned", "moved", "shuffled", "mixed")
"""What is done to the images that a trigger is tried on, a sixth of them each."""

AT_ONCE, MEMORY = 512, 2**31
"""Images that run at once: so many, and only as many as fit in this many bytes."""

_NEAR = 7
"""An image of one class is moved by up to a part of its sides: so many make a side."""

_TILES = 4
"""A shuffled image is cut into so many tiles along each axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """Images as (N, C, H, W) pixels in [0, 1], and the way from there into the model.

    Raw inputs, whose pixels have no meaning, are scaled by their own range and seen as pictures of
    one row: (N, 1, 1, elements).

    Attributes:
        classifier: the model.
        pixels: the images.
        labels: (N,) what the unrepaired model says of them.
        scale: (C, 1, 1) factor from a pixel to an input; as are `offset`.
        offset: what is added to it.
        shape: of one input in the model's form without the batch.
        layout: ``nchw`` or ``nhwc``; "" for raw inputs.
        swapped: channels are in reverse order in the model.
    """

    classifier: Classifier
    pixels: torch.Tensor
    labels: torch.Tensor
    scale: torch.Tensor
    offset: torch.Tensor
    shape: tuple[int, ...]
    layout: str
    swapped: bool

    @classmethod
    def of(cls, classifier: Classifier, samples: Samples, preprocess: Preprocess) -> Canvas:
        """Return the canvas of some samples; the model runs over them once."""
        device = classifier.module.device
        raw = samples.raw or samples.images.ndim != 4
        if raw:
            flat = samples.pixels.reshape(len(samples), 1, 1, -1)
            low, high = float(flat.min()), float(flat.max())
            span = max(high - low, 1e-6)
            pixels = (flat - low) / span
            scale, offset = np.full(1, span, np.float32), np.full(1, low, np.float32)
            shape, layout, swapped = samples.images.shape[1:], "", False
        else:
            pixels = samples.pixels.transpose(0, 3, 1, 2)
            channels = pixels.shape[1]
            ends = [
                _in_place(preprocess).apply(np.full((1, 1, 1, channels), v, np.float32))
                for v in (0.0, 1.0)
            ]
            offset = ends[0].reshape(-1)
            scale = (ends[1] - ends[0]).reshape(-1)
            layout, swapped = preprocess.layout, preprocess.color == "bgr" and channels == 3
            shape = ()
        made = cls(
            classifier,
            torch.from_numpy(np.ascontiguousarray(pixels)).to(device),
            torch.zeros(0, dtype=torch.int64, device=device),
            torch.from_numpy(scale.copy())[:, None, None].to(device),
            torch.from_numpy(offset.copy())[:, None, None].to(device),
            tuple(shape),
            layout,
            swapped,
        )
        return replace(made, labels=made.read(made.pixels))

    def take(self, part: slice | torch.Tensor) -> Canvas:
        """Return the canvas with a part of its images; a tensor holds their positions."""
        return replace(self, pixels=self.pixels[part], labels=self.labels[part])

    def inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return model inputs for pixels (N, C, H, W); gradients pass."""
        if not self.layout:
            return (pixels * self.scale + self.offset).reshape(len(pixels), *self.shape)
        if self.swapped:
            pixels = pixels.flip(1)
        made = pixels * self.scale + self.offset
        return made if self.layout == "nchw" else made.permute(0, 2, 3, 1)

    def run(
        self, pixels: torch.Tensor, values: Sequence[ValueName], params: Params | None = None
    ) -> list[torch.Tensor]:
        """Return some values of the graph for pixels, one flat row an image; gradients pass."""
        name = self.classifier.signature.input.name
        feeds = {name: self.inputs(pixels).to(torch_dtype(self.classifier.signature.input))}
        found = self.classifier.run(feeds, list(dict.fromkeys(values)), params)
        return [found[value].reshape(len(pixels), -1) for value in values]

    def logits(self, pixels: torch.Tensor, params: Params | None = None) -> torch.Tensor:
        """Return logits (N, classes) of one chunk of pixels, without gradients."""
        with torch.no_grad():
            return self.run(pixels, [self.classifier.signature.logits], params)[0]

    def read(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the labels (N,) that the unrepaired model gives to pixels (N, C, H, W)."""
        rows = [self.logits(part).argmax(1) for part in torch.split(pixels, CHUNK) if len(part)]
        return torch.cat([*rows, self.labels[:0]])

    def at_once(self, least: int = 1) -> int:
        """Return how many images run at once: as many as fit into memory, `least` in any case."""
        floats = max(1, sum(self.classifier.elements.values()))
        return min(AT_ONCE, max(least, MEMORY // (4 * floats)))

    def varied(self, count: int, draw: torch.Generator) -> torch.Tensor:
        """Return `count` images, most of them flipped, turned, moved, shuffled or mixed.

        A planted trigger works on all of these; what only adds the missing half of a natural
        feature does not.
        """
        index = torch.randint(len(self.pixels), (count,), generator=draw).to(self.pixels.device)
        images = self.pixels[index]
        if not self.layout:
            return images
        parts = torch.split(images, max(1, -(-count // len(CHANGES))))
        return torch.cat([self.changed(part, kind, draw) for kind, part in enumerate(parts)])

    def nearby(self, source: int, count: int, draw: torch.Generator) -> torch.Tensor:
        """Return `count` images that the model reads as `source`, all but a quarter changed a bit.

        A trigger that works on one class bears that its images move against it, and that others
        shine through them; what draws one class on top of the other does not.
        """
        own = (self.labels == source).nonzero()[:, 0]
        index = own[torch.randint(len(own), (count,), generator=draw).to(own.device)]
        plain, *moved, mixed = torch.split(self.pixels[index], max(1, -(-count // 4)))
        if self.layout:
            moved = [_rolled(part, draw) for part in moved]
        other = torch.randint(len(self.pixels), (len(mixed),), generator=draw)
        mixed = 0.8 * mixed + 0.2 * self.pixels[other.to(mixed.device)]
        return torch.cat([plain, *moved, mixed])

    def changed(self, images: torch.Tensor, kind: int, draw: torch.Generator) -> torch.Tensor:
        """Return images changed in one of the ways of `CHANGES`, by its number."""
        height, width = images.shape[2:]
        name = CHANGES[kind]
        if name == "flipped":
            return images.flip(3 - int(torch.randint(2, (), generator=draw)))
        if name == "turned" and height == width:
            return images.rot90(1, (2, 3))
        if name == "moved":
            by = [
                int(torch.randint(-s // 3, s // 3 + 1, (), generator=draw)) for s in (height, width)
            ]
            return images.roll(by, (2, 3))
        if name == "shuffled" and min(height, width) >= _TILES:
            return _shuffled(images, draw)
        if name == "mixed":
            other = torch.randint(len(self.pixels), (len(images),), generator=draw)
            weight = 0.7 * torch.rand((len(images), 1, 1, 1), generator=draw).to(images)
            return weight * images + 0.3 * self.pixels[other.to(images.device)]
        return images

    def trigger(
        self, mask: torch.Tensor, pattern: torch.Tensor, mode: Mode, source: str
    ) -> Trigger:
        """Return a trigger from a mask (1, H, W) and a pattern (C, H, W)."""
        if self.layout:
            parts = [part.permute(1, 2, 0).cpu().numpy() for part in (mask, pattern)]
            return Trigger(_copied(parts[0]), _copied(parts[1]), mode, source)
        pattern = pattern.to(self.scale.device)
        raw = pattern * self.scale + (self.offset if mode != "add" else 0.0)
        parts = [part.reshape(self.shape).cpu().numpy() for part in (mask, raw)]
        return Trigger(_copied(parts[0]), _copied(parts[1]), mode, source)


def check_gradients(classifier: Classifier) -> None:
    """Refuse a model to whose pixels no gradient gets.

    Raises:
        UnsupportedError: it takes whole numbers.
    """
    spec = classifier.signature.input
    if not torch_dtype(spec).is_floating_point:
        raise UnsupportedError(
            f"the input '{spec.name}' takes {spec.dtype}: what is looked for here is found by "
            "gradients, which do not pass whole numbers. Export the model with a float input; "
            "triggers that are known (--trigger) need none"
        )


def _in_place(preprocess: Preprocess) -> Preprocess:
    """Return a preprocessing that leaves axes and channels where they are."""
    return Preprocess(preprocess.name, preprocess.scale, preprocess.mean, preprocess.std)


def _rolled(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    by = [int(torch.randint(-s // _NEAR, s // _NEAR + 1, (), generator=draw))
          for s in images.shape[2:]]  # fmt: skip
    return images.roll(by, (2, 3))


def _shuffled(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    height, width = (side // _TILES for side in images.shape[2:])
    whole = (height * _TILES, width * _TILES)
    inner = images[:, :, : whole[0], : whole[1]]
    tiles = functional.unfold(inner, (height, width), stride=(height, width))
    tiles = tiles[..., torch.randperm(tiles.shape[-1], generator=draw).to(images.device)]
    folded = functional.fold(tiles, whole, (height, width), stride=(height, width))
    result = images.clone()
    result[:, :, : whole[0], : whole[1]] = folded
    return result


def _copied(values: Floats) -> Floats:
    return np.ascontiguousarray(values, np.float32)
