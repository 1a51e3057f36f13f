# SPDX-License-Identifier: Apache-2.0
"""Models that fold images and windows into one axis: each image apart, everything still exact."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import info, model_bytes, open_bytes, tensor
from onnx import helper

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.locate.importance import correlate
from lancet_onnx.runtime.batching import Batching
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.runtime.parity import compare

make = helper.make_node
RNG = np.random.default_rng(9)
W = RNG.normal(size=(6, 5)).astype(np.float32)
V = RNG.normal(size=(5, 3)).astype(np.float32)


def windows(batch: int | str) -> bytes:
    """Four rows an image, in two windows of two; a layer sees (images * windows, 2, 6)."""
    nodes = [
        make("Reshape", ["x", "fold"], ["f"], "fold"),
        make("MatMul", ["f", "w"], ["h"], "inner"),
        make("Tanh", ["h"], ["t"], "tanh"),
        make("Reshape", ["t", "unfold"], ["u"], "unfold"),
        make("ReduceMean", ["u"], ["m"], "mean", axes=[1], keepdims=0),
        make("MatMul", ["m", "v"], ["y"], "outer"),
    ]
    tensors = [
        tensor("w", W),
        tensor("v", V),
        tensor("fold", np.array([-1, 2, 6])),
        tensor("unfold", np.array([-1, 4, 5])),
    ]
    return model_bytes(nodes, tensors, [info("x", [batch, 4, 6])], [info("y", [batch, 3])])


@pytest.fixture(params=["N", 1], ids=["free", "fixed"])
def classifier(request: pytest.FixtureRequest, tmp_path: Path) -> Classifier:
    return Classifier(open_bytes(tmp_path, windows(request.param)).graph)


def reference(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x @ w).mean(1) @ torch.from_numpy(V)


def test_values_get_the_image_as_their_first_axis(classifier: Classifier):
    x = torch.from_numpy(RNG.normal(size=(7, 4, 6)).astype(np.float32))
    found = classifier.run({"x": x}, ["f", "h", "m", "y"])
    assert [tuple(v.shape) for v in found.values()] == [(7, 2, 2, 6), (7, 2, 2, 5), (7, 5), (7, 3)]
    torch.testing.assert_close(found["y"], reference(x, torch.from_numpy(W)))
    again = classifier.run({"f": found["f"]}, ["y"])["y"]
    torch.testing.assert_close(again, found["y"])


def test_gradients_and_correlations_of_a_folded_layer(classifier: Classifier):
    x = torch.from_numpy(RNG.normal(size=(7, 4, 6)).astype(np.float32))
    inner = next(layer for layer in find_layers(classifier) if layer.param == "w")
    values, gradients = classifier.gradients(x, ["f"], ["h"], lambda z: z[:, 0])
    assert gradients["h"].shape == (7, 2, 2, 5)
    rows = correlate(classifier, inner, values["f"], gradients["h"])
    leaf = torch.from_numpy(W).requires_grad_()
    for image, row in zip(x, rows, strict=True):
        (wanted,) = torch.autograd.grad(reference(image[None], leaf)[0, 0], leaf)
        torch.testing.assert_close(row, wanted)


def test_each_image_with_weights_of_its_own(classifier: Classifier):
    x = torch.from_numpy(RNG.normal(size=(3, 4, 6)).astype(np.float32))
    cut = classifier.run({"x": x}, ["f"])
    weights = torch.from_numpy(RNG.normal(size=(3, 6, 5)).astype(np.float32))
    found = classifier.run_each(cut, ["y"], {"w": weights})["y"]
    for image, weight, row in zip(x, weights, found, strict=True):
        torch.testing.assert_close(row, reference(image[None], weight)[0])


def test_onnxruntime_agrees(classifier: Classifier, tmp_path: Path):
    batch = classifier.signature.batch or "N"
    model = OrtModel(windows(batch), classifier.signature.input, "cpu")
    x = RNG.normal(size=(6, 4, 6)).astype(np.float32)
    assert compare(classifier, model, x).largest < 1e-6


def test_models_that_fold_a_batch_of_several_are_refused_where_it_matters(tmp_path: Path):
    classifier = Classifier(open_bytes(tmp_path, windows(2)).graph)
    x = torch.ones(3, 4, 6)
    assert classifier.run({"x": x}, ["y"])["y"].shape == (3, 3)
    with pytest.raises(UnsupportedError, match=r"'h' holds several images.*batch size of 1"):
        classifier.run({"x": x}, ["h"])


def test_rows_are_stacked_and_filled_up():
    batching = Batching(2, frozenset({"a"}))
    rows = torch.arange(5.0)[:, None]
    runs = batching.stack("a", rows)
    assert runs.shape == (3, 2, 1)
    assert torch.equal(batching.unstack("a", runs, 5), rows)
