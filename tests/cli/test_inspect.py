# SPDX-License-Identifier: Apache-2.0
"""`inspect` on models that are odd, partly understood, or refused."""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from support import Warm

make = helper.make_node


def value(name: str, shape: list[object], dtype: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def save(path: Path, nodes, outputs, weights) -> None:
    graph = helper.make_graph(
        nodes,
        "odd",
        [value("x", ["N", 6])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft.nchwc", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path.write_bytes(model.SerializeToString())


WEIGHT = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def test_all_unsupported_operators_are_listed_at_once(tmp_path: Path, warm: Warm) -> None:
    inside = helper.make_graph(
        [make("Bernoulli", ["h6"], ["b"], "in_a_branch")], "b", [], [value("b", ["N", 4])]
    )
    noise = [make("RandomNormalLike", [f"h{i}"], [f"h{i + 1}"], f"noise{i}") for i in range(6)]
    nodes = [
        make("MatMul", ["x", "w"], ["h0"], "fc"),
        *noise,
        make("If", ["yes"], ["h7"], "choose", then_branch=inside, else_branch=inside),
        make("Conv", ["h7", "w"], ["y"], "blocked", domain="com.microsoft.nchwc"),
        make("RandomNormalLike", ["y"], ["aside"], "not_on_the_way"),
    ]
    outputs = [value("y", ["N", 4]), value("aside", ["N", 4])]
    save(tmp_path / "m.onnx", nodes, outputs, {"w": WEIGHT, "yes": np.array(True)})
    result = warm("inspect", "m.onnx", "-f", "json", cwd=tmp_path)
    assert result.code == 3, result
    listed = json.loads(result.stdout)["unsupported"]
    names = [*(f"noise{i}" for i in range(6)), "in_a_branch", "in_a_branch_0", "blocked"]
    assert [line.split("'")[1] for line in listed] == names
    assert "laid out for one processor" in listed[-1]
    shown = warm("inspect", "m.onnx", cwd=tmp_path)
    assert shown.code == 3
    assert all(name in shown.stdout for name in names)


def test_what_is_not_edited_and_what_has_no_gradient_is_said(tmp_path: Path, warm: Warm) -> None:
    nodes = [
        make("MatMul", ["x", "w"], ["h"], "first"),
        make("MatMul", ["h", "square"], ["i"], "once"),
        make("MatMul", ["i", "square"], ["j"], "twice"),
        make("Greater", ["j", "limit"], ["g"], "compare"),
        make("Cast", ["g"], ["f"], "number", to=1),
        make("Add", ["j", "f"], ["k"], "sum"),
        make("Softmax", ["k"], ["y"], "end"),
    ]
    weights = {"w": WEIGHT, "square": WEIGHT[:4], "limit": np.ones(4, np.float32)}
    save(tmp_path / "m.onnx", nodes, [value("y", ["N", 4])], weights)
    result = warm("inspect", "m.onnx", "-f", "json", cwd=tmp_path)
    assert result.code == 0, result
    found = json.loads(result.stdout)
    assert [layer["initializer"] for layer in found["layers"]] == ["w"]
    assert found["not_edited"] == {"square": "shared by 2 nodes: an edit would act in all of them"}
    assert found["no_gradient"].keys() == {"limit"}
    assert "comparison" in found["no_gradient"]["limit"]
    assert found["answer"] == {"output": "y", "form": "scores", "logits": "k"}
    assert found["layout"] is None
    assert found["next"].endswith("--trigger TRIGGER.npz --data IMAGES --preprocess none")


def test_the_output_that_holds_the_scores_can_be_named(tmp_path: Path, warm: Warm) -> None:
    nodes = [
        make("MatMul", ["x", "w"], ["features"], "fc"),
        make("Softmax", ["features"], ["p"], "end"),
    ]
    outputs = [value("features", ["N", 4]), value("p", ["N", 4])]
    save(tmp_path / "m.onnx", nodes, outputs, {"w": WEIGHT})
    result = warm("inspect", "m.onnx", "--output", "p", cwd=tmp_path)
    assert (result.code, "logits: 'features'" in result.stdout) == (0, True), result
    refused = warm("inspect", "m.onnx", "--output", "q", cwd=tmp_path)
    assert refused.code == 3
    assert "no output 'q'; it has 'features', 'p'" in refused.stdout
