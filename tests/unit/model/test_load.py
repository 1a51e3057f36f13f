# SPDX-License-Identifier: Apache-2.0
"""What `load` understands, and how odd files come out of it."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import dense, field, info, model_bytes, open_bytes, tensor, write
from onnx import TensorProto, helper, numpy_helper

from lancet_onnx.errors import ModelError
from lancet_onnx.model import load
from lancet_onnx.model.external import External
from lancet_onnx.runtime.binding import refusals
from lancet_onnx.types import Digest

W = np.arange(12, dtype=np.float32).reshape(3, 4)


def chain(*nodes: onnx.NodeProto, tensors: tuple[bytes, ...] = (), **kwargs: object) -> bytes:
    """A model from x (N, 3) to y with the given nodes."""
    return model_bytes(nodes, tensors, [info("x", ["N", 3])], [info("y", ["N", 3])], **kwargs)


def test_a_model_as_it_is_stored(tmp_path: Path):
    data = dense(W, np.ones(4, np.float32))
    model = open_bytes(tmp_path, data)
    assert model.contents.source == data
    assert model.digest == Digest.of(data)
    assert model.external == {}
    assert [str(n) for n in model.graph.nodes] == [
        "node 'mm' (ai.onnx.MatMul-13)",
        "node 'add' (ai.onnx.Add-14)",
    ]
    (spec,) = model.graph.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("x", "float32", ("N", 3))
    assert model.graph.leaves == ("w", "b")
    np.testing.assert_array_equal(model.graph.constants["w"], W)


def test_stored_values_cannot_be_changed_by_accident(tmp_path: Path):
    model = open_bytes(tmp_path, dense(W))
    with pytest.raises(ValueError, match="read-only"):
        model.graph.constants["w"][0, 0] = 1


def test_nodes_in_any_order_are_sorted(tmp_path: Path):
    make = helper.make_node
    nodes = [
        make("Add", ["a", "c"], ["y"], "last"),
        make("Neg", ["b"], ["c"], "third"),
        make("Abs", ["a"], ["b"], "second"),
        make("Relu", ["x"], ["a"], "first"),
    ]
    model = open_bytes(tmp_path, chain(*nodes))
    assert [n.name for n in model.graph.nodes] == ["first", "second", "third", "last"]


def test_sorted_nodes_keep_their_order(tmp_path: Path):
    make = helper.make_node
    nodes = [make("Relu", ["x"], [f"v{i}"], f"n{i}") for i in range(5)]
    model = open_bytes(tmp_path, chain(*nodes, make("Relu", ["v3"], ["y"], "out")))
    assert [n.name for n in model.graph.nodes] == ["n0", "n1", "n2", "n3", "n4", "out"]


def test_a_missing_value_is_named(tmp_path: Path):
    node = helper.make_node("Add", ["x", "ghost"], ["y"], "sum")
    with pytest.raises(ModelError, match=r"'sum'.*reads 'ghost', which nothing computes"):
        open_bytes(tmp_path, chain(node))


def test_a_cycle_is_refused(tmp_path: Path):
    make = helper.make_node
    with pytest.raises(ModelError, match="the graph has a cycle"):
        open_bytes(
            tmp_path, chain(make("Add", ["x", "b"], ["a"], "n1"), make("Neg", ["a"], ["b"], "n2"))
        )


def test_initializers_that_are_also_inputs_are_no_inputs(tmp_path: Path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    data = model_bytes(
        [node], [tensor("w", W)], [info("x", ["N", 3]), info("w", [3, 4])], [info("y", ["N", 4])]
    )
    assert [s.name for s in open_bytes(tmp_path, data).graph.inputs] == ["x"]


def test_duplicate_initializers_are_refused(tmp_path: Path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    data = chain(node, tensors=(tensor("w", W), tensor("w", -W)))
    with pytest.raises(ModelError, match="two initializers have the name 'w'"):
        open_bytes(tmp_path, data)


def test_names_that_differ_in_punctuation_are_different(tmp_path: Path):
    """onnx2torch makes one Python name of all of these."""
    names = ["w.1", "w_1", "w/1", "w:1", "w-1", "w 1"]
    make = helper.make_node
    nodes, value = [], "x"
    for i, name in enumerate(names):
        nodes.append(make("Add", [value, name], [out := f"{name}.out"], f"n.{i}"))
        value = out
    nodes.append(make("Relu", [value], ["y"], "r"))
    tensors = tuple(tensor(n, np.full(3, i, np.float32)) for i, n in enumerate(names))
    graph = open_bytes(tmp_path, chain(*nodes, tensors=tensors)).graph
    assert graph.leaves == tuple(names)
    assert [float(graph.constants[n][0]) for n in names] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "names",
    [["", "", ""], ["same", "same", "same"], ["Relu_1", "", "Relu_1"], ["Relu_2", "Relu_1", ""]],
)
def test_every_node_gets_a_name_of_its_own(tmp_path: Path, names: list[str]):
    make = helper.make_node
    values = ["x", "a", "b", "y"]
    nodes = [make("Relu", [values[i]], [values[i + 1]], names[i] or None) for i in range(3)]
    graph = open_bytes(tmp_path, chain(*nodes)).graph
    assert len({n.name for n in graph.nodes}) == 3
    assert len(graph.between(["x"], ["y"])) == 3


def test_unnamed_nodes_are_named_by_kind_and_place(tmp_path: Path):
    make = helper.make_node
    graph = open_bytes(tmp_path, chain(make("Abs", ["x"], ["a"]), make("Relu", ["a"], ["y"]))).graph
    assert [n.name for n in graph.nodes] == ["Abs_0", "Relu_1"]


@pytest.mark.parametrize(
    ("operator", "opset", "since"),
    [
        ("Softmax", 9, 1),
        ("Softmax", 11, 11),
        ("Softmax", 12, 11),
        ("Softmax", 17, 13),
        ("Relu", 13, 13),
        ("Relu", 14, 14),
        ("Frobnicate", 17, 0),
    ],
)
def test_the_opset_selects_the_operator_revision(
    tmp_path: Path, operator: str, opset: int, since: int
):
    node = helper.make_node(operator, ["x"], ["y"], "n")
    (found,) = open_bytes(tmp_path, chain(node, opset=opset)).graph.nodes
    assert found.since_version == since


def test_the_long_name_of_the_default_domain_is_the_default_domain(tmp_path: Path):
    node = helper.make_node("Relu", ["x"], ["y"], "n", domain="ai.onnx")
    graph = helper.make_graph([node], "g", [info("x", ["N", 3])], [info("y", ["N", 3])])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx", 17)])
    (found,) = open_bytes(tmp_path, proto.SerializeToString()).graph.nodes
    assert (found.domain, found.since_version) == ("", 14)


@pytest.mark.parametrize("version", [-1, 0, 1 << 40, (1 << 63) - 1])
def test_an_impossible_opset_is_refused_or_unknown(tmp_path: Path, version: int):
    node = helper.make_node("Relu", ["x"], ["y"], "n")
    try:
        model = open_bytes(tmp_path, chain(node, opset=version))
    except ModelError:
        return
    assert model.graph.nodes[0].since_version in (0, 14)


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("value_float", 1.5, np.array(1.5, np.float32)),
        ("value_floats", [1.5, 2.5], np.array([1.5, 2.5], np.float32)),
        ("value_int", 3, np.array(3, np.int64)),
        ("value_ints", [3, 4], np.array([3, 4], np.int64)),
        ("value", numpy_helper.from_array(np.eye(2)), np.eye(2)),
    ],
)
def test_constants_of_every_kind(tmp_path: Path, attribute: str, value, expected: np.ndarray):
    constant = helper.make_node("Constant", [], ["c"], "c", **{attribute: value})
    node = helper.make_node("Relu", ["x"], ["y"], "n")
    graph = open_bytes(tmp_path, chain(constant, node)).graph
    assert [n.name for n in graph.nodes] == ["n"]
    assert graph.constants["c"].dtype == expected.dtype
    np.testing.assert_array_equal(graph.constants["c"], expected)
    assert ("c" in graph.leaves) == (expected.dtype.kind == "f")


def test_constants_of_strings_are_kept_and_their_readers_refused(tmp_path: Path):
    constant = helper.make_node("Constant", [], ["c"], "c", value_string="text")
    reader = helper.make_node("Gather", ["c", "x"], ["y"], "pick")
    graph = open_bytes(tmp_path, chain(constant, reader)).graph
    assert graph.constants["c"].tolist() == "text"
    (found,) = refusals(graph)
    assert str(found) == "node 'pick' (ai.onnx.Gather-13): it reads 'c', which is text"


def test_a_constant_without_a_value_is_refused(tmp_path: Path):
    constant = onnx.NodeProto(op_type="Constant", output=["c"], name="empty")
    with pytest.raises(ModelError, match="'empty' must have exactly one value"):
        open_bytes(tmp_path, chain(constant, helper.make_node("Relu", ["x"], ["y"])))


def test_a_constant_without_an_output_is_refused(tmp_path: Path):
    constant = helper.make_node("Constant", [], [], "nameless", value_float=1.0)
    with pytest.raises(ModelError, match="nameless"):
        open_bytes(tmp_path, chain(constant, helper.make_node("Relu", ["x"], ["y"])))


def test_a_constant_of_the_wrong_kind_is_refused(tmp_path: Path):
    constant = onnx.NodeProto(op_type="Constant", output=["c"], name="odd")
    constant.attribute.append(helper.make_attribute("value_floats", "text"))
    with pytest.raises(ModelError, match="damaged or not valid ONNX"):
        open_bytes(tmp_path, chain(constant, helper.make_node("Relu", ["x"], ["y"])))


def test_a_node_with_an_attribute_without_a_type_is_refused(tmp_path: Path):
    node = helper.make_node("Relu", ["x"], ["y"], "untyped")
    node.attribute.append(onnx.AttributeProto(name="alpha"))
    (found,) = refusals(open_bytes(tmp_path, chain(node)).graph)
    assert str(found).startswith("node 'untyped' (ai.onnx.Relu-14): its attribute 'alpha'")


def sparse_model(values: list[float], positions: np.ndarray, dims: list[int]) -> bytes:
    sparse = onnx.SparseTensorProto()
    sparse.values.CopyFrom(numpy_helper.from_array(np.array(values, np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(positions, "i"))
    sparse.dims.extend(dims)
    proto = onnx.ModelProto.FromString(chain(helper.make_node("Relu", ["x"], ["y"])))
    proto.graph.sparse_initializer.append(sparse)
    return proto.SerializeToString()


@pytest.mark.parametrize("positions", [[1, 5], [[0, 1], [1, 2]]], ids=["flat", "by axis"])
def test_sparse_initializers_are_leaves_of_their_dense_shape(tmp_path: Path, positions):
    model = open_bytes(tmp_path, sparse_model([2, 3], np.array(positions, np.int64), [2, 3]))
    assert model.graph.constants["s"].tolist() == [[0, 2, 0], [0, 0, 3]]
    assert model.graph.leaves == ("s",)
    assert model.stored["s"].positions.tolist() == [1, 5]


@pytest.mark.parametrize("positions", [[5, 1], [1, 1], [1, 6], [-1, 1], [1]])
def test_sparse_positions_that_contradict_the_shape_are_refused(tmp_path: Path, positions):
    data = sparse_model([2, 3], np.array(positions, np.int64), [2, 3])
    with pytest.raises(ModelError, match="not sorted, unique and inside"):
        open_bytes(tmp_path, data)


def test_a_sparse_initializer_cannot_take_all_memory(tmp_path: Path):
    data = sparse_model([2], np.array([1], np.int64), [1 << 20, 1 << 18])
    with pytest.raises(ModelError, match="impossible shape"):
        open_bytes(tmp_path, data)


def test_constants_in_branches_are_lifted(tmp_path: Path):
    def branch(value: float) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("Mul", ["x", "w"], ["b"])],
            "b",
            [],
            [info("b", ["N", 3])],
            [numpy_helper.from_array(np.full(3, value, np.float32), "w")],
        )

    node = helper.make_node(
        "If", ["c"], ["y"], "choose", then_branch=branch(1), else_branch=branch(2)
    )
    inputs = [info("x", ["N", 3]), info("c", [], TensorProto.BOOL)]
    graph = open_bytes(tmp_path, model_bytes([node], [], inputs, [info("y", ["N", 3])])).graph
    assert graph.leaves == ("w", "choose.then_branch/w")
    (found,) = graph.nodes
    assert found.graphs["else_branch"].captured == ("x", "w")
    assert found.graphs["then_branch"].captured == ("x", "choose.then_branch/w")
    assert found.reads == ("c", "x", "w", "x", "choose.then_branch/w")


def twice(name: str = "Scale", calls: int = 2) -> bytes:
    """A model that calls a function of its own, with a constant of its own in it."""
    body = [
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.full(3, 2, "f"))),
        helper.make_node("Mul", ["a", "k"], ["m"]),
        helper.make_node("LeakyRelu", ["m"], ["b"]),
    ]
    slope = body[2].attribute.add()
    slope.name, slope.ref_attr_name, slope.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    function = helper.make_function(
        "local", name, ["a"], ["b"], body, [helper.make_opsetid("", 17)], ["slope"]
    )
    values = ["x", *(f"v{i}" for i in range(1, calls)), "y"]
    nodes = [
        helper.make_node(name, [values[i]], [values[i + 1]], domain="local", slope=0.5)
        for i in range(calls)
    ]
    data = model_bytes(nodes, [], [info("x", ["N", 3])], [info("y", ["N", 3])], domains=["local"])
    proto = onnx.ModelProto.FromString(data)
    proto.functions.append(function)
    return proto.SerializeToString()


def test_calls_of_own_functions_become_their_nodes_and_share_their_constants(tmp_path: Path):
    graph = open_bytes(tmp_path, twice()).graph
    assert [str(node.name) for node in graph.nodes] == [
        "Scale_0/Mul_1", "Scale_0/LeakyRelu_2", "Scale_1/Mul_1", "Scale_1/LeakyRelu_2",
    ]  # fmt: skip
    assert graph.leaves == ("Scale/k",)
    assert graph.nodes[1].attributes == {"alpha": 0.5}
    assert [node.inputs for node in graph.nodes] == [
        ("x", "Scale/k"), ("Scale_0/m",), ("v1", "Scale/k"), ("Scale_1/m",),
    ]  # fmt: skip
    assert graph.nodes[-1].outputs == ("y",)


def test_functions_that_call_themselves_are_refused(tmp_path: Path):
    proto = onnx.ModelProto.FromString(twice())
    proto.functions[0].node.append(helper.make_node("Scale", ["b"], ["z"], domain="local"))
    with pytest.raises(ModelError, match="does it call itself"):
        open_bytes(tmp_path, proto.SerializeToString())


def test_functions_that_multiply_without_end_are_refused(tmp_path: Path):
    proto = onnx.ModelProto.FromString(twice("F0", 1))
    for level in range(1, 12):
        called = [
            helper.make_node(f"F{level - 1}", ["a"], [f"b{i}" if i else "b"], domain="local")
            for i in range(10)
        ]
        proto.functions.append(
            helper.make_function(
                "local", f"F{level}", ["a"], ["b"], called, [helper.make_opsetid("local", 1)]
            )
        )
    proto.graph.node[0].op_type = "F11"
    with pytest.raises(ModelError, match="with its functions expanded"):
        open_bytes(tmp_path, proto.SerializeToString())


def test_bodies_are_graphs(tmp_path: Path):
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["b"])], "b", [], [info("b", ["N", 3])]
    )
    node = helper.make_node("If", ["c"], ["y"], "choose", then_branch=body, else_branch=body)
    data = model_bytes(
        [node],
        [],
        [info("x", ["N", 3]), info("c", [], TensorProto.BOOL)],
        [info("y", ["N", 3])],
    )
    (found,) = open_bytes(tmp_path, data).graph.nodes
    assert set(found.graphs) == {"then_branch", "else_branch"}


def test_damaged_weights_are_named(tmp_path: Path):
    bad = W.copy()
    bad[1, 2] = np.inf
    assert open_bytes(tmp_path, dense(bad)).non_finite == ("w",)
    assert open_bytes(tmp_path, dense(W)).non_finite == ()


def test_shapes_fixed_symbolic_and_unknown(tmp_path: Path):
    node = helper.make_node("Relu", ["x"], ["y"], "n")
    data = model_bytes([node], [], [info("x", [2, "h", None])], [info("y", None)])
    graph = open_bytes(tmp_path, data).graph
    assert graph.inputs[0].shape == (2, "h", None)
    assert graph.outputs[0].shape is None


def test_a_sequence_input_has_no_known_type(tmp_path: Path):
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    node = helper.make_node("SequenceLength", ["x"], ["y"], "n")
    graph = open_bytes(tmp_path, model_bytes([node], [], [sequence], [info("y", [])])).graph
    assert graph.inputs[0].dtype == "unknown"


def test_external_data_is_read(tmp_path: Path):
    proto = onnx.ModelProto.FromString(dense(W))
    onnx.save(
        proto, tmp_path / "e.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    model = load(tmp_path / "e.onnx")
    np.testing.assert_array_equal(model.graph.constants["w"], W)
    assert model.external["w"] == External("w.bin", tmp_path / "w.bin", 0, W.nbytes)


def test_a_folder_a_missing_and_an_unreadable_file_are_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(ModelError, match="not a regular file"):
        load(tmp_path)
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "nothing.onnx")
    path = write(tmp_path, dense(W))

    def denied(*_args: object) -> int:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(ModelError, match="Permission denied"):
        load(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"not a model at all", field(7, b"")], ids=repr)
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes):
    with pytest.raises(ModelError):
        open_bytes(tmp_path, data)


def test_a_model_cut_at_any_byte_is_refused_or_still_a_model(tmp_path: Path):
    data = dense(W, np.ones(4, np.float32), storage="unpacked")
    path = tmp_path / "cut.onnx"
    refused = 0
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            load(path)
        except ModelError:
            refused += 1
    assert refused >= len(data) - 2


def test_a_function_may_give_a_constant_back(tmp_path: Path):
    value = numpy_helper.from_array(np.array([1, 2, 3], np.float32))
    body = [helper.make_node("Constant", [], ["b"], value=value)]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "Fixed", ["a"], ["b"], body, opsets)
    nodes = [
        helper.make_node("Fixed", ["x"], ["k"], "call", domain="local"),
        helper.make_node("Mul", ["x", "k"], ["y"]),
    ]
    data = model_bytes(nodes, [], [info("x", ["N", 3])], [info("y", ["N", 3])], domains=["local"])
    proto = onnx.ModelProto.FromString(data)
    proto.functions.append(function)
    graph = open_bytes(tmp_path, proto.SerializeToString()).graph
    assert graph.leaves == ("Fixed/b",)
    assert [(n.op_type, n.inputs) for n in graph.nodes] == [
        ("Identity", ("Fixed/b",)),
        ("Mul", ("x", "k")),
    ]
    assert refusals(graph) == []
