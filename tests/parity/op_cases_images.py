# SPDX-License-Identifier: Apache-2.0
"""One-node models of pooling and resizing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import Case, Maker, f, f32, i64


def pooling(op_type: str, opset: int) -> Iterator[Case]:
    windows = (
        ([2, 2], [2, 2], [0, 0, 0, 0]),
        ([3, 3], [2, 2], [1, 1, 1, 1]),
        ([3, 2], [2, 3], [0, 1, 1, 0]),
        ([5, 5], [3, 3], [2, 2, 2, 2]),
    )
    ceils = (0, 1) if opset >= (18 if op_type == "LpPool" else 10) else (0,)
    gaps = (0, 2) if opset >= {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[op_type] else (0,)
    includes = (0, 1) if op_type == "AveragePool" else (0,)
    for (kernel, strides, pads), ceil, gap, include in itertools.product(
        windows, ceils, gaps, includes
    ):
        attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
        attributes |= {"ceil_mode": 1} if ceil else {}
        attributes |= {"dilations": [gap, gap]} if gap else {}
        attributes |= {"count_include_pad": 1} if include else {}
        yield Case(op_type, opset, [f(1, 2, 9, 10)], attributes)
    for auto_pad, kernel in itertools.product(
        ("SAME_UPPER", "SAME_LOWER", "VALID"), ([2, 2], [3, 2])
    ):
        attributes = {"kernel_shape": kernel, "strides": [2, 3], "auto_pad": auto_pad}
        yield Case(op_type, opset, [f(1, 2, 8, 10)], attributes)
    yield Case(op_type, opset, [f(1, 2, 9)], {"kernel_shape": [3], "strides": [2]})
    yield Case(op_type, opset, [f(1, 2, 5, 6, 7)], {"kernel_shape": [2, 3, 2]})
    if op_type == "MaxPool" and opset >= 8:
        for (kernel, strides, pads), order in itertools.product(windows, (0, 1)):
            attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads}
            attributes["storage_order"] = order
            yield Case(op_type, opset, [np.round(f(2, 3, 9, 10))], attributes, 2)
        yield Case(op_type, opset, [f(2, 2, 9)], {"kernel_shape": [3], "strides": [2]}, 2)
        for order in (0, 1):
            attributes = {"kernel_shape": [2, 3, 2], "storage_order": order}
            yield Case(op_type, opset, [f(2, 2, 5, 6, 7)], attributes, 2)


def resize(op_type: str, opset: int) -> Iterator[Case]:
    scales = ([1, 1, 2, 2], [1, 1, 0.5, 0.5], [1, 1, 1.5, 1.7], [1, 1, 3, 2.5])
    if opset == 10:
        for scale, mode in itertools.product((scales[0], scales[3]), ("nearest", "linear")):
            yield Case(op_type, opset, [f(1, 2, 5, 6), f32(*scale)], {"mode": mode})
        return
    coordinates = ["half_pixel", "pytorch_half_pixel", "asymmetric"]
    coordinates += ["tf_half_pixel_for_nn"] if opset == 11 else []
    ways: list[dict[str, Any]] = [{"mode": "linear"}, {"mode": "cubic", "exclude_outside": 1}]
    roundings = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ways += [{"mode": "nearest", "nearest_mode": rounding} for rounding in roundings]
    for way, place in itertools.product(ways, coordinates):
        attributes = {**way, "coordinate_transformation_mode": place}
        for scale in scales:
            inputs = [f(1, 2, 5, 6), np.zeros(0, np.float32), f32(*scale)]
            yield Case(op_type, opset, inputs, attributes)
    for way, sizes in itertools.product(ways, ([7, 9], [3, 4], [1, 1])):
        if opset >= 13:
            attributes = {**way, "coordinate_transformation_mode": "align_corners"}
            yield Case(op_type, opset, [f(1, 2, 5, 6), None, None, i64(1, 2, *sizes)], attributes)
        for policy in ("not_larger", "not_smaller") if opset >= 18 else ():
            attributes = {**way, "axes": [2, 3], "keep_aspect_ratio_policy": policy}
            yield Case(op_type, opset, [f(1, 2, 5, 6), None, None, i64(*sizes)], attributes)
    regions = ([0, 0, 0.1, 0.2, 1, 1, 0.9, 0.7], [0, 0, -0.3, 0.4, 1, 1, 0.6, 1.3])
    for way, region, sizes in itertools.product(ways[:1] + ways[2:], regions, ([7, 4], [1, 9])):
        attributes = {**way, "coordinate_transformation_mode": "tf_crop_and_resize"}
        for outside in (0.0, 7.5):
            scales = np.zeros(0, np.float32) if opset == 11 else None
            inputs = [f(1, 2, 5, 6), f32(*region), scales, i64(1, 2, *sizes)]
            yield Case(op_type, opset, inputs, {**attributes, "extrapolation_value": outside})
    for way, scale, place in itertools.product(
        ways[:2] if opset >= 18 else (), ([0.5, 0.5], [0.3, 1.7], [0.6, 0.45]), coordinates
    ):
        attributes = {**way, "coordinate_transformation_mode": place, "antialias": 1}
        for outside in (0, 1):
            inputs = [f(1, 2, 11, 13), None, f32(1, 1, *scale)]
            yield Case(op_type, opset, inputs, {**attributes, "exclude_outside": outside})


MAKERS: dict[Maker, list[str]] = {
    pooling: ["AveragePool", "LpPool", "MaxPool"],
    resize: ["Resize"],
}
