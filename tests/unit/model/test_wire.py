# SPDX-License-Identifier: Apache-2.0
"""The walk over the wire format finds the values where protobuf finds them."""

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from builders import (
    INTEGER_STORAGE,
    field,
    info,
    metadata_entry,
    model_bytes,
    open_bytes,
    stored_somehow,
    tensor,
    varint,
)
from onnx import helper, numpy_helper

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model import OnnxModel
from lancet_onnx.model import wire as wire_module
from lancet_onnx.model.skim import skim
from lancet_onnx.model.wire import Edit, FieldPath, Header, Run, Span, with_lengths

FIRST: FieldPath = ((7, 0), (5, 0))
"""The first initializer of the graph."""


def value_bytes(data: bytes, span: Span) -> bytes:
    return b"".join(data[run.start : run.end] for run in span.runs)


def spans_of(model: OnnxModel) -> dict[str, Span]:
    return {name: at.span for name, at in model.stored.items() if at.span is not None}


def locate(data: bytes, paths: Sequence[FieldPath]) -> dict[FieldPath, Span]:
    found = skim(data)
    spans = {path: found.span(path) for path in paths}
    return {path: span for path, span in spans.items() if span is not None}


def splice(data: bytes, edits: Sequence[Edit]) -> bytes:
    """What the copy makes of edits, all at once."""
    result, done = b"", 0
    for edit in with_lengths(edits):
        result += data[done : edit.start] + edit.content
        done = edit.end
    return result + data[done:]


def signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def decoded(data: bytes, span: Span) -> list[int]:
    content, start, numbers = value_bytes(data, span), 0, []
    for end in span.ends(data):
        groups = [byte & 0x7F for byte in content[start:end]]
        numbers.append(signed(sum(group << 7 * n for n, group in enumerate(groups))))
        start = int(end)
    assert start == len(content)
    return numbers


def test_the_bytes_of_every_form_are_found(tmp_path: Path, rng: np.random.Generator):
    data = stored_somehow(rng)
    model = open_bytes(tmp_path, data)
    spans = spans_of(model)
    assert spans.keys() == model.graph.constants.keys()
    for name, array in model.graph.constants.items():
        assert value_bytes(data, spans[name]) == array.tobytes(), name
        assert spans[name].size == array.nbytes
        assert spans[name].width in (1, array.dtype.itemsize)
    assert len(spans["unpacked"].runs) == 4
    assert len(spans["packed"].runs) == 1


@pytest.mark.parametrize("name", ["mnist_cnn_square", "mnist_resnet_scattered", "mnist_cnn_clean"])
def test_the_fixtures_values_are_found(fixtures, name: str):
    data = fixtures.model(name).read_bytes()
    proto = onnx.ModelProto.FromString(data)
    paths = [((7, 0), (5, number)) for number in range(len(proto.graph.initializer))]
    spans = locate(data, paths)
    for path, item in zip(paths, proto.graph.initializer, strict=True):
        assert value_bytes(data, spans[path]) == numpy_helper.to_array(item).tobytes()


@pytest.mark.parametrize("storage", INTEGER_STORAGE[1:])
@pytest.mark.parametrize(
    "array",
    [
        np.array([-128, -1, 0, 1, 127], np.int8),
        np.array([0, 1, 127, 128, 255], np.uint8),
        np.array([-(2**15), -1, 0, 300, 2**15 - 1], np.int16),
        np.array([0, 2**16 - 1], np.uint16),
        np.array([-(2**31), -1, 0, 2**31 - 1], np.int32),
        np.array([-(2**63), -1, 0, 2**63 - 1], np.int64),
        np.array([0, 2**32 - 1], np.uint32),
        np.array([0, 2**63 - 1], np.uint64),
    ],
    ids=lambda a: a.dtype.name,
)
def test_integers_are_found_one_by_one(array: np.ndarray, storage: str):
    item = tensor("w", array, storage)
    assert (numpy_helper.to_array(onnx.TensorProto.FromString(item)) == array).all()
    data = model_bytes([], [item], [], [])
    span = locate(data, [FIRST])[FIRST]
    assert span.width == 0
    assert decoded(data, span) == array.tolist()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("storage", INTEGER_STORAGE)
def test_half_precision_is_found(dtype: type, storage: str):
    array = np.array([0.0, -1.5, 1e-3, 7.0], dtype)
    data = model_bytes([], [tensor("w", array, storage)], [], [])
    span = locate(data, [FIRST])[FIRST]
    if storage == "raw":
        assert value_bytes(data, span) == array.tobytes()
    else:
        assert decoded(data, span) == array.view(np.uint16).tolist()


@pytest.mark.parametrize(
    ("value", "width", "expected"),
    [
        ({"value_float": 2.5}, 4, np.float32(2.5).tobytes()),
        ({"value_floats": [2.5, -1.0]}, 4, np.array([2.5, -1], np.float32).tobytes()),
        ({"value_int": -3}, 0, varint(-3)),
        ({"value_ints": [5, -3, 300]}, 0, varint(5) + varint(-3) + varint(300)),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_plain_numbers_of_a_constant_are_found(
    tmp_path: Path, value: dict[str, object], width: int, expected: bytes
):
    node = helper.make_node("Constant", [], ["c"], "n", **value)
    model = open_bytes(tmp_path, model_bytes([node], [], [], []))
    span = spans_of(model)["c"]
    assert (span.width, value_bytes(model.contents.source, span)) == (width, expected)


def test_the_default_of_a_functions_attribute_is_found():
    values = np.arange(3, dtype=np.float32)
    default = field(1, b"weight") + field(5, tensor("t", values)) + varint(20 << 3) + varint(4)
    data = field(7, b"") + field(25, b"") + field(25, field(11, default))
    path: FieldPath = ((25, 1), (11, 0), (5, 0))
    assert value_bytes(data, locate(data, [path])[path]) == values.tobytes()


def test_an_attribute_of_another_type_or_none_holds_no_numbers():
    """The type says which of the fields counts; without one, readers take none."""
    number = varint(2 << 3 | 5) + np.float32(1.5).tobytes()
    path: FieldPath = ((7, 0), (1, 0), (5, 0))
    for kind in (b"", varint(20 << 3) + varint(3), varint(20 << 3) + varint(2)):
        data = field(7, field(1, field(5, field(1, b"value_float") + number + kind)))
        assert locate(data, [path]) == {}


def test_of_what_is_written_twice_the_last_counts():
    """As protobuf has it, for a field that holds one number or one string of bytes."""
    one, two = np.array([1.0], np.float32), np.array([2.0], np.float32)
    item = tensor("w", one) + field(9, two.tobytes())
    floats = varint(2 << 3 | 5) + one.tobytes() + varint(2 << 3 | 5) + two.tobytes()
    attribute = field(1, b"value_float") + floats + varint(20 << 3) + varint(1)
    node = field(4, b"Constant") + field(2, b"c") + field(5, attribute)
    data = field(7, field(1, node) + field(5, item))
    proto = onnx.ModelProto.FromString(data)
    assert numpy_helper.to_array(proto.graph.initializer[0]).tolist() == [2.0]
    assert proto.graph.node[0].attribute[0].f == 2.0
    place: FieldPath = ((7, 0), (1, 0), (5, 0))
    for span in locate(data, [FIRST, place]).values():
        assert value_bytes(data, span) == two.tobytes()


def test_messages_in_several_parts_are_one():
    """Protobuf merges what a field that is no list holds; lists go on where they were."""
    first, second = (tensor(n, np.full(3, i, np.float32)) for i, n in enumerate("ab"))
    head = onnx.TensorProto.FromString(tensor("t", np.zeros(4, np.float32)))
    head.ClearField("raw_data")
    packed = [np.arange(2, dtype=np.float32), np.arange(2, 4, dtype=np.float32)]
    parts = [
        head.SerializeToString() + field(4, packed[0].tobytes()),
        field(4, packed[1].tobytes()),
    ]
    attribute = field(1, b"value") + b"".join(field(5, part) for part in parts)
    node = field(4, b"Constant") + field(2, b"c") + field(5, attribute)
    data = field(7, field(5, first)) + field(7, field(1, node) + field(5, second))
    proto = onnx.ModelProto.FromString(data)
    assert [t.name for t in proto.graph.initializer] == ["a", "b"]
    place: FieldPath = ((7, 0), (1, 0), (5, 0), (5, 0))
    spans = locate(data, [FIRST, ((7, 0), (5, 1)), place])
    for path, expected in zip(
        (FIRST, ((7, 0), (5, 1)), place), (np.zeros(3), np.ones(3), np.arange(4)), strict=True
    ):
        assert value_bytes(data, spans[path]) == expected.astype(np.float32).tobytes()
    assert numpy_helper.to_array(proto.graph.node[0].attribute[0].t).tolist() == [0, 1, 2, 3]
    assert len(spans[place].runs) == 2


def test_a_span_of_many_runs_knows_each_elements_place():
    header = Header(8, 9, 60)
    span = Span(4, (Run(10, 14, (header,)), Run(20, 24, ()), Run(40, 48, ())))
    assert [span.at(p, 4).start for p in (0, 4, 8, 12)] == [10, 20, 40, 44]
    assert span.at(0, 4) == Edit(10, 14, b"", (header,))
    for position, width in ((16, 4), (2, 4), (0, 8)):
        with pytest.raises(ModelError, match="past the end"):
            span.at(position, width)


def test_other_nodes_attributes_are_no_constants(tmp_path: Path):
    inner = helper.make_tensor("t", 1, [1], [1.0])
    node = helper.make_node("ConstantOfShape", ["s"], ["y"], "n", value=inner)
    shape = tensor("s", np.array([2]))
    model = open_bytes(tmp_path, model_bytes([node], [shape], [], [info("y", [2])]))
    assert spans_of(model).keys() == {"s"}


def test_tensors_inside_branches_are_found(tmp_path: Path):
    def branch(name: str, value: float) -> onnx.GraphProto:
        held = helper.make_tensor("inner", 1, [1], [value])
        node = helper.make_node("Identity", ["inner"], [f"{name}_y"], f"{name}_n")
        return helper.make_graph([node], name, [], [info(f"{name}_y", [1])], [held])

    node = helper.make_node(
        "If", ["c"], ["y"], "n", then_branch=branch("a", 1.0), else_branch=branch("b", 2.0)
    )
    inputs = [info("c", [], onnx.TensorProto.BOOL)]
    model = open_bytes(tmp_path, model_bytes([node], [], inputs, [info("y", [1])]))
    spans = spans_of(model)
    assert len(spans) == 2
    for name, array in model.graph.constants.items():
        assert value_bytes(model.contents.source, spans[name]) == array.tobytes()


def test_empty_tensors_text_and_absent_places_have_no_entry():
    empty = tensor("e", np.zeros((0, 3), np.float32))
    words = helper.make_tensor("s", onnx.TensorProto.STRING, [1], ["x"]).SerializeToString()
    data = model_bytes([helper.make_node("Relu", ["x"], ["y"], alpha="s")], [empty, words], [], [])
    paths = [FIRST, ((7, 0), (5, 1)), ((7, 0), (5, 2)), ((7, 0), (1, 0), (5, 0)), ((25, 0), (7, 0))]
    assert locate(data, paths) == {}


def test_fields_in_another_order_are_found():
    """Nothing obliges a writer to put a tensor's name before its values."""
    values = np.arange(3, dtype=np.float32)
    item = field(9, values.tobytes()) + varint(2 << 3) + varint(1) + varint(1 << 3) + varint(3)
    data = model_bytes([], [item + field(8, b"late")], [], [])
    assert value_bytes(data, locate(data, [FIRST])[FIRST]) == values.tobytes()


def padded(number: int, payload: bytes, spare: int) -> bytes:
    """A field whose length is written with more bytes than it needs."""
    return varint(number << 3 | 2) + wire_module.varint(len(payload), spare) + payload


@pytest.mark.parametrize("spare", [0, 2])
@pytest.mark.parametrize("size", [1, 100, 114, 115, 116, 117, 118, 119, 120, 200, 16_370, 16_373])
@pytest.mark.parametrize(("old", "new"), [(1, -1), (-1, 1), (1, 300), (300, 2), (7, 8)])
def test_what_grows_or_shrinks_is_readable_and_can_be_undone(
    size: int, spare: int, old: int, new: int
):
    """Lengths of several messages pass the places where they need one byte more, and back."""
    before, after = (np.array([v, *[3] * size], np.int32) for v in (old, new))
    whole = tensor("w", before, "packed")
    head = whole[: whole.index(field(5, b"".join(varint(int(v)) for v in before)))]
    packed = padded(5, b"".join(varint(int(v)) for v in before), spare)
    data = padded(7, padded(5, head + packed, spare), spare) + field(2, b"producer")
    current = data
    for value, expected in ((new, after), (old, before)):
        span = locate(current, [FIRST])[FIRST]
        edit = span.at(0, int(span.ends(current)[0]))
        current = bytes(splice(current, [edit._replace(content=varint(value))]))
        proto = onnx.ModelProto.FromString(current)
        assert proto.producer_name == "producer"
        assert (numpy_helper.to_array(proto.graph.initializer[0]) == expected).all()
    assert current == data


def test_edits_that_together_keep_a_size_leave_the_lengths_alone():
    before, after = np.array([1, 300], np.int32), np.array([300, 1], np.int32)
    item = tensor("w", before, "packed")
    data = padded(7, padded(5, item, 2), 2)
    span = locate(data, [FIRST])[FIRST]
    ends = [0, *span.ends(data)]
    edits = [
        span.at(ends[n], ends[n + 1] - ends[n])._replace(content=varint(int(after[n])))
        for n in range(2)
    ]
    done = bytes(splice(data, edits))
    assert done == padded(7, padded(5, tensor("w", after, "packed"), 2), 2)


def test_edits_that_overlap_are_refused():
    with pytest.raises(ModelError, match="overlap at byte 3"):
        splice(bytes(10), [Edit(3, 5, b"xx"), Edit(0, 4, b"yyyy")])


def test_a_length_that_no_reader_would_take_is_refused():
    """Readers take lengths of up to five bytes; here a sixth would be needed."""
    packed = varint(1) + varint(3) * 126
    data = padded(7, padded(5, padded(5, packed, 4), 3), 2)
    span = locate(data, [FIRST])[FIRST]
    edit = span.at(0, 1)._replace(content=varint(300))
    with pytest.raises(UnsupportedError, match="longer than five bytes"):
        splice(data, [edit])


def test_edits_come_in_any_order():
    assert splice(b"abcdef", [Edit(4, 5, b"Y"), Edit(0, 2, b"XX")]) == b"XXcdYf"
    assert splice(b"abc", []) == b"abc"


def test_a_metadata_entry_is_read_by_protobuf():
    text = "x" * 300
    proto = onnx.ModelProto.FromString(metadata_entry(text, "clé"))
    assert [(p.key, p.value) for p in proto.metadata_props] == [("clé", text)]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"\x80" * 20, "no number ends"),
        (field(7, b"")[:-1] + b"\x05", "ends past"),
        (b"\x3b", "wire type 3"),
        (b"\x02\x00", "field 0"),
        (varint(7 << 3 | 2) + varint(1 << 60), "ends past"),
        (field(7, field(5, field(9, b"abc")[:-1])), "ends past"),
    ],
)
def test_damaged_bytes_are_refused(data: bytes, cause: str):
    with pytest.raises(ModelError, match=cause):
        locate(data, [FIRST])
