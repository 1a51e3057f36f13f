# SPDX-License-Identifier: Apache-2.0
"""Patches change exactly the elements they name; a file is written completely or not at all."""

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from builders import (
    INTEGER_STORAGE,
    apply,
    delta,
    dense,
    field,
    info,
    metadata_entry,
    model_bytes,
    open_bytes,
    patch_of,
    revert,
    seal,
    sparse_model,
    stored_somehow,
    tensor,
    with_elements,
)
from onnx import helper, numpy_helper

from lancet_onnx.errors import PatchError, UnsupportedError
from lancet_onnx.model import OnnxModel, load
from lancet_onnx.model.placing import writable
from lancet_onnx.model.write import METADATA_KEY, applied, next_key, notes, read_note
from lancet_onnx.patch import TensorDelta
from lancet_onnx.types import Digest, ParamName

FORMS = {
    "raw": 5,
    "packed": 2,
    "unpacked": 1,
    "const_raw": 3,
    "const_packed": 0,
    "value_float": 0,
    "value_floats": 2,
    "double": 1,
    "double_packed": 3,
    "double_unpacked": 2,
}
"""Every stored tensor of `stored_somehow` and the element that is edited."""


@pytest.fixture
def model(tmp_path: Path, rng: np.random.Generator) -> OnnxModel:
    return open_bytes(tmp_path, stored_somehow(rng))


def tensors_by_onnx(data: bytes) -> dict[str, np.ndarray]:
    proto = onnx.ModelProto.FromString(data)
    found = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            is_tensor = isinstance(value, onnx.TensorProto)
            found[node.output[0]] = (
                numpy_helper.to_array(value) if is_tensor else np.array(value, np.float32)
            )
    return found


def without_values(data: bytes) -> onnx.ModelProto:
    """The message with every tensor value and metadata entry removed: what must not change."""
    proto = onnx.ModelProto.FromString(data)
    held = list(proto.graph.initializer)
    for node in proto.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            held.append(attribute.t)
            attribute.ClearField("f")
            attribute.ClearField("floats")
    for item in held:
        for name in ("raw_data", "float_data", "double_data"):
            item.ClearField(name)
    proto.ClearField("metadata_props")
    return proto


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize("name", FORMS)
def test_an_edit_changes_exactly_the_named_element(model: OnnxModel, name: str):
    position = FORMS[name]
    patched = apply(model, patch_of(model, delta(model, name, {position: 1234.5}))).onnx

    expected = tensors_by_onnx(model.contents.source)
    expected[name] = np.array(expected[name])
    expected[name].reshape(-1)[position] = 1234.5
    found = tensors_by_onnx(patched)
    assert found.keys() == expected.keys() == FORMS.keys()
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)
    assert without_values(patched) == without_values(model.contents.source)


@pytest.mark.parametrize("name", FORMS)
def test_an_edit_touches_only_the_bytes_of_the_element(model: OnnxModel, name: str):
    array = model.graph.constants[name]
    old = array.reshape(-1)[FORMS[name]]
    patched = apply(model, patch_of(model, delta(model, name, {FORMS[name]: 1234.5}))).onnx
    before, after = (np.frombuffer(d, np.uint8) for d in (model.contents.source, patched))
    assert len(before) == len(after)
    changed = np.flatnonzero(before != after)
    width = array.dtype.itemsize
    assert 0 < changed[-1] - changed[0] < width
    # The whole element lies around the changed bytes: its old bits before, its new bits after.
    starts = [
        s
        for s in range(changed[-1] - width + 1, changed[0] + 1)
        if model.contents.source[s : s + width] == old.tobytes()
        and patched[s : s + width] == np.array(1234.5, array.dtype).tobytes()
    ]
    assert len(starts) == 1


def test_all_forms_can_be_edited_at_once_and_onnxruntime_sees_it(
    model: OnnxModel, rng: np.random.Generator
):
    patched = apply(
        model, patch_of(model, *(delta(model, n, {p: 2.0}) for n, p in FORMS.items()))
    ).onnx
    t = tensors_by_onnx(patched)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    expected = (x @ t["raw"] + t["packed"]) * t["unpacked"] + t["value_floats"]
    expected = expected + t["const_raw"] * t["value_float"] + t["const_packed"]
    expected = expected + t["double"] + t["double_packed"] + t["double_unpacked"]
    np.testing.assert_allclose(run(patched, x), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(run(model.contents.source, x) - expected).max() > 0.1


def test_metadata_is_one_entry_at_the_end(model: OnnxModel, rng: np.random.Generator):
    edit = delta(model, "raw", {1: 7.0})
    note = 'a note with ünïcode and {"json": 1} ' + "long " * 100
    plain = apply(model, patch_of(model, edit)).onnx
    noted = apply(model, patch_of(model, edit, metadata=note)).onnx
    assert noted == plain + metadata_entry(note)
    proto = onnx.ModelProto.FromString(noted)
    assert [(p.key, p.value) for p in proto.metadata_props] == [
        ("note", "kept"),
        (METADATA_KEY, note),
    ]
    onnx.checker.check_model(proto)
    x = rng.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(noted, x), run(plain, x))


def test_a_patched_file_is_read_back_and_reverted(model: OnnxModel, tmp_path: Path):
    patch = patch_of(model, *(delta(model, n, {p: -3.0}) for n, p in FORMS.items()), metadata="m")
    sealed, files = seal(model, patch)
    data = files.onnx
    assert sealed.result == Digest.of(data)
    other = open_bytes(tmp_path, data, "patched.onnx")
    assert other.graph.metadata == {"note": "kept", METADATA_KEY: "m"}
    assert revert(other, sealed).onnx == model.contents.source


def test_revert_refuses_another_file(model: OnnxModel):
    sealed, _ = seal(model, patch_of(model, delta(model, "raw", {0: 1.0})))
    with pytest.raises(PatchError, match="not what the patch expects"):
        revert(model, sealed)


def test_revert_refuses_a_patch_with_another_base(model: OnnxModel, tmp_path: Path):
    sealed, files = seal(model, patch_of(model, delta(model, "raw", {0: 1.0})))
    other = open_bytes(tmp_path, files.onnx, "patched.onnx")
    with pytest.raises(PatchError, match="does not give the file"):
        revert(other, replace(sealed, base=Digest.of(b"something else")))


def test_revert_refuses_an_entry_that_is_not_at_the_end(model: OnnxModel, tmp_path: Path):
    sealed, files = seal(model, patch_of(model, delta(model, "raw", {0: 1.0}), metadata="m"))
    data = files.onnx + metadata_entry("entry", "later")
    other = open_bytes(tmp_path, data, "patched.onnx")
    with pytest.raises(PatchError, match="not at the end"):
        revert(other, replace(sealed, result=Digest.of(data)))


def test_another_base_is_refused(model: OnnxModel):
    patch = patch_of(model, delta(model, "raw", {0: 1.0}))
    wrong = replace(patch, base=Digest.of(b"x"), base_weights=Digest.of(b"y"))
    with pytest.raises(PatchError, match="made for another model"):
        apply(model, wrong)


def test_the_same_weights_in_another_file_are_accepted(tmp_path: Path, rng: np.random.Generator):
    weight, bias = (rng.normal(size=s).astype(np.float32) for s in ((3, 4), (4,)))
    raw = open_bytes(tmp_path, dense(weight, bias, storage="raw"), "raw.onnx")
    packed = open_bytes(tmp_path, dense(weight, bias, storage="unpacked"), "packed.onnx")
    assert raw.digest != packed.digest
    assert raw.contents.weights_digest() == packed.contents.weights_digest()
    sealed, _ = seal(raw, patch_of(raw, delta(raw, "w", {7: 9.0})))
    found = tensors_by_onnx(apply(packed, sealed).onnx)
    assert found["w"].reshape(-1)[7] == 9.0
    assert (found["w"] != weight).sum() == 1


def test_weights_digest_sees_values_shapes_names_and_types(tmp_path: Path):
    ones = np.ones((2, 2), np.float32)

    def digest(*tensors: bytes) -> Digest:
        node = helper.make_node("Identity", ["x"], ["y"], "n")
        spec = helper.make_tensor_value_info("x", 1, ["N", 2])
        out = helper.make_tensor_value_info("y", 1, ["N", 2])
        return open_bytes(
            tmp_path, model_bytes([node], tensors, [spec], [out])
        ).contents.weights_digest()

    variants = [
        digest(tensor("w", ones)),
        digest(tensor("v", ones)),
        digest(tensor("w", ones.reshape(4))),
        digest(tensor("w", 2 * ones)),
        digest(tensor("w", ones.astype(np.float64))),
        digest(tensor("w", ones), tensor("v", ones)),
    ]
    assert len(set(variants)) == len(variants)
    assert digest(tensor("w", ones), tensor("v", ones)) == digest(
        tensor("v", ones), tensor("w", ones)
    )


def test_one_wrong_old_bit_is_refused(model: OnnxModel):
    edit = delta(model, "raw", {0: 1.0, 5: 2.0, 11: 3.0})
    old = edit.elements.old.copy()
    old[1] ^= 1
    with pytest.raises(PatchError, match="element 5 of 'raw'"):
        apply(model, patch_of(model, with_elements(edit, old=old)))


def test_another_result_than_promised_is_refused(model: OnnxModel):
    patch = patch_of(model, delta(model, "raw", {0: 1.0}))
    with pytest.raises(PatchError, match="not the one that the patch promises"):
        apply(model, replace(patch, result=Digest.of(b"other")))


@pytest.mark.parametrize(
    ("index", "values"),
    [([12], [0]), ([-1], [0]), ([3, 2], [0, 0]), ([2, 2], [0, 0]), ([1, 2], [0]), ([1], [0, 0])],
    ids=["past the end", "negative", "unsorted", "duplicate", "fewer values", "more values"],
)
def test_bad_positions_are_refused(model: OnnxModel, index: list[int], values: list[int]):
    bits = np.array(values, "<u4")
    bad = TensorDelta.of(ParamName("raw"), "float32", (3, 4), np.array(index, np.int64), bits, bits)
    with pytest.raises(PatchError, match="not sorted, unique and inside"):
        apply(model, patch_of(model, bad))


@pytest.mark.parametrize(
    "change",
    [{"dtype": "float64"}, {"shape": (4, 3)}, {"shape": (12,)}, {"param": "nowhere"}],
    ids=["dtype", "shape", "flat shape", "name"],
)
def test_another_tensor_than_expected_is_refused(model: OnnxModel, change: dict[str, object]):
    edit = replace(delta(model, "raw", {0: 1.0}), **change)
    with pytest.raises(PatchError, match="the patch wants"):
        apply(model, patch_of(model, edit))


def test_an_unknown_initializer_is_named(model: OnnxModel):
    edit = replace(delta(model, "raw", {0: 1.0}), param=ParamName("nowhere"))
    with pytest.raises(PatchError, match=r"'nowhere'.*no such initializer"):
        apply(model, patch_of(model, edit))


def test_a_refused_patch_leaves_model_and_folder_as_they_were(model: OnnxModel):
    before, files = bytes(model.contents.source), sorted(model.path.parent.iterdir())
    good = delta(model, "packed", {0: 1.0})
    bad = delta(model, "raw", {5: 2.0})
    with pytest.raises(PatchError):
        apply(model, patch_of(model, good, with_elements(bad, old=bad.elements.old ^ 1)))
    assert model.contents.source == before == model.path.read_bytes()
    assert sorted(model.path.parent.iterdir()) == files


@pytest.fixture
def external(tmp_path: Path) -> OnnxModel:
    proto = onnx.ModelProto.FromString(dense(np.ones((3, 4), np.float32), np.ones(4, np.float32)))
    onnx.save(
        proto,
        tmp_path / "external.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=70,
    )
    return load(tmp_path / "external.onnx")


def test_external_data_is_overwritten_in_its_own_file(external: OnnxModel, tmp_path: Path):
    writable(external.contents, [ParamName("b"), ParamName("w")])
    edits = [delta(external, "w", {5: 2.0}), delta(external, "b", {1: 3.0})]
    sealed, files = seal(external, patch_of(external, *edits, metadata="m"))
    before = (external.path.parent / "weights.bin").read_bytes()
    assert set(files.data) == {"weights.bin"}
    after = files.data["weights.bin"]
    changed = [i for i, (x, y) in enumerate(zip(before, after, strict=True)) if x != y]
    offset = external.external[ParamName("w")].offset
    assert changed
    assert {i // 4 for i in changed} == {offset // 4 + 5}
    output = tmp_path / "elsewhere" / "fixed.onnx"
    output.parent.mkdir()
    with applied(external.contents, sealed, output) as (_, stage):
        assert load(stage.model).digest == sealed.result
        stage.commit()
    fixed = load(output)
    assert fixed.digest == sealed.result
    assert fixed.graph.constants["w"].reshape(-1).tolist() == [1, 1, 1, 1, 1, 2, *[1] * 6]
    assert fixed.graph.constants["b"].tolist() == [1, 3, 1, 1]
    back = revert(fixed, sealed)
    assert back.onnx == external.contents.source
    assert back.data == {"weights.bin": before}
    assert back.digest == external.digest
    assert (external.path.parent / "weights.bin").read_bytes() == before


def test_the_digest_covers_external_data(external: OnnxModel):
    path = external.path.parent / "weights.bin"
    patch = patch_of(external, delta(external, "b", {0: 2.0}))
    content = bytearray(path.read_bytes())
    content[external.external[ParamName("w")].offset] ^= 1
    path.write_bytes(content)
    assert load(external.path).digest != external.digest
    with pytest.raises(PatchError, match="made for another model"):
        apply(load(external.path), patch)


CODED = {
    "float16": np.array([1.0, -2.5, 0.5, 0.0], np.float16),
    "bfloat16": np.array([1.0, -2.5, 0.5, 0.0], ml_dtypes.bfloat16),
    "int8": np.array([-128, -1, 0, 127], np.int8),
    "uint8": np.array([0, 127, 128, 255], np.uint8),
    "int16": np.array([-300, -1, 0, 300], np.int16),
    "uint16": np.array([0, 127, 300, 40_000], np.uint16),
    "int32": np.array([-70_000, -1, 0, 70_000], np.int32),
}


def held(tmp_path: Path, *tensors: bytes, name: str = "model.onnx") -> OnnxModel:
    """A model that does nothing with the constants that it holds."""
    return open_bytes(tmp_path, model_bytes([], tensors, [], [info("y", [1])]), name)


@pytest.mark.parametrize("storage", INTEGER_STORAGE)
@pytest.mark.parametrize("dtype", CODED)
@pytest.mark.parametrize("value", [-100.0, 1.0, 100.0])
def test_every_type_is_written_in_every_form(
    tmp_path: Path, dtype: str, storage: str, value: float
):
    array = CODED[dtype]
    if value < 0 and dtype.startswith("u"):
        value = 200.0
    other = tensor("other", np.arange(200, dtype=np.int32), "packed")
    model = held(tmp_path, tensor("w", array, storage), other)
    edits = delta(model, "w", {0: value, 2: value})
    sealed, files = seal(model, patch_of(model, edits, metadata="m"))
    expected = np.array(array)
    expected[[0, 2]] = value
    again = tensor("w", expected, storage)
    assert files.onnx == held(tmp_path, again, other).contents.source + metadata_entry("m")
    found = open_bytes(tmp_path, files.onnx)
    assert found.graph.constants["w"].tobytes() == expected.tobytes()
    assert revert(found, sealed).onnx == model.contents.source


@pytest.mark.parametrize("storage", INTEGER_STORAGE)
def test_one_wrong_old_bit_of_an_integer_is_refused(tmp_path: Path, storage: str):
    model = held(tmp_path, tensor("w", CODED["int8"], storage))
    edit = delta(model, "w", {1: 5})
    with pytest.raises(PatchError, match="element 1 of 'w' is not what the patch expects"):
        apply(model, patch_of(model, with_elements(edit, old=edit.elements.old ^ 4)))


def test_a_number_coded_longer_than_needed_is_refused(tmp_path: Path):
    """Reverting would code it as short as possible and not give the same file."""
    head = onnx.TensorProto.FromString(tensor("w", np.array([1, 2], np.int8)))
    head.ClearField("raw_data")
    model = held(tmp_path, head.SerializeToString() + field(5, b"\x01\x82\x00"))
    assert model.graph.constants["w"].tolist() == [1, 2]
    assert apply(model, patch_of(model, delta(model, "w", {0: 3}))).onnx
    with pytest.raises(UnsupportedError, match="element 1 of 'w' is coded longer than needed"):
        apply(model, patch_of(model, delta(model, "w", {1: 3})))


def test_two_targets_of_one_name_are_refused(model: OnnxModel):
    edits = [delta(model, "raw", {0: 1.0}), delta(model, "raw", {1: 1.0})]
    with pytest.raises(PatchError, match="two targets"):
        apply(model, patch_of(model, *edits))


def test_types_that_patches_do_not_carry_are_not_writable(tmp_path: Path):
    model = held(
        tmp_path,
        tensor("i", np.array([1])),
        tensor("f8", np.array([1], ml_dtypes.float8_e4m3fn)),
        tensor("w", np.array([1], np.float32)),
    )
    writable(model.contents, ["w"])
    for name, found in {"i": "int64", "f8": "float8_e4m3fn"}.items():
        with pytest.raises(UnsupportedError, match=f"'{name}' could not .* found {found}"):
            writable(model.contents, [name])


def test_what_the_file_does_not_hold_is_not_writable(model: OnnxModel):
    stored = {name: at for name, at in model.stored.items() if name != "raw"}
    with pytest.raises(UnsupportedError, match="'raw' lie neither in the file"):
        writable(replace(model.contents, stored=stored), ["raw"])
    elsewhere = {**model.stored, "raw": replace(model.stored["raw"], span=None)}
    with pytest.raises(UnsupportedError, match=r"12 values of 'raw' .* not all stored"):
        writable(replace(model.contents, stored=elsewhere), ["raw"])


def test_a_place_that_two_constants_share_is_not_writable(model: OnnxModel):
    stored = {**model.stored, "packed": model.stored["raw"]}
    shared = replace(model.contents, stored=stored)
    writable(shared, ["unpacked"])
    for name in ("raw", "packed"):
        with pytest.raises(UnsupportedError, match="share the place"):
            writable(shared, [name])


@pytest.mark.parametrize(("offset", "refused"), [(0, True), (8, True), (16, False)])
def test_overlapping_external_data_is_not_writable(tmp_path: Path, offset: int, refused: bool):
    (tmp_path / "w.bin").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    tensors = []
    for name, start in (("a", 0), ("b", offset)):
        item = onnx.TensorProto(name=name, dims=[4], data_type=1)
        item.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", str(start)), ("length", "16")):
            item.external_data.add(key=key, value=value)
        tensors.append(item.SerializeToString())
    model = held(tmp_path, *tensors)
    edit = patch_of(model, delta(model, "a", {3: 9.0}))
    if refused:
        with pytest.raises(UnsupportedError, match="'a' and 'b' share"):
            apply(model, edit)
    else:
        after = np.frombuffer(apply(model, edit).data["w.bin"], np.float32)
        assert after.tolist() == [0, 1, 2, 9, 4, 5, 6, 7]


@pytest.mark.parametrize("coordinates", [False, True], ids=["flat", "COO"])
def test_only_stored_elements_of_a_sparse_tensor_can_be_changed(tmp_path: Path, coordinates: bool):
    model = open_bytes(tmp_path, sparse_model([1, 2, 7], (3, 4), coordinates=coordinates))
    before = model.graph.constants["w"]
    assert np.flatnonzero(before).tolist() == [1, 2, 7]
    edit = delta(model, "w", {2: 5.0, 7: 6.0})
    found = open_bytes(tmp_path, apply(model, patch_of(model, edit)).onnx, "after.onnx")
    assert found.graph.constants["w"].reshape(-1)[[1, 2, 7]].tolist() == [before[0, 1], 5.0, 6.0]
    for position in (0, 3, 11):
        with pytest.raises(PatchError, match=f"does not store its element {position}"):
            apply(model, patch_of(model, delta(model, "w", {2: 5.0, position: 1.0})))


def test_a_further_note_never_takes_a_key_that_is_there():
    assert next_key({}) == METADATA_KEY
    taken = {METADATA_KEY: "a", f"{METADATA_KEY}.3": "c"}
    assert next_key(taken) == f"{METADATA_KEY}.2"
    assert next_key(taken | {f"{METADATA_KEY}.2": "b"}) == f"{METADATA_KEY}.4"
    assert next_key({f"{METADATA_KEY}.2": "b"}) == METADATA_KEY
    assert notes(taken | {f"{METADATA_KEY}.2": "b", "other": "d"}) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ('{"base": "b", "seed": 3}', {"base": "b", "seed": 3}),
        ('{"base": "b"}', {"base": "b"}),
        *(
            (f'{{"base": "b", "seed": {seed}}}', {"base": "b"})
            for seed in ("-1", "true", "1.0", "Infinity", "NaN", "null", '"3"', "[]")
        ),
        *((text, {}) for text in ("", "[1]", "3", "null", "[" * 100_000, "9" * 5000)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_note_of_ours_may_say_anything(note: str, said: dict[str, object]):
    assert read_note(note) == said
