# SPDX-License-Identifier: Apache-2.0
"""Flips and mutes, the mean that is kept, the choice among candidates, and the patch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import dense, info, model_bytes, open_bytes, tensor
from onnx import helper

from lancet_onnx.errors import LancetError
from lancet_onnx.model import OnnxModel
from lancet_onnx.repair import Candidate, Edit, Settings, to_patch
from lancet_onnx.repair.edit import edit_params
from lancet_onnx.repair.flip import choose
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.scores import ScoreMap

make = helper.make_node


def conv_model(rng, tail: str) -> bytes:
    """Conv with a bias of its own, a BatchNormalization, or neither; then a linear head."""

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    tensors = [tensor("w", floats(5, 2, 3, 3)), tensor("fc", floats(5, 3))]
    nodes = []
    if tail == "bias":
        nodes.append(make("Conv", ["x", "w", "b"], ["out"], "conv"))
        tensors.append(tensor("b", floats(5)))
    elif tail == "norm":
        nodes.append(make("Conv", ["x", "w"], ["c"], "conv"))
        nodes.append(make("BatchNormalization", ["c", "g", "b", "m", "v"], ["out"], "norm"))
        tensors += [tensor(n, floats(5)) for n in "gbm"]
        tensors.append(tensor("v", floats(5) ** 2 + 0.5))
    else:
        nodes.append(make("Conv", ["x", "w"], ["out"], "conv"))
    nodes += [
        make("Relu", ["out"], ["r"], "relu"),
        make("GlobalAveragePool", ["r"], ["p"], "pool"),
        make("Flatten", ["p"], ["f"], "flatten"),
        make("MatMul", ["f", "fc"], ["y"], "fc"),
    ]
    return model_bytes(nodes, tensors, [info("x", ["N", 2, 6, 6])], [info("y", ["N", 3])])


@pytest.fixture(params=["bias", "norm", "none"])
def kind_of_model(request) -> str:
    return request.param


def opened(folder: Path, data: bytes) -> tuple[OnnxModel, Classifier]:
    model = open_bytes(folder, data)
    return model, Classifier(model.graph)


@pytest.mark.parametrize("kind", ["flip", "mute"])
@pytest.mark.parametrize("compensate", [True, False])
def test_the_mean_output_is_kept_only_if_asked(
    tmp_path: Path, rng, kind_of_model: str, kind: str, compensate: bool
):
    _, classifier = opened(tmp_path, conv_model(rng, kind_of_model))
    layer = find_layers(classifier)[0]
    # Positive inputs: their mean is not zero, so a changed weight moves the mean output.
    x = torch.from_numpy(rng.random((30, 2, 6, 6)).astype(np.float32))
    clean = [{"x": part} for part in x.split(8)]
    index = rng.permutation(layer.size)[:30]
    with torch.no_grad():
        params = edit_params(classifier, Edit(layer, index, kind, compensate), clean)
        before = classifier.run({"x": x}, ["out"])["out"].mean((0, 2, 3))
        after = classifier.run({"x": x}, ["out"], params)["out"].mean((0, 2, 3))
    moved = (after - before).abs().max()
    if compensate and kind_of_model != "none":
        assert set(params) == {"w", "b"}
        assert moved < 1e-4
    else:
        assert set(params) == {"w"}
        assert moved > 1e-2
    weight = classifier.module.leaves["w"]
    expected = weight.clone()
    expected.view(-1)[index] *= -1 if kind == "flip" else 0
    torch.testing.assert_close(params["w"], expected, rtol=0, atol=0)
    assert (weight != expected).sum() == 30


def test_a_linear_layer_is_compensated_along_its_last_axis(tmp_path: Path, rng):
    weight = rng.normal(size=(4, 3)).astype(np.float32)
    _, classifier = opened(tmp_path, dense(weight, np.zeros(3, np.float32)))
    (layer,) = find_layers(classifier)
    x = torch.from_numpy(rng.random((10, 4)).astype(np.float32))
    edit = Edit(layer, np.array([1, 6, 8]), "flip", True)
    with torch.no_grad():
        params = edit_params(classifier, edit, [{"x": x}])
    flipped = weight.copy()
    flipped.reshape(-1)[[1, 6, 8]] *= -1
    expected = x.numpy().mean(0) @ (weight - flipped)
    np.testing.assert_allclose(params["b"].numpy(), expected, rtol=1e-4, atol=1e-6)


def candidate(layer, share: float, *, excess=0.0, loss=0.0, error=0.0, recovery=0.9) -> Candidate:
    order = ScoreMap("m", {})
    edit = Edit(layer, np.arange(1), "flip", False)
    return Candidate(edit, order, {}, excess, loss, 1 - loss, error, recovery, share)


def test_the_choice_among_candidates():
    settings = Settings(max_loss=0.01, tolerance=0.005)
    quiet = candidate(None, 0.1, recovery=0.90)
    better = candidate(None, 0.3, recovery=0.95)
    smaller = candidate(None, 0.05, recovery=0.952)
    costly = candidate(None, 0.01, loss=0.02, recovery=1.0)
    risky = candidate(None, 0.01, loss=0.009, error=0.005, recovery=1.0)
    loud = candidate(None, 0.01, excess=0.006, recovery=1.0)
    found = choose([quiet, better, smaller, costly, risky, loud], settings)
    assert found.chosen is smaller
    assert found.reached
    assert choose([quiet, better], settings).chosen is better
    assert choose([costly, risky], settings).chosen is risky
    assert choose([costly, risky], settings).reached
    over = choose([costly, loud], settings)
    assert over.chosen is costly
    assert not over.reached
    assert not choose([loud], settings).reached
    assert choose([], settings).chosen is None


def test_a_patch_holds_what_really_differs(tmp_path: Path, rng):
    weight = rng.normal(size=(4, 3)).astype(np.float32)
    weight[0, 0] = 0
    model, _classifier = opened(tmp_path, dense(weight, np.ones(3, np.float32)))
    after = torch.from_numpy(weight.copy())
    after[0, 1] *= -1
    params = {"w": after, "b": torch.ones(3)}
    patch = to_patch(model, params, "m", 5, {"a": 1.0})
    (delta,) = patch.deltas
    assert (delta.param, delta.elements.at.tolist()) == ("w", [1])
    assert (patch.base, patch.base_weights) == (model.digest, model.contents.weights_digest())
    assert (patch.seed, patch.method, patch.metrics, patch.result) == (5, "m", {"a": 1.0}, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_patch_never_writes_nan(tmp_path: Path, rng, bad: float):
    model, _classifier = opened(tmp_path, dense(rng.normal(size=(4, 3)).astype(np.float32)))
    after = torch.zeros(4, 3)
    after[0, 0] = bad
    with pytest.raises(LancetError, match="NaN or infinity"):
        to_patch(model, {"w": after}, "m", 0, {})
