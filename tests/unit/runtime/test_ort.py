# SPDX-License-Identifier: Apache-2.0
"""onnxruntime's side: scores for any number of inputs, refusals, placement, silence."""

from pathlib import Path

import numpy as np
import pytest
from builders import dense, info, model_bytes, tensor, write
from onnx import helper

from lancet_onnx.errors import DataError, DeviceError, ModelError
from lancet_onnx.model.probe import SPEC, probe_model
from lancet_onnx.runtime.installed import distributions
from lancet_onnx.runtime.ort import OrtModel, cuda_present, environment, providers
from lancet_onnx.types import TensorSpec, ValueName

W = np.arange(12, dtype=np.float32).reshape(3, 4)


def spec(*shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(ValueName("x"), dtype, shape)


@pytest.mark.parametrize("batch", ["N", 1, 4, 7])
def test_scores_for_any_number_of_inputs(rng, batch):
    model = OrtModel(dense(W, batch=batch), spec(batch, 3), "cpu")
    for count in (1, 4, 7, 9):
        x = rng.normal(size=(count, 3)).astype(np.float32)
        scores = model.scores(x)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, x @ W, rtol=1e-5, atol=1e-5)
        assert model.labels(x).tolist() == scores.argmax(1).tolist()


def test_more_inputs_than_one_batch(rng):
    x = rng.normal(size=(600, 3)).astype(np.float32)
    scores = OrtModel(dense(W), spec("N", 3), "cpu").scores(x)
    np.testing.assert_allclose(scores, x @ W, rtol=1e-5, atol=1e-5)


def test_no_inputs_at_all_are_refused():
    model = OrtModel(dense(W), spec("N", 3), "cpu")
    with pytest.raises(DataError, match="no images"):
        model.labels(np.zeros((0, 3), np.float32))


def test_inputs_are_given_in_the_models_type():
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], "c", to=1),
        helper.make_node("MatMul", ["f", "w"], ["y"], "mm"),
    ]
    data = model_bytes(nodes, [tensor("w", W)], [info("x", ["N", 3], 2)], [info("y", ["N", 4])])
    x = np.array([[1, 2, 255]], np.float32)
    np.testing.assert_allclose(OrtModel(data, spec("N", 3, dtype="uint8"), "cpu").scores(x), x @ W)


def test_pixels_of_a_uint8_model_survive_the_way():
    """uint8 pixels -> [0, 1] -> 255 * -> uint8 must give every value back."""
    values = np.arange(256, dtype=np.uint8)
    pixels = values.astype(np.float32) / np.float32(255) * np.float32(255)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], "c", to=1),
        helper.make_node("MatMul", ["f", "w"], ["y"], "mm"),
    ]
    eye = np.eye(256, dtype=np.float32)
    data = model_bytes(
        nodes, [tensor("w", eye)], [info("x", ["N", 256], 2)], [info("y", ["N", 256])]
    )
    found = OrtModel(data, spec("N", 256, dtype="uint8"), "cpu").scores(pixels[None])
    np.testing.assert_array_equal(found[0], values)


def test_nan_is_refused_and_the_image_named():
    nodes = [
        helper.make_node("Sqrt", ["x"], ["r"], "root"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "mm"),
    ]
    data = model_bytes(nodes, [tensor("w", W)], [info("x", ["N", 3])], [info("y", ["N", 4])])
    model = OrtModel(data, spec("N", 3), "cpu")
    x = np.ones((5, 3), np.float32)
    assert np.isfinite(model.scores(x)).all()
    x[3, 1] = -1
    with pytest.raises(ModelError, match=r"NaN .*image 3"):
        model.scores(x)


def test_wrong_shapes_are_the_datas_fault():
    model = OrtModel(dense(W), spec("N", 3), "cpu")
    with pytest.raises(DataError, match=r"refuses inputs of shape \(2, 5\)"):
        model.scores(np.zeros((2, 5), np.float32))


def test_outputs_that_are_no_scores_are_refused():
    node = helper.make_node("ReduceSum", ["x"], ["y"], "sum", keepdims=0)
    model = OrtModel(
        model_bytes([node], [], [info("x", ["N", 3])], [info("y", [])]), spec("N", 3), "cpu"
    )
    with pytest.raises(ModelError, match="one row an image"):
        model.scores(np.zeros((2, 3), np.float32))


def test_a_broken_model_is_refused_with_its_path(tmp_path: Path):
    path = write(tmp_path, b"no model")
    with pytest.raises(ModelError, match=r"model\.onnx: onnxruntime refuses the model"):
        OrtModel(path, spec("N", 3), "cpu")
    with pytest.raises(ModelError, match="the model: onnxruntime refuses"):
        OrtModel(b"no model", spec("N", 3), "cpu")


def test_placement_says_cpu(fixtures):
    image = TensorSpec(ValueName("input"), "float32", ("N", 1, 28, 28))
    placement = OrtModel(fixtures.model("mnist_cnn_square"), image, "cpu").placement
    assert placement.device == "cpu"
    assert placement.provider == "CPUExecutionProvider"
    assert dict(placement.nodes).keys() == {"CPUExecutionProvider"}
    assert sum(dict(placement.nodes).values()) > 0
    said = environment(placement)
    assert said["device"] == "cpu"
    assert said["versions"]["onnxruntime"] in distributions().values()
    assert "CPUExecutionProvider" in providers()


def test_the_probe_model_runs():
    found = OrtModel(probe_model(), SPEC, "cpu").scores(np.eye(4, dtype=np.float32))
    np.testing.assert_array_equal(found, np.eye(4))


def test_nothing_is_printed_to_stdout(capfd, fixtures):
    image = TensorSpec(ValueName("input"), "float32", ("N", 1, 28, 28))
    OrtModel(fixtures.model("mnist_cnn_square"), image, "auto").labels(fixtures.inputs(3))
    with pytest.raises(ModelError):
        OrtModel(b"no model", image, "cpu")
    assert capfd.readouterr().out == ""


@pytest.mark.skipif(cuda_present(), reason="a GPU is there")
def test_cuda_without_a_gpu_is_refused(capfd):
    with pytest.raises((DeviceError, ModelError), match=r"(?i)cuda"):
        OrtModel(dense(W), spec("N", 3), "cuda")
    assert capfd.readouterr().out == ""


@pytest.mark.gpu
@pytest.mark.skipif(not cuda_present(), reason="no GPU")
def test_cuda_is_used_where_it_is():
    model = OrtModel(dense(W), spec("N", 3), "cuda")
    assert model.placement.device == "cuda"
    np.testing.assert_allclose(model.scores(np.eye(3, dtype=np.float32)), W, rtol=1e-5)
