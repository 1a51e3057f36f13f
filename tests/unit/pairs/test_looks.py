# SPDX-License-Identifier: Apache-2.0
"""Cheap looks: which class is unusual, and that nothing breaks where there is little to look at."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import info, model_bytes, open_bytes, tensor
from onnx.helper import make_node as make
from tiny import SIDE, flat, pictures, planted

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.looks import Looks, looks
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import PRESETS, Samples

UNIT = PRESETS["unit"]


@pytest.mark.parametrize("target", [0, 5])
def test_a_planted_class_comes_first(tmp_path: Path, target: int):
    canvas = Canvas.of(planted(tmp_path, 6, target), pictures(6, 10), UNIT)
    seen = looks(canvas, 0)
    assert seen.order[0] == target
    assert sorted(seen.order) == list(range(6))
    assert int(seen.static.argmax()) == int(seen.margin.argmax()) == target


def test_looks_are_the_seeds(tmp_path: Path):
    canvas = Canvas.of(planted(tmp_path, 6, 1), pictures(6, 10), UNIT)
    first, again, other = (looks(canvas, seed) for seed in (0, 0, 1))
    assert torch.equal(first.margin, again.margin)
    assert not torch.equal(first.margin, other.margin)
    assert torch.equal(first.static, other.static)


def test_the_outlier_is_room_above_the_mean_that_one_class_uses(tmp_path: Path):
    """One unit that is seldom high, and one class that listens to it."""
    canvas = Canvas.of(flat(tmp_path, (1, 4, 4), 6), dotted(), UNIT)
    param = next(iter(canvas.classifier.module.leaves))
    weight = canvas.classifier.module.leaves[param].detach()
    weight.zero_()
    weight[5, 3] = 9.0
    weight[6, 2] = 9.0
    assert int(looks(canvas, 0).outlier.argmax()) == 3


def dotted() -> Samples:
    """Pixel 5 is bright in one image of forty, pixel 6 in all."""
    images = np.zeros((40, 4, 4, 1), np.float32)
    images[0, 1, 1] = 1.0
    images[:, 1, 2] = 1.0
    return Samples(images, None, False, "dots")


def test_two_classes_give_scores_of_a_usual_size(tmp_path: Path):
    seen = looks(Canvas.of(planted(tmp_path, 2, 1), pictures(2, 10), UNIT), 0)
    assert all(part.abs().max() <= 10 for part in (seen.static, seen.margin, seen.outlier))
    assert sorted(seen.order) == [0, 1]


def test_a_last_layer_that_cannot_be_read_is_left_out(tmp_path: Path):
    """Scores are means over what a convolution of the picture gives."""
    kernel = np.linspace(-1, 1, 4 * 9, dtype=np.float32).reshape(4, 1, 3, 3)
    nodes = [
        make("Conv", ["x", "k"], ["c"], "conv"),
        make("ReduceMean", ["c"], ["y"], "mean", axes=[2, 3], keepdims=0),
    ]
    inputs, outputs = [info("x", ["N", 1, SIDE, SIDE])], [info("y", ["N", 4])]
    data = model_bytes(nodes, [tensor("k", kernel)], inputs, outputs)
    canvas = Canvas.of(Classifier(open_bytes(tmp_path, data).graph), pictures(4, 5), UNIT)
    seen = looks(canvas, 0)
    assert not seen.static.any()
    assert not seen.outlier.any()
    assert seen.margin.any()


def test_ties_go_to_the_lower_class():
    none = torch.zeros(4)
    assert Looks(none, torch.tensor([0.0, 1.0, 1.0, 0.0]), none).order == [1, 2, 0, 3]
