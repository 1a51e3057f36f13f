# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan against onnxruntime: values, gradients to weights in their bodies, vmap."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from builders import info, model_bytes, open_bytes, tensor
from onnx import TensorProto, helper, numpy_helper

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.runtime import control
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.executor import GraphModule
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.runtime.parity import compare
from lancet_onnx.runtime.reach import unreached

make = helper.make_node
RNG = np.random.default_rng(7)
W = RNG.normal(size=(3, 4)).astype(np.float32)
V = RNG.normal(size=(3, 4)).astype(np.float32)
CPU = torch.device("cpu")


def branch(name: str, weight: np.ndarray):
    return helper.make_graph(
        [make("MatMul", ["x", "w"], ["b"], f"mm_{name}")],
        name,
        [],
        [info("b", ["N", 4])],
        [numpy_helper.from_array(weight, "w")],
    )


def choosing(batch: int | str = "N") -> bytes:
    """Two weights, one for images whose sum is positive (over the whole batch), one else."""
    nodes = [
        make("ReduceSum", ["x"], ["sum"], keepdims=0),
        make("Greater", ["sum", "zero"], ["positive"]),
        make("If", ["positive"], ["y"], "choose", then_branch=branch("t", W),
             else_branch=branch("e", V)),
    ]  # fmt: skip
    zero = tensor("zero", np.zeros((), np.float32))
    return model_bytes(nodes, [zero], [info("x", [batch, 3])], [info("y", [batch, 4])])


@pytest.mark.parametrize("sign", [1, -1])
def test_if_takes_the_branch_that_the_condition_says(tmp_path: Path, sign: int):
    data = choosing()
    module = GraphModule(open_bytes(tmp_path, data).graph, CPU)
    x = sign * np.abs(RNG.normal(size=(2, 3))).astype(np.float32)
    weight = W if sign > 0 else V
    found = module.run({"x": torch.from_numpy(x)}, ["y"])["y"]
    np.testing.assert_allclose(found, x @ weight, rtol=1e-6)
    (theirs,) = onnxruntime.InferenceSession(data).run(None, {"x": x})
    np.testing.assert_allclose(found, theirs, rtol=1e-6)


def test_a_weight_in_a_branch_that_is_not_taken_is_reported(tmp_path: Path):
    classifier = Classifier(open_bytes(tmp_path, choosing()).graph)
    module = classifier.module
    then_weight = next(n for n in module.leaves if np.array_equal(module.leaves[n], W))
    else_weight = next(n for n in module.leaves if np.array_equal(module.leaves[n], V))
    found = {entry.param: entry.reason for entry in unreached(classifier, torch.ones(3, 3))}
    assert found.keys() == {else_weight, "zero"}
    assert "a branch that these inputs do not take" in found[else_weight]
    assert "do not change smoothly" in found["zero"]
    assert then_weight in {entry.param for entry in unreached(classifier, -torch.ones(3, 3))}


def test_each_image_of_a_fixed_batch_takes_its_own_branch(tmp_path: Path):
    data = choosing(1)
    classifier = Classifier(open_bytes(tmp_path, data).graph)
    x = np.abs(RNG.normal(size=(9, 3))).astype(np.float32)
    x[::2] *= -1
    assert len({bool(s > 0) for s in x.sum(1)}) == 2
    parity = compare(classifier, OrtModel(data, classifier.signature.input, "cpu"), x)
    assert parity.largest < 1e-6
    assert [entry.param for entry in unreached(classifier, torch.from_numpy(x))] == ["zero"]


def loop_bytes(trips: int | None, *, stop: bool = False) -> bytes:
    """Multiply by a weight inside the body, collect what each step gives."""
    body = helper.make_graph(
        [
            make("MatMul", ["h", "w"], ["h_out"], "mm"),
            make("ReduceMax", ["h_out"], ["largest"], keepdims=0),
            make("Less", ["largest", "limit"], ["small"]),
            make("Identity", ["small" if stop else "go"], ["go_out"]),
            make("Identity", ["h_out"], ["step"]),
        ],
        "body",
        [
            info("i", [], TensorProto.INT64),
            info("go", [], TensorProto.BOOL),
            info("h", ["N", 3]),
        ],
        [info("go_out", [], TensorProto.BOOL), info("h_out", ["N", 3]), info("step", ["N", 3])],
        [numpy_helper.from_array(1.5 * np.eye(3, dtype=np.float32), "w")],
    )
    inputs = ["trips" if trips is not None else "", "", "x"]
    nodes = [make("Loop", inputs, ["y", "steps"], "loop", body=body)]
    constants = [tensor("limit", np.array(9, np.float32)), tensor("trips", np.array(trips or 0))]
    outputs = [info("y", ["N", 3]), info("steps", ["T", "N", 3])]
    return model_bytes(nodes, constants, [info("x", ["N", 3])], outputs, opset=13)


@pytest.mark.parametrize(("trips", "stop"), [(4, False), (None, True), (50, True)])
def test_loop_equals_onnxruntime(tmp_path: Path, trips: int | None, stop: bool):
    data = loop_bytes(trips, stop=stop)
    graph = open_bytes(tmp_path, data).graph
    module = GraphModule(graph, CPU)
    x = np.ones((2, 3), np.float32)
    theirs = onnxruntime.InferenceSession(data).run(None, {"x": x})
    weight = module.leaves["w"].clone().requires_grad_()
    found = module.run({"x": torch.from_numpy(x)}, ["y", "steps"], {"w": weight})
    for ours, wanted in zip(found.values(), theirs, strict=True):
        assert ours.shape == wanted.shape
        np.testing.assert_allclose(ours.detach(), wanted, rtol=1e-6)
    found["y"].sum().backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().min()) > 0


def test_endless_loops_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "MOST_STEPS", 20)
    module = GraphModule(open_bytes(tmp_path, loop_bytes(None)).graph, CPU)
    with pytest.raises(UnsupportedError, match="more than 20 steps"):
        module.run({"x": torch.ones(1, 3)}, ["y"])


def scan_bytes(direction: int = 0, axis: int = 0) -> bytes:
    """A recurrent layer written as a Scan: h = tanh(x W + h)."""
    body = helper.make_graph(
        [
            make("MatMul", ["x_t", "w"], ["m"], "mm"),
            make("Add", ["m", "h"], ["s"]),
            make("Tanh", ["s"], ["h_out"]),
            make("Identity", ["h_out"], ["y_t"]),
        ],
        "body",
        [info("h", ["N", 4]), info("x_t", ["N", 3])],
        [info("h_out", ["N", 4]), info("y_t", ["N", 4])],
        [numpy_helper.from_array(W, "w")],
    )
    node = make("Scan", ["h0", "x"], ["y", "all"], "scan", body=body, num_scan_inputs=1,
                scan_input_axes=[axis], scan_input_directions=[direction],
                scan_output_axes=[axis], scan_output_directions=[direction])  # fmt: skip
    shape = ["T", "N"] if axis == 0 else ["N", "T"]
    outputs = [info("y", ["N", 4]), info("all", [*shape, 4])]
    inputs = [info("x", [*shape, 3])]
    return model_bytes([node], [tensor("h0", np.zeros((2, 4), np.float32))], inputs, outputs)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("direction", [0, 1])
def test_scan_equals_onnxruntime(tmp_path: Path, direction: int, axis: int):
    data = scan_bytes(direction, axis)
    module = GraphModule(open_bytes(tmp_path, data).graph, CPU)
    x = RNG.normal(size=(5, 2, 3) if axis == 0 else (2, 5, 3)).astype(np.float32)
    theirs = onnxruntime.InferenceSession(data).run(None, {"x": x})
    weight = module.leaves["w"].clone().requires_grad_()
    found = module.run({"x": torch.from_numpy(x)}, ["y", "all"], {"w": weight})
    for ours, wanted in zip(found.values(), theirs, strict=True):
        np.testing.assert_allclose(ours.detach(), wanted, rtol=1e-5, atol=1e-6)
    found["y"].sum().backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().min()) > 0


def test_operators_in_bodies_are_refused_by_name(tmp_path: Path):
    body = helper.make_graph(
        [make("RandomNormalLike", ["x"], ["b"], "noise")], "b", [], [info("b", ["N", 3])]
    )
    node = make("If", ["c"], ["y"], "choose", then_branch=body, else_branch=body)
    data = model_bytes(
        [node],
        [],
        [info("x", ["N", 3]), info("c", [], TensorProto.BOOL)],
        [info("y", ["N", 3])],
    )
    with pytest.raises(UnsupportedError, match=r"'noise' \(ai\.onnx\.RandomNormalLike-1\)"):
        GraphModule(open_bytes(tmp_path, data).graph, CPU)
