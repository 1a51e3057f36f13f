# SPDX-License-Identifier: Apache-2.0
"""One-node models of operators that sample, fold and transform images and signals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import RNG, Case, Maker, f, i64


def grid_sample(op_type: str, opset: int) -> Iterator[Case]:
    modes = ("linear", "nearest", "cubic") if opset >= 20 else ("bilinear", "nearest", "bicubic")
    for mode, padding, aligned in itertools.product(
        modes, ("zeros", "border", "reflection"), (0, 1)
    ):
        attributes = {"mode": mode, "padding_mode": padding, "align_corners": aligned}
        yield Case(op_type, opset, [f(2, 3, 5, 6), f(2, 4, 7, 2)], attributes)
        yield Case(op_type, opset, [f(2, 3, 5, 6), f(2, 4, 7, 2) * 5], attributes)
        if opset >= 20 and mode != "cubic":
            yield Case(op_type, opset, [f(2, 3, 4, 5, 6), f(2, 3, 2, 4, 3)], attributes)


def affine_grid(op_type: str, opset: int) -> Iterator[Case]:
    for aligned in (0, 1):
        attributes = {"align_corners": aligned}
        yield Case(op_type, opset, [f(2, 2, 3), i64(2, 3, 4, 5)], attributes)
        yield Case(op_type, opset, [f(2, 3, 4), i64(2, 3, 4, 5, 2)], attributes)
    yield Case(op_type, opset, [f(2, 2, 3), i64(2, 3, 1, 5)])


def roi_align(op_type: str, opset: int) -> Iterator[Case]:
    low = RNG.uniform(-2, 5, (5, 2))
    rois = np.concatenate([low, low + RNG.uniform(0.2, 8, (5, 2))], 1).astype(np.float32)
    inputs = [np.abs(f(2, 3, 8, 9)), rois, i64(0, 1, 1, 0, 1)]
    places = ("half_pixel", "output_half_pixel") if opset >= 16 else (None,)
    for mode, ratio, scale, place in itertools.product(("avg", "max"), (0, 2), (1.0, 0.6), places):
        attributes: dict[str, Any] = {
            "mode": mode,
            "sampling_ratio": ratio,
            "spatial_scale": scale,
            "output_height": 3,
            "output_width": 2,
        }
        attributes |= {"coordinate_transformation_mode": place} if place else {}
        yield Case(op_type, opset, inputs, attributes)
        yield Case(op_type, opset, [-inputs[0], *inputs[1:]], attributes)


def deform_conv(op_type: str, opset: int) -> Iterator[Case]:
    image = f(2, 4, 6, 7)
    yield Case(op_type, opset, [image, f(3, 4, 3, 3), f(2, 18, 4, 5)])
    attributes = {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}
    yield Case(op_type, opset, [image, f(3, 4, 2, 2), f(2, 8, 4, 6), f(3)], attributes)
    grouped = {"group": 2, "offset_group": 2}
    inputs = [image, f(6, 2, 3, 3), f(2, 36, 4, 5), f(6), f(2, 18, 4, 5)]
    yield Case(op_type, opset, inputs, grouped)


def col2im(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [f(2, 12, 16), i64(5, 6), i64(2, 3)])
    attributes = {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [2, 1]}
    yield Case(op_type, opset, [f(1, 12, 15), i64(5, 6), i64(2, 3)], attributes)
    yield Case(op_type, opset, [f(1, 16, 12), i64(3, 4, 3), i64(2, 2, 2)])


def center_crop_pad(op_type: str, opset: int) -> Iterator[Case]:
    for shape in ([3, 4, 5], [6, 7, 8], [2, 9, 2], [4, 5, 6]):
        yield Case(op_type, opset, [f(4, 5, 6), i64(*shape)])
    yield Case(op_type, opset, [f(4, 5, 6), i64(3, 8)], {"axes": [-1, 0]})


def max_unpool(op_type: str, opset: int) -> Iterator[Case]:
    indices = np.stack([RNG.permutation(16)[:4] + 16 * i for i in range(6)])
    inputs = [f(2, 3, 2, 2), indices.reshape(2, 3, 2, 2)]
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    yield Case(op_type, opset, inputs, attributes)
    yield Case(op_type, opset, [*inputs, i64(2, 3, 4, 4)], attributes)


def dft(op_type: str, opset: int) -> Iterator[Case]:
    for parts, inverse, length in itertools.product((1, 2), (0, 1), (None, 5, 8, 16)):
        attributes = {"inverse": inverse}
        size = [] if length is None else [np.int64(length)]
        if opset < 20:
            yield Case(op_type, opset, [f(2, 8, 3, parts), *size], {**attributes, "axis": 1})
            yield Case(op_type, opset, [f(2, 3, 8, parts), *size], {**attributes, "axis": -2})
        else:
            inputs = [f(2, 8, 3, parts), np.int64(length) if length else None, np.int64(1)]
            yield Case(op_type, opset, inputs, attributes)
            yield Case(op_type, opset, [f(2, 3, 8, parts), *size], attributes)
    if opset < 20:
        yield Case(op_type, opset, [f(2, 9, 1)], {"onesided": 1})
        yield Case(op_type, opset, [f(2, 9, 2)], {"onesided": 1, "inverse": 1})
    else:
        yield Case(op_type, opset, [f(2, 9, 1), None, np.int64(1)], {"onesided": 1})
        yield Case(op_type, opset, [f(2, 9, 2)], {"onesided": 1, "inverse": 1})


def stft(op_type: str, opset: int) -> Iterator[Case]:
    for onesided in (0, 1):
        attributes = {"onesided": onesided}
        signal, window = f(2, 40, 1), np.abs(f(16))
        yield Case(op_type, opset, [signal, np.int64(8), window, np.int64(16)], attributes)
        yield Case(op_type, opset, [signal, np.int64(7), window], attributes)
        yield Case(op_type, opset, [signal, np.int64(5), None, np.int64(16)], attributes)
    yield Case(op_type, opset, [f(2, 40, 2), np.int64(8), window], {"onesided": 0})


def mel(op_type: str, opset: int) -> Iterator[Case]:
    for bins, length, rate, low, high in ((8, 16, 8192, 0, 4096), (20, 512, 16000, 20.0, 8000)):
        sizes = [np.int64(bins), np.int64(length), np.int64(rate)]
        inputs = [*sizes, np.float32(low), np.float32(high)]
        yield Case(op_type, opset, inputs)
        yield Case(op_type, opset, inputs, {"output_datatype": 11})


def det(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [f(3, 3)])
    yield Case(op_type, opset, [f(2, 3, 4, 4)])


MAKERS: dict[Maker, list[str]] = {
    grid_sample: ["GridSample"],
    affine_grid: ["AffineGrid"],
    roi_align: ["RoiAlign"],
    deform_conv: ["DeformConv"],
    col2im: ["Col2Im"],
    center_crop_pad: ["CenterCropPad"],
    max_unpool: ["MaxUnpool"],
    dft: ["DFT"],
    stft: ["STFT"],
    mel: ["MelWeightMatrix"],
    det: ["Det"],
}
