# SPDX-License-Identifier: Apache-2.0
"""Images from nothing: smooth noise, moved until the model takes it for each class in turn.

They look like no picture, but the model answers on them with conviction and for every class, which
is what a trigger must overcome. They serve where no data is at hand, and say nothing of accuracy.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from lancet_onnx.runtime.classifier import CHUNK, Classifier
from lancet_onnx.runtime.leads import lead
from lancet_onnx.samples import Preprocess, Samples
from lancet_onnx.samples.core import Floats, Ints

STEPS = 30
STEP = 0.02
"""Change of a pixel (of range 1) in one step."""


def generated_samples(
    classifier: Classifier,
    shape: tuple[int, int, int],
    preprocess: Preprocess,
    count: int,
    seed: int,
) -> Samples:
    """Return `count` images of `shape` (H, W, C), evenly over classes, labels the model's own.

    Sign-gradient ascent on the wanted class's margin, with a smoothed gradient so that the change
    is made of shapes rather than of single pixels.
    """
    rng = np.random.default_rng(seed)
    wanted = np.arange(count) % classifier.signature.classes
    pixels = _smooth_noise(rng, count, shape)
    for _ in range(STEPS):
        gradient = _pixel_gradient(classifier, pixels, preprocess, wanted)
        pixels = np.clip(pixels + STEP * np.sign(gradient), 0, 1).astype(np.float32)
    labels = classifier.logits(classifier.tensor(preprocess.apply(pixels))).argmax(1)
    return Samples(pixels, labels.cpu().numpy(), False, "generated images")


def _smooth_noise(rng: np.random.Generator, count: int, shape: tuple[int, int, int]) -> Floats:
    height, width, channels = shape
    total = np.zeros((count, channels, height, width), np.float32)
    for cells in (2, 4, 8):
        coarse = torch.from_numpy(rng.normal(size=(count, channels, cells, cells)))
        fine = functional.interpolate(coarse, (height, width), mode="bicubic")
        total += fine.numpy().astype(np.float32) / cells
    grey: Floats = np.clip(0.5 + 0.4 * total.transpose(0, 2, 3, 1), 0, 1).astype(np.float32)
    return grey


def _pixel_gradient(
    classifier: Classifier, pixels: Floats, preprocess: Preprocess, wanted: Ints
) -> Floats:
    name = classifier.signature.input.name
    rows = []
    for start in range(0, len(pixels), CHUNK):
        part = slice(start, start + CHUNK)
        labels = torch.from_numpy(wanted[part]).to(classifier.module.device)

        def margin(logits: torch.Tensor, labels: torch.Tensor = labels) -> torch.Tensor:
            return lead(logits, labels).clamp(max=8.0)

        inputs = classifier.tensor(preprocess.apply(pixels[part]))
        _, gradient = classifier.gradients(inputs, [], [name], margin)
        rows.append(gradient[name])
    grid = torch.cat(rows)
    if preprocess.layout == "nhwc":
        grid = grid.permute(0, 3, 1, 2)
    if preprocess.color == "bgr" and grid.shape[1] == 3:
        grid = grid.flip(1)
    smooth = functional.avg_pool2d(grid, 3, stride=1, padding=1)
    rows_last: Floats = smooth.permute(0, 2, 3, 1).cpu().numpy()
    return rows_last
