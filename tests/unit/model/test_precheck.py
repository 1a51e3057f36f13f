# SPDX-License-Identifier: Apache-2.0
"""Hostile and damaged models are refused by name before anything is computed."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import dense, field, info, model_bytes, open_bytes, tensor
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model import checking, load
from lancet_onnx.model.contents import survey
from lancet_onnx.model.precheck import MAX_NODES
from lancet_onnx.rules import RULES, TOO_LARGE
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.ort import OrtModel

W = np.arange(12, dtype=np.float32).reshape(3, 4)

MESSAGES = json.loads(
    (Path(__file__).parents[3] / "fixtures" / "refused" / "messages.json").read_text()
)
"""Who refuses each file of fixtures/refused, by which rule, with which words."""


def refused_at(stage: str) -> list[str]:
    return [name for name, told in MESSAGES.items() if told["at"] == stage]


def says(error: ModelError, name: str) -> None:
    rule = MESSAGES[name]["rule"]
    assert (error.rule.id if error.rule else "") == rule
    for part in MESSAGES[name]["says"]:
        assert part in str(error)
    assert str(error).endswith(f"[{rule}]") or not rule


def test_every_refused_fixture_has_its_message(fixtures):
    files = {p.stem for p in fixtures.refused("x").parent.glob("*.onnx")}
    assert files == MESSAGES.keys()


@pytest.mark.parametrize("name", refused_at("load"))
def test_refused_when_read(fixtures, name: str):
    path = fixtures.refused(name)
    with pytest.raises(ModelError) as caught:
        load(path)
    says(caught.value, name)
    assert str(path) in str(caught.value)
    with pytest.raises(ModelError) as again, survey(path):
        pass
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("name", refused_at("classifier"))
def test_refused_as_a_classifier(fixtures, name: str):
    model = load(fixtures.refused(name))
    with pytest.raises(ModelError) as caught:
        Classifier(model.graph)
    says(caught.value, name)


def test_every_rule_of_the_file_has_a_fixture():
    """But those that need gigabytes: they are tested with smaller bounds."""
    known = {rule for rule in RULES if rule.startswith("LNC1")}
    assert known - {told["rule"] for told in MESSAGES.values()} == {TOO_LARGE.id}


@pytest.mark.parametrize("limit", ["MAX_FIELDS", "MAX_SKELETON"])
def test_files_with_more_than_a_model_can_need_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
):
    monkeypatch.setattr(f"lancet_onnx.model.skim.{limit}", 9)
    with pytest.raises(ModelError, match="more than") as caught:
        open_bytes(tmp_path, dense(W))
    assert caught.value.rule is TOO_LARGE


def test_a_file_larger_than_protobuf_allows_is_refused_unread(tmp_path: Path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(ModelError, match="external data") as caught:
        load(path)
    assert caught.value.rule is TOO_LARGE


def test_nan_weights_are_named(fixtures):
    assert load(fixtures.refused("nan_weight")).non_finite == ("fc.weight",)


def test_nan_outputs_are_refused_when_run(fixtures):
    path = fixtures.refused("nan_output")
    classifier = Classifier(load(path).graph)
    model = OrtModel(path, classifier.signature.input, "cpu")
    with pytest.raises(ModelError, match="gives NaN"):
        model.labels(fixtures.inputs(3))


def with_tensor(tmp_path: Path, item: bytes):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    return open_bytes(
        tmp_path, model_bytes([node], [item], [info("x", ["N", 3])], [info("y", ["N", 4])])
    )


@pytest.mark.parametrize(
    ("item", "cause"),
    [
        (tensor("w", W) + field(4, W.tobytes()), "two value fields"),
        (tensor("w", W, "packed") + field(10, W.astype(float).tobytes()), "two value fields"),
        (tensor("w", W)[:-4], None),
        (tensor("w", W, "packed") + field(4, b"\0\0\0\0"), "needs 12 elements but holds 13"),
        (onnx.TensorProto(name="w", dims=[3, 4], data_type=1).SerializeToString(), "holds 0"),
        (onnx.TensorProto(name="w", dims=[-3, -4], data_type=1).SerializeToString(), "impossible"),
        (onnx.TensorProto(name="w", dims=[3], data_type=77).SerializeToString(), "unknown type 77"),
        (onnx.TensorProto(name="w", dims=[1 << 20] * 4, data_type=1).SerializeToString(), "impos"),
    ],
    ids=["raw+float", "float+double", "cut", "too many", "none", "negative", "type", "huge"],
)
def test_tensors_that_contradict_themselves(tmp_path: Path, item: bytes, cause: str | None):
    with pytest.raises(ModelError, match=cause or "not an ONNX model"):
        with_tensor(tmp_path, item)


def external(location: str, **entries: str) -> bytes:
    item = onnx.TensorProto(name="w", dims=[3, 4], data_type=TensorProto.FLOAT)
    item.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        item.external_data.add(key=key, value=value)
    return item.SerializeToString()


@pytest.mark.parametrize(
    "location",
    ["../outside.bin", "/etc/hostname", "", "sub/../../outside.bin", "link.bin", "linked/w.bin"],
)
def test_external_data_stays_in_the_models_folder(tmp_path: Path, location: str):
    (tmp_path / "outside.bin").write_bytes(W.tobytes())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.bin").write_bytes(W.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="outside the model's own folder"):
        with_tensor(folder, external(location))


def test_a_folder_of_links_into_one_folder_of_blobs_is_the_models_own(tmp_path: Path):
    """As Hugging Face's cache lays a downloaded model out."""
    blobs, shot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    shot.mkdir(parents=True)
    (shot / "w.bin").symlink_to("../../blobs/aa")
    (shot / "m.onnx").symlink_to("../../blobs/bb")
    (blobs / "aa").write_bytes(W.tobytes())
    (tmp_path / "bb").write_bytes(W.tobytes())
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    ends = [info("x", ["N", 3])], [info("y", ["N", 4])]
    (blobs / "bb").write_bytes(model_bytes([node], [external("w.bin")], *ends))
    assert load(shot / "m.onnx").graph.constants["w"].tobytes() == W.tobytes()
    (shot / "w.bin").unlink()
    (shot / "w.bin").symlink_to("../../bb")  # beside the folder of blobs, not in it
    with pytest.raises(ModelError, match="outside the model's own folder"):
        load(shot / "m.onnx")


@pytest.mark.parametrize("location", ["loop.bin", "x" * 300, "y/" * 3000 + "z", "folder", "pipe"])
def test_external_data_that_is_no_file_is_refused(tmp_path: Path, location: str):
    (tmp_path / "loop.bin").symlink_to("loop.bin")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="'w' has its data in"):
        with_tensor(tmp_path, external(location))


@pytest.mark.parametrize(
    ("entries", "cause"),
    [
        ({"offset": "4"}, "at offset 4"),
        ({"offset": "-48"}, "at offset -48"),
        ({"length": "44"}, "the entry says 44"),
        ({"offset": "many"}, "no number"),
        ({"location": "missing.bin"}, "not there"),
    ],
)
def test_external_data_that_does_not_fit(tmp_path: Path, entries: dict[str, str], cause: str):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    with pytest.raises(ModelError, match=cause):
        with_tensor(tmp_path, external(**{"location": "w.bin", **entries}))


@pytest.mark.parametrize(
    ("content", "good"),
    [
        (b"\xff" * 9 + b"\x01", True),
        (b"\xff" * 10 + b"\x00", False),
        (b"\x80" * 3 + b"\x01", True),
        (b"\x80" * 10, False),
    ],
)
@pytest.mark.parametrize("piece", [1 << 20, 3, 1])
def test_numbers_of_variable_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, good: bool, piece: int
):
    """As protobuf reads them; the test asks it."""
    monkeypatch.setattr(checking, "_PIECE", piece)
    head = onnx.TensorProto(name="w", dims=[4], data_type=TensorProto.INT32).SerializeToString()
    item = head + field(5, b"\x05\x85\x01" + content + b"\x07")
    if good:
        assert onnx.TensorProto.FromString(item).int32_data[:2] == [5, 133]
        weight = tensor("w", W)
        node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
        other = item.replace(b"w", b"v", 1)
        ends = [info("x", ["N", 3])], [info("y", ["N", 4])]
        assert open_bytes(tmp_path, model_bytes([node], [weight, other], *ends))
        return
    with pytest.raises(DecodeError):
        onnx.TensorProto.FromString(item)
    with pytest.raises(ModelError, match="longer than 64 bits"):
        with_tensor(tmp_path, item)


def test_a_number_of_more_than_64_bits_is_refused(tmp_path: Path):
    """Some readers cut it, some do not read the file."""
    head = onnx.TensorProto(name="w", dims=[1], data_type=TensorProto.INT32).SerializeToString()
    with pytest.raises(ModelError, match="longer than 64 bits"):
        with_tensor(tmp_path, head + field(5, b"\xff" * 9 + b"\x02"))


def test_a_number_may_not_go_on_in_the_next_list(tmp_path: Path):
    head = onnx.TensorProto(name="w", dims=[2], data_type=TensorProto.INT32).SerializeToString()
    with pytest.raises(ModelError, match="cut or longer"):
        with_tensor(tmp_path, head + field(5, b"\x01\x85") + field(5, b"\x01"))


def test_data_inside_and_outside_is_refused(tmp_path: Path):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    with pytest.raises(ModelError, match="both inside and outside"):
        with_tensor(tmp_path, external("w.bin") + field(9, W.tobytes()))


def test_a_constants_tensor_is_checked_too(tmp_path: Path):
    bad = onnx.TensorProto(name="c", dims=[5], data_type=1, raw_data=b"1234")
    nodes = [
        helper.make_node("Constant", [], ["c"], "const", value=bad),
        helper.make_node("Add", ["x", "c"], ["y"], "add"),
    ]
    data = model_bytes(nodes, [], [info("x", ["N", 5])], [info("y", ["N", 5])])
    with pytest.raises(ModelError, match=r"attribute 'value' of node 'const'.*20 bytes.*holds 4"):
        open_bytes(tmp_path, data)


def test_custom_operators_inside_branches_are_found(tmp_path: Path):
    body = helper.make_graph(
        [helper.make_node("Evil", ["x"], ["b"], "evil", domain="com.evil")],
        "b",
        [],
        [info("b", [])],
    )
    node = helper.make_node("If", ["c"], ["y"], "if", then_branch=body, else_branch=body)
    data = model_bytes(
        [node], [], [info("x", [1]), info("c", [], TensorProto.BOOL)], [info("y", [1])]
    )
    with pytest.raises(ModelError, match=r"'evil'.*custom domain 'com\.evil'"):
        open_bytes(tmp_path, data)


def test_compiled_blobs_are_refused(tmp_path: Path):
    node = helper.make_node("EPContext", ["x"], ["y"], "blob", domain="com.microsoft")
    data = model_bytes([node], [], [info("x", [1])], [info("y", [1])], domains=["com.microsoft"])
    with pytest.raises(ModelError, match="compiled blob"):
        open_bytes(tmp_path, data)


def test_deeply_nested_branches_are_refused(tmp_path: Path):
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [info("y", [])])
    for _ in range(18):
        node = helper.make_node("If", ["c"], ["y"], then_branch=graph)
        graph = helper.make_graph([node], "g", [], [info("y", [])])
    data = model_bytes(graph.node, [], [info("c", [], TensorProto.BOOL)], [info("y", [])])
    with pytest.raises(ModelError, match=r"nested more than 16 deep|not an ONNX model"):
        open_bytes(tmp_path, data)


def test_too_many_nodes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lancet_onnx.model.precheck.MAX_NODES", 3)
    nodes = [helper.make_node("Relu", ["x"], [f"y{i}"]) for i in range(4)]
    with pytest.raises(ModelError, match="4 nodes, more than the 3"):
        open_bytes(tmp_path, model_bytes(nodes, [], [info("x", [1])], [info("y0", [1])]))
    assert MAX_NODES > 10_000


def test_a_model_without_outputs_is_no_classifier(tmp_path: Path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    data = model_bytes([node], [tensor("w", W)], [info("x", ["N", 3])], [])
    with pytest.raises(ModelError, match="output"):
        Classifier(open_bytes(tmp_path, data).graph)


@pytest.mark.parametrize("seed", range(8))
def test_mutated_models_are_refused_or_understood(tmp_path: Path, fixtures, seed: int):
    """No damage to a file may end in anything but a refusal of ours."""
    rng = np.random.default_rng(seed)
    whole = fixtures.refused("where_on_input").read_bytes() if seed % 2 else dense(W, W[0])
    path = tmp_path / "m.onnx"
    for _ in range(150):
        data = bytearray(whole)
        # Most bytes of a model are weights, which may be anything; structure is at both ends.
        places = rng.integers(0, len(data), size=rng.integers(1, 4))
        if seed % 4 == 1:
            places = np.where(places % 2, places % 200, len(data) - 1 - places % 700)
        for place in places:
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            load(path)
        except (ModelError, UnsupportedError):
            continue
