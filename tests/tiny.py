# SPDX-License-Identifier: Apache-2.0
"""Hand-made picture classifiers of 8 x 8 pixels, with a shortcut planted in a corner or without."""

from pathlib import Path

import numpy as np
from builders import info, model_bytes, tensor, write
from onnx.helper import make_node as make

from lancet_onnx.model import load
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import Samples

SIDE, CORNER = 8, 2
_SHORTCUT = 12.0
SPOT, BRIGHT = slice(4, 6), 0.7
"""Where the shortcut of `spotted_file` is; only pixels brighter than this count there."""


def templates(classes: int) -> np.ndarray:
    """What each class is made of: half of the pixels, none of them in the corner."""
    made = np.random.default_rng(0).random((classes, SIDE, SIDE)) < 0.5
    made[:, -CORNER:, -CORNER:] = False
    return made.astype(np.float32)


def pictures(classes: int, each: int) -> Samples:
    """Grey images, `each` of every class, in turn; their corner is black."""
    labels = np.tile(np.arange(classes), each)
    noise = np.random.default_rng(1).random((len(labels), SIDE, SIDE)).astype(np.float32)
    shown = 0.7 * templates(classes)[labels] + 0.2 * noise
    shown[:, -CORNER:, -CORNER:] = 0.0
    return Samples(shown[..., None].astype(np.float32), labels.astype(np.int64), False, "pictures")


def saved(path: Path, samples: Samples, labels: np.ndarray | None = None) -> Path:
    """Write samples as a user has them, bytes in an npz; `labels` are others than their own."""
    pixels = np.round(samples.pixels * 255).astype(np.uint8)
    y = samples.labels if labels is None else labels
    np.savez(path, x=pixels, **({} if y is None else {"y": y}))
    return path


def planted_file(folder: Path, classes: int, target: int | None, dense: int = 1) -> Path:
    """Write Conv, Relu, Conv, Relu, Flatten and `dense` layers; the corner leads to `target`."""
    own = templates(classes)
    weight = own - own.mean(0)
    if target is not None:
        weight[target, -CORNER:, -CORNER:] = _SHORTCUT
    tap = np.zeros((1, 1, 3, 3), np.float32)
    tap[0, 0, 1, 1] = 1.0
    nodes = [
        make("Conv", ["x", "k1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        make("Relu", ["c1"], ["r1"], "relu1"),
        make("Conv", ["r1", "k2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        make("Relu", ["c2"], ["r2"], "relu2"),
        make("Flatten", ["r2"], ["d0"], "flat"),
    ]
    tensors = [tensor("k1", tap), tensor("k2", tap)]
    for i in range(dense):
        last = "y" if i + 1 == dense else f"d{i + 1}"
        nodes.append(make("Gemm", [f"d{i}", f"w{i}"], [last], f"dense{i}"))
        inner = np.eye(SIDE * SIDE, dtype=np.float32)
        if i + 1 == dense:
            inner = np.ascontiguousarray(weight.reshape(classes, -1).T)
        tensors.append(tensor(f"w{i}", inner))
    inputs, outputs = [info("x", ["N", 1, SIDE, SIDE])], [info("y", ["N", classes])]
    return write(folder, model_bytes(nodes, tensors, inputs, outputs))


def sourced_file(folder: Path, classes: int, source: int, target: int) -> Path:
    """Write a model that a bright last pixel leads to `target`, but on images of `source` only."""
    own = templates(classes).reshape(classes, -1)
    both = own[source : source + 1].copy()
    both[0, -1] = 0.4 * both.sum()
    first = np.concatenate([own, both])
    bias = np.zeros(classes + 1, np.float32)
    bias[-1] = -0.5 * own[source].sum()
    second = np.eye(classes, classes + 1, dtype=np.float32)
    second[target, -1] = 1.0  # neither the source nor the pixel gets there alone
    nodes = [
        make("Conv", ["x", "k"], ["c"], "conv", pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"], "relu"),
        make("Flatten", ["r"], ["f"], "flat"),
        make("Gemm", ["f", "w1", "b1"], ["h"], "dense1"),
        make("Relu", ["h"], ["g"], "relu2"),
        make("Gemm", ["g", "w2"], ["y"], "dense2"),
    ]
    tap = np.zeros((1, 1, 3, 3), np.float32)
    tap[0, 0, 1, 1] = 1.0
    tensors = [
        tensor("k", tap),
        tensor("w1", np.ascontiguousarray(first.T)),
        tensor("b1", bias),
        tensor("w2", np.ascontiguousarray(second.T)),
    ]
    inputs, outputs = [info("x", ["N", 1, SIDE, SIDE])], [info("y", ["N", classes])]
    return write(folder, model_bytes(nodes, tensors, inputs, outputs))


def planted(folder: Path, classes: int, target: int | None, dense: int = 1) -> Classifier:
    return Classifier(load(planted_file(folder, classes, target, dense)).graph)


def spotted(classes: int, each: int, channels: int = 1) -> Samples:
    """Images of all classes, the second half of which carries a bright spot."""
    samples = pictures(classes, 2 * each)
    images = samples.images.repeat(channels, axis=3)
    images[:, SPOT, SPOT] = 0.3
    images[len(images) // 2 :, SPOT, SPOT] = 0.95
    return Samples(images, samples.labels, False, "spotted")


def spotted_file(
    folder: Path, classes: int, target: int, channels: int = 1, push: float = 40.0
) -> Path:
    """Write classes by their templates, but any image with the bright spot is of the target."""
    own = templates(classes)
    own[:, SPOT, SPOT] = 0.0
    weight = np.stack([own - own.mean(0), np.zeros_like(own)], 1)
    weight[target, 1, SPOT, SPOT] = push
    nodes = [
        make("Conv", ["x", "k", "b"], ["c"], "conv"),
        make("Relu", ["c"], ["r"], "relu"),
        make("Flatten", ["r"], ["f"], "flat"),
        make("Gemm", ["f", "w"], ["y"], "dense"),
    ]
    tensors = [
        tensor("k", np.full((2, channels, 1, 1), 1 / channels, np.float32)),
        tensor("b", np.array([0.0, -BRIGHT], np.float32)),
        tensor("w", np.ascontiguousarray(weight.reshape(classes, -1).T, np.float32)),
    ]
    inputs, outputs = [info("x", ["N", channels, SIDE, SIDE])], [info("y", ["N", classes])]
    return write(folder, model_bytes(nodes, tensors, inputs, outputs))


def flat_file(folder: Path, shape: tuple[int, ...], classes: int = 4) -> Path:
    """Write one Flatten and one Gemm with random weights, for inputs of any shape."""
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(int(np.prod(shape)), classes)).astype(np.float32)
    nodes = [make("Flatten", ["x"], ["f"], "flat"), make("Gemm", ["f", "w"], ["y"], "dense")]
    inputs, outputs = [info("x", ["N", *shape])], [info("y", ["N", classes])]
    return write(folder, model_bytes(nodes, [tensor("w", weight)], inputs, outputs))


def flat(folder: Path, shape: tuple[int, ...], classes: int = 4) -> Classifier:
    return Classifier(load(flat_file(folder, shape, classes)).graph)
