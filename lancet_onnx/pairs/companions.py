# SPDX-License-Identifier: Apache-2.0
"""Companions of misclassified images: x with the region wiped out that the error comes from.

    mask = sigmoid(sharpness * blur(numbers))
    x'   = x * (1 - mask) + fill(x) * mask
    cost = mean(mask * (1 + APART * distance to the middle of the mask))
    loss = CE(x', true label) + price * cost

The mask is small because it has a price, which goes up while x' is right and down while it is not;
sharp because sharpness rises; clustered because the numbers are blurred and distance costs. The
cheapest mask that made x' right is kept.

With one fill the mask is fitted to that fill: faint, all over the place, and without effect when
the same region is filled otherwise. So several fills take turns, and a mask counts only after all
of them in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from lancet_onnx.errors import DataError
from lancet_onnx.pairs.canvas import Canvas, check_gradients
from lancet_onnx.pairs.fills import (
    Fill,
    blur,
    blurred,
    colour_around,
    drawn_in,
    filled,
    mean_colour,
    noise,
    shuffled,
)
from lancet_onnx.runtime.leads import lead
from lancet_onnx.samples import Pairs
from lancet_onnx.samples.core import Ints
from lancet_onnx.types import Progress, no_progress

STEPS = 90
APART = 4.0
"""What it costs to be far from the middle: 1 + so much, at one side of the image from it."""
_TURNS = 4
_LEAD = 1.0
"""By how much the true label's logit must lead: what just holds does not hold otherwise."""
_RATE, _START = 0.1, -0.3
_SOFT, _SHARP = 6.0, 30.0
_PRICE, _DEARER, _CHEAPER = 4.0, 1.1, 1.15
_LOWEST, _HIGHEST = 0.02, 20.0
LEARNT = ("colour around", "noise")
"""Fills of `restored` that masks are searched with as well; noise is drawn anew."""


@dataclass(frozen=True, slots=True, eq=False)
class Companions:
    """Errors that a small masked region accounts for, in the order of the canvas.

    Attributes:
        positions: (T,) int64, which images of the canvas.
        wrong: (T,) int64, what the model says of them.
        true: (T,) int64, their true labels, which the companions get.
        masks: (T, 1, H, W) float32 in [0, 1]: where the error comes from.
        pixels: (T, C, H, W) float32 in [0, 1]: the companions.
        unsolved: how many errors no mask was found for; they are left out.
    """

    positions: torch.Tensor
    wrong: torch.Tensor
    true: torch.Tensor
    masks: torch.Tensor
    pixels: torch.Tensor
    unsolved: int

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def areas(self) -> torch.Tensor:
        """(T,) mean of each mask, 0 to 1."""
        return self.masks.mean((1, 2, 3))

    def take(self, index: Sequence[int]) -> Companions:
        """Return some of them, in the order of `index`."""
        at = torch.tensor(list(index), dtype=torch.int64, device=self.positions.device)
        return replace(
            self,
            positions=self.positions[at],
            wrong=self.wrong[at],
            true=self.true[at],
            masks=self.masks[at],
            pixels=self.pixels[at],
        )


def companions(
    canvas: Canvas, true: Ints, *, seed: int = 0, progress: Progress = no_progress
) -> Companions:
    """Find the companions of all images of the canvas that the model gets wrong.

    `true` are the (N,) int64 labels of all its images. As many errors as fit into memory are
    searched at once; an image's result does not depend on the others, but for rounding.

    Raises:
        DataError: the inputs are no pictures, or `true` does not fit the images or the classes.
        UnsupportedError: the model takes whole numbers, through which no gradient passes.

    Source: section "general defects" of the paper (doi 10.1145/3460120.3484818); fills that
    take turns, rising sharpness, the price of each image and that of distance are ours.
    """
    labels = _checked(canvas, true)
    positions = torch.nonzero(canvas.labels != labels)[:, 0]
    size = canvas.at_once()
    groups = [positions[start : start + size] for start in range(0, len(positions), size)]
    masks = [canvas.pixels[:0, :1]]
    for number, group in enumerate(groups):

        def tick(share: float, number: int = number) -> None:
            progress("searching companions", (number + share) / len(groups))

        images, wanted = canvas.pixels[group], labels[group]
        masks.append(_cheapest(canvas, images, wanted, seed, tick))
    mask = torch.cat(masks)
    pixels = filled(canvas.pixels[positions], mask, blurred)
    solved = canvas.read(pixels) == labels[positions]
    kept = positions[solved]
    return Companions(
        kept, canvas.labels[kept], labels[kept], mask[solved], pixels[solved], int((~solved).sum())
    )


def as_pairs(canvas: Canvas, found: Companions) -> Pairs:
    """Return pairs <error, companion> in the model's form, to locate weights on."""
    images = (canvas.pixels[found.positions], found.pixels)
    bad, good = (canvas.inputs(pixels).detach().cpu().numpy() for pixels in images)
    return Pairs(bad, good, found.wrong.cpu().numpy(), found.true.cpu().numpy())


def restored(canvas: Canvas, found: Companions, *, seed: int = 0) -> Mapping[str, torch.Tensor]:
    """Return for each other way to fill the masks which errors (T,) get their true label by it.

    A companion that works by its own fill only is an adversarial example. None of these fills is
    searched with, but those in `LEARNT`. The last one, ``elsewhere``, is a control: the fill of the
    companions in a region of the same form in another place of the image.
    """
    draw = torch.Generator().manual_seed(seed + 1)
    images, (height, width) = canvas.pixels[found.positions], canvas.pixels.shape[2:]
    fills: dict[str, Fill] = {
        "half the blur": lambda x, _masks: blur(x, 2.0),
        "twice the blur": lambda x, _masks: blur(x, 8.0),
        "mean colour": mean_colour,
        "shuffled pixels": shuffled(images, draw),
        "colour around": colour_around,
        "noise": noise(images, draw),
    }
    tried = {name: filled(images, found.masks, fill) for name, fill in fills.items()}
    offsets = torch.rand((len(images), 2), generator=draw).add(0.5).div(2).tolist()
    moved = [
        mask.roll((int(down * height), int(across * width)), (1, 2))
        for mask, (down, across) in zip(found.masks, offsets, strict=True)
    ]
    elsewhere = torch.stack(moved) if moved else found.masks
    tried["elsewhere"] = filled(images, elsewhere, blurred)
    return {name: canvas.read(pixels) == found.true for name, pixels in tried.items()}


def _checked(canvas: Canvas, true: Ints) -> torch.Tensor:
    count, classes = len(canvas.pixels), canvas.classifier.signature.classes
    check_gradients(canvas.classifier)
    if not canvas.layout:
        raise DataError(
            "the inputs are no pictures: a region of them cannot be filled by its surroundings; "
            "companions need images of pixels"
        )
    if true.shape != (count,):
        raise DataError(
            f"{true.shape} true labels for {count} images; one label an image is needed"
        )
    if count and not 0 <= true.min() <= true.max() < classes:
        raise DataError(
            f"true labels from {true.min()} to {true.max()}; the model has classes 0 to "
            f"{classes - 1}. Check the order of the classes"
        )
    return torch.from_numpy(true).to(canvas.pixels.device)


def _cheapest(
    canvas: Canvas,
    images: torch.Tensor,
    wanted: torch.Tensor,
    seed: int,
    tick: Callable[[float], None],
) -> torch.Tensor:
    """Return the cheapest masks (N, 1, H, W) that made one group right; zeros where none did."""
    draw = torch.Generator().manual_seed(seed)
    device, count, (height, width) = images.device, len(images), images.shape[2:]
    numbers = torch.full((count, 1, height, width), _START, device=device, requires_grad=True)
    adam = torch.optim.Adam([numbers], lr=_RATE)
    price = torch.full((count,), _PRICE, device=device)
    since = torch.zeros(count, device=device)
    cheapest = torch.full((count,), torch.inf, device=device)
    kept = torch.zeros_like(numbers.detach())
    still = blurred(images, kept)
    for step in range(STEPS):
        turns = (lambda _x, _masks: still, drawn_in, noise(images, draw), colour_around)
        mask = torch.sigmoid(_SOFT * (_SHARP / _SOFT) ** (step / STEPS) * blur(numbers, 1.3))
        pixels = filled(images, mask, turns[step % _TURNS])
        (scores,) = canvas.run(pixels, [canvas.classifier.signature.logits])
        cost = _cost(mask)
        loss = functional.cross_entropy(scores, wanted, reduction="none") + price * cost
        (numbers.grad,) = torch.autograd.grad(loss.sum(), [numbers])
        adam.step()
        canvas.classifier.forwards += 2 * count
        with torch.no_grad():
            right = lead(scores, wanted) > _LEAD
            since = torch.where(right, since + 1, 0.0)
            better = (since >= _TURNS) & (cost < cheapest)
            cheapest = torch.where(better, cost, cheapest)
            kept = torch.where(better[:, None, None, None], mask, kept)
            price = torch.where(right, price * _DEARER, price / _CHEAPER)
            price = price.clamp(_LOWEST, _HIGHEST)
        tick((step + 1) / STEPS)
    return kept


def _cost(masks: torch.Tensor) -> torch.Tensor:
    """Return (N,) what the masks (N, 1, H, W) cost; distances are in sides of the image."""
    height, width = masks.shape[2:]
    down, across = (
        (torch.arange(side, device=masks.device) + 0.5) / side for side in (height, width)
    )
    at = torch.stack(torch.meshgrid(down, across, indexing="ij"))
    # Squares, so that a faint ground does not draw the middle of the mask to that of the image.
    weight = masks.detach().square()
    total = weight.sum((2, 3), keepdim=True).clamp(min=1e-6)
    middle = (weight * at).sum((2, 3), keepdim=True) / total
    distance = (at - middle).square().sum(1, keepdim=True).sqrt()
    return (masks * (1 + APART * distance)).mean((1, 2, 3))
