# SPDX-License-Identifier: Apache-2.0
"""Where the raw input decides or scales, and where it only seems to."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import info, model_bytes, open_bytes, tensor
from onnx import TensorProto, helper

from lancet_onnx.model import load
from lancet_onnx.model.logic import logic_on_input

W = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("name", ["where_on_input", "if_on_input"])
def test_branches_on_the_input_are_found(fixtures, name: str):
    found = logic_on_input(load(fixtures.refused(name)).graph)
    assert "choose" in [switch.node.name for switch in found]


@pytest.mark.parametrize("name", ["mnist_cnn_square", "mnist_resnet_scattered", "mnist_cnn_clean"])
def test_ordinary_networks_have_no_branch_on_the_input(fixtures, name: str):
    assert logic_on_input(load(fixtures.model(name)).graph) == ()


def logic_model(*nodes: onnx.NodeProto, tmp_path: Path):
    tensors = [
        tensor("w", W),
        tensor("half", np.array(0.5, np.float32)),
        tensor("zero", np.array(0, np.float32)),
    ]
    return open_bytes(
        tmp_path, model_bytes(nodes, tensors, [info("x", ["N", 3])], [info("y", ["N", 4])])
    )


def test_a_comparison_of_pixels_multiplied_in_is_a_branch(tmp_path: Path):
    make = helper.make_node
    model = logic_model(
        make("Greater", ["x", "half"], ["c"], "compare"),
        make("Cast", ["c"], ["n"], "number", to=1),
        make("MatMul", ["x", "w"], ["h"], "mm"),
        make("Mul", ["h", "n"], ["y"], "gate"),
        tmp_path=tmp_path,
    )
    assert [s.node.name for s in logic_on_input(model.graph)] == ["gate"]


def test_a_comparison_of_features_is_none(tmp_path: Path):
    make = helper.make_node
    model = logic_model(
        make("MatMul", ["x", "w"], ["h"], "mm"),
        make("Greater", ["h", "half"], ["c"], "compare"),
        make("Where", ["c", "h", "zero"], ["y"], "threshold"),
        tmp_path=tmp_path,
    )
    assert logic_on_input(model.graph) == ()


def loop(condition_reads: str) -> bytes:
    """A Loop that goes on while something is large: the raw input, or what a weight made of it."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["h_out"], "mm"),
            helper.make_node("ReduceMax", [condition_reads], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "limit"], ["go_out"], "compare"),
        ],
        "body",
        [
            info("i", [], TensorProto.INT64),
            info("go", [], TensorProto.BOOL),
            info("h", ["N", 3]),
        ],
        [info("go_out", [], TensorProto.BOOL), info("h_out", ["N", 3])],
    )
    nodes = [helper.make_node("Loop", ["trips", "", "start"], ["y"], "again", body=body)]
    if condition_reads == "h_out":
        nodes.insert(0, helper.make_node("MatMul", ["x", "w"], ["start"], "first"))
    else:
        nodes.insert(0, helper.make_node("Identity", ["x"], ["start"], "first"))
    constants = [
        tensor("w", np.eye(3, dtype=np.float32)),
        tensor("limit", np.array(2, np.float32)),
        tensor("trips", np.array(5)),
    ]
    return model_bytes(nodes, constants, [info("x", ["N", 3])], [info("y", ["N", 3])], opset=13)


@pytest.mark.parametrize(("reads", "found"), [("x", ["again"]), ("h_out", [])])
def test_loops_that_the_raw_input_ends_are_found(tmp_path, reads: str, found: list[str]):
    graph = open_bytes(tmp_path, loop(reads)).graph
    assert [str(s.node.name) for s in logic_on_input(graph)] == found


def test_a_comparison_inside_a_body_taints_what_comes_out(tmp_path):
    inside = helper.make_graph(
        [helper.make_node("Greater", ["x", "limit"], ["b"], "compare")],
        "inside",
        [],
        [info("b", ["N", 3], TensorProto.BOOL)],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["c"], "hide", then_branch=inside, else_branch=inside),
        helper.make_node("MatMul", ["x", "w"], ["h"], "mm"),
        helper.make_node("Where", ["c", "limit", "h"], ["y"], "pick"),
    ]
    constants = [
        tensor("limit", np.ones(3, np.float32)),
        tensor("yes", np.array(True)),
        tensor("w", np.eye(3, dtype=np.float32)),
    ]
    data = model_bytes(nodes, constants, [info("x", ["N", 3])], [info("y", ["N", 3])])
    found = logic_on_input(open_bytes(tmp_path, data).graph)
    assert [str(s.node.name) for s in found] == ["pick"]


def test_branches_on_shapes_are_no_logic_on_the_input(tmp_path):
    same = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "s", [], [info("b", None)])
    nodes = [
        helper.make_node("Size", ["x"], ["n"], "count"),
        helper.make_node("Greater", ["n", "many"], ["large"], "compare"),
        helper.make_node("If", ["large"], ["y"], "choose", then_branch=same, else_branch=same),
    ]
    constants = [tensor("many", np.array(10))]
    data = model_bytes(nodes, constants, [info("x", ["N", 3])], [info("y", ["N", 3])])
    assert logic_on_input(open_bytes(tmp_path, data).graph) == ()
