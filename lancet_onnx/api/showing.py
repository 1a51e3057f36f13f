# SPDX-License-Identifier: Apache-2.0
"""What `explain` reports of each error and each class, with the pictures that belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lancet_onnx.api.blamed import Blamed
from lancet_onnx.api.misread import Misread
from lancet_onnx.api.subject import Subject
from lancet_onnx.explain import (
    AMOUNTS,
    Features,
    contribution,
    faded,
    image_png,
    probabilities,
    where_png,
)
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.companions import Companions, restored
from lancet_onnx.report import Attachment, Picture
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.samples.core import Floats, Ints

ELSEWHERE = "elsewhere"
"""The control among the fills of `restored`: the region is in another place."""

ACTS = 0.01
"""What adds less than this share of the whole class's logit has nothing to show."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Rows for the JSON, and their pictures by name."""

    rows: list[dict[str, object]]
    pictures: dict[str, bytes]

    def attachments(self) -> tuple[Attachment, ...]:
        """Return the pictures as files beside the report."""
        return tuple(Attachment(name, png) for name, png in self.pictures.items())

    def embedded(self) -> tuple[Picture, ...]:
        """Return the pictures as the page finds them: by name."""
        return tuple(Picture(name, name, png) for name, png in self.pictures.items())


def show_errors(
    subject: Subject,
    canvas: Canvas,
    found: Companions,
    numbers: Ints,
    sizes: Ints,
    misread: Misread,
    blamed: Blamed | None,
    fixed: OrtModel | None,
    seed: int,
) -> Shown:
    """Describe errors one by one; labels and probabilities are onnxruntime's.

    Args:
        subject: the model.
        canvas: the images that companions were searched for.
        found: the companions of the errors to show.
        numbers: (T,) each error's number among the images of `misread`.
        sizes: (T,) how often its true label is taken for its wrong one.
        misread: where the errors come from.
        blamed: weights whose part in each error is told.
        fixed: the patched model.
        seed: of the other fills that are tried.
    """
    images, count = canvas.pixels[found.positions], len(found)
    if not count:
        return Shown([], {})
    steps = faded(images, found.masks)
    curves = _shares(subject.ort, canvas, steps.flatten(0, 1)).reshape(count, len(AMOUNTS), -1)
    after = None if fixed is None else _shares(fixed, canvas, images)
    fills = restored(canvas, found, seed=seed)
    true, wrong = misread.true[numbers], misread.read[numbers]
    parts = [
        None
        if blamed is None
        else contribution(canvas, images, torch.from_numpy(of).to(images.device), blamed.without)
        for of in (true, wrong)
    ]
    rows: list[dict[str, object]] = []
    pictures: dict[str, bytes] = {}
    for at in range(count):
        labels = {"true": int(true[at]), "wrong": int(wrong[at])}

        others = [bool(hit[at]) for name, hit in fills.items() if name != ELSEWHERE]
        names = {part: f"error{at + 1}-{part}.png" for part in ("image", "mask", "companion")}
        pixels, mask, companion = (
            _channels_last(of[at]) for of in (images, found.masks, found.pixels)
        )
        made = (image_png(pixels), where_png(pixels, mask), image_png(companion))
        pictures |= dict(zip(names.values(), made, strict=True))
        rows.append(
            {
                "image": int(numbers[at]),
                **labels,
                "alike": int(sizes[at]),
                "probability": _told(curves[at, 0], labels),
                "companion": _told(curves[at, -1], labels),
                "patched": None if after is None else _told(after[at], labels),
                "mask_area": round(float(found.areas[at]), 6),
                "other_fills": {"tried": len(others), "restored": sum(others)},
                "elsewhere_restored": bool(fills[ELSEWHERE][at]),
                "contribution": None
                if parts[0] is None or parts[1] is None
                else {"true": _number(parts[0][at]), "wrong": _number(parts[1][at])},
                "curve": [
                    {"amount": amount, **_told(curves[at, step], labels)}
                    for step, amount in enumerate(AMOUNTS)
                ],
                "pictures": names,
            }
        )
    return Shown(rows, pictures)


def show_classes(
    subject: Subject,
    canvas: Canvas,
    classes: Sequence[int],
    whole: Features,
    part: Features | None,
    names: Sequence[str],
) -> Shown:
    """Describe classes one by one, with what they and the located weights look for."""
    rows: list[dict[str, object]] = []
    pictures: dict[str, bytes] = {}
    if not classes:
        return Shown(rows, pictures)
    shares = _shares(subject.ort, canvas, whole.pixels)
    for at, number in enumerate(classes):
        own = {"whole": f"class{number}-whole.png"}
        pictures[own["whole"]] = image_png(_channels_last(whole.pixels[at]))
        if part is not None and float(part.values[at]) > ACTS * abs(float(whole.values[at])):
            own["located"] = f"class{number}-located.png"
            pictures[own["located"]] = image_png(_channels_last(part.pixels[at]))
        rows.append(
            {
                "class": number,
                "name": names[number] if number < len(names) else None,
                "logit": _number(whole.values[at]),
                "probability": round(float(shares[at, number]), 4),
                "contribution": None if part is None else _number(part.values[at]),
                "pictures": {"whole": own["whole"], "located": own.get("located")},
            }
        )
    return Shown(rows, pictures)


def _shares(model: OrtModel, canvas: Canvas, pixels: torch.Tensor) -> Floats:
    inputs = canvas.inputs(pixels).detach().cpu().numpy()
    return probabilities(model.scores(np.ascontiguousarray(inputs, np.float32)))


def _channels_last(picture: torch.Tensor) -> Floats:
    shown: Floats = picture.detach().permute(1, 2, 0).cpu().numpy()
    return shown


def _number(value: torch.Tensor) -> float:
    return round(float(value), 4)


def _told(shares: Floats, labels: Mapping[str, int]) -> dict[str, object]:
    """Return what probabilities (classes,) say of an image, and of its two labels."""
    both = {name: round(float(shares[label]), 4) for name, label in labels.items()}
    label = int(shares.argmax())
    return {"label": label, "sure": round(float(shares[label]), 4), **both}
