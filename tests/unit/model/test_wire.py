# SPDX-License-Identifier: Apache-2.0
"""The walk over the wire format finds the values where protobuf finds them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import field, model_bytes, open_bytes, stored_somehow, tensor, varint
from onnx import helper

from lancet_onnx.errors import ModelError
from lancet_onnx.model.wire import Span, metadata_entry, tensor_spans


def value_bytes(data: bytes, span: Span) -> bytes:
    return b"".join(data[start:end] for start, end in span.runs)


def test_the_bytes_of_every_form_are_found(tmp_path: Path, rng: np.random.Generator):
    data = stored_somehow(rng)
    constants = open_bytes(tmp_path, data).graph.constants
    spans = tensor_spans(data)
    assert spans.keys() == constants.keys()
    for name, array in constants.items():
        assert value_bytes(data, spans[name]) == array.tobytes(), name
        assert spans[name].size == array.nbytes
    assert len(spans["unpacked"].runs) == 4
    assert len(spans["packed"].runs) == 1


@pytest.mark.parametrize("name", ["mnist_cnn_square", "mnist_resnet_scattered", "mnist_cnn_clean"])
def test_the_fixtures_values_are_found(fixtures, name: str):
    data = fixtures.model(name).read_bytes()
    proto = onnx.ModelProto.FromString(data)
    spans = tensor_spans(data)
    for item in proto.graph.initializer:
        assert value_bytes(data, spans[item.name]) == onnx.numpy_helper.to_array(item).tobytes()


def test_a_span_of_many_runs_knows_each_bytes_place():
    span = Span(((10, 14), (20, 24), (40, 44)))
    assert [span.offset(p) for p in (0, 3, 4, 8, 11)] == [10, 13, 20, 40, 43]
    with pytest.raises(ModelError, match="past the end"):
        span.offset(12)


def test_other_nodes_attributes_are_no_constants():
    inner = helper.make_tensor("t", 1, [1], [1.0])
    node = helper.make_node("ConstantOfShape", ["s"], ["y"], "n", value=inner)
    assert tensor_spans(model_bytes([node], [], [], [])) == {}


def test_tensors_inside_branches_are_no_leaves():
    branch = helper.make_graph([], "b", [], [], [helper.make_tensor("inner", 1, [1], [1.0])])
    node = helper.make_node("If", ["c"], ["y"], "n", then_branch=branch, else_branch=branch)
    assert tensor_spans(model_bytes([node], [], [], [])) == {}


def test_integer_fields_and_empty_tensors_have_no_entry():
    integers = helper.make_tensor("i", onnx.TensorProto.INT64, [2], [1, 2]).SerializeToString()
    empty = tensor("e", np.zeros((0, 3), np.float32))
    assert tensor_spans(model_bytes([], [integers, empty], [], [])) == {}


def test_fields_in_another_order_are_found():
    """Nothing obliges a writer to put a tensor's name before its values."""
    values = np.arange(3, dtype=np.float32)
    item = field(9, values.tobytes()) + varint(2 << 3) + varint(1) + varint(1 << 3) + varint(3)
    data = model_bytes([], [item + field(8, b"late")], [], [])
    assert value_bytes(data, tensor_spans(data)["late"]) == values.tobytes()


def test_a_metadata_entry_is_read_by_protobuf():
    text = "x" * 300
    proto = onnx.ModelProto.FromString(metadata_entry("clé", text))
    assert [(p.key, p.value) for p in proto.metadata_props] == [("clé", text)]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"\x80" * 20, "no number ends"),
        (field(7, b"")[:-1] + b"\x05", "ends past"),
        (b"\x3b", "wire type 3"),
        (b"\x02\x00", "field 0"),
        (varint(7 << 3 | 2) + varint(1 << 60), "ends past"),
    ],
)
def test_damaged_bytes_are_refused(data: bytes, cause: str):
    with pytest.raises(ModelError, match=cause):
        tensor_spans(data)
