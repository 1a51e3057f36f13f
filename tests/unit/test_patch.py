# SPDX-License-Identifier: Apache-2.0
"""`Patch`: inversion, identity, and its file form."""

import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from builders import from_bytes, to_bytes, with_elements
from safetensors.numpy import save as safetensors_save

from lancet_onnx.api.patching import save_patch, show_patch
from lancet_onnx.errors import PatchError
from lancet_onnx.patch import Patch, TensorDelta, bit_type
from lancet_onnx.types import Digest, ParamName

BEFORE = np.array([[1.0, 2.0, np.nan], [0.0, -0.0, 6.0]], np.float32)


def change(*changes: tuple[int, float], name: str = "w") -> TensorDelta:
    after = BEFORE.copy()
    for position, value in changes:
        after.reshape(-1)[position] = value
    return TensorDelta.between(ParamName(name), BEFORE, after)


def patch(*deltas: TensorDelta, **changes: object) -> Patch:
    base = Patch(
        Digest.of(b"base"),
        Digest.of(b"w"),
        Digest.of(b"r"),
        deltas,
        "m(a=1)",
        3,
        {"x": 0.25},
        (("key", "note"),),
        "tests 1",
    )
    return replace(base, **changes)


def same(a: Patch, b: Patch) -> bool:
    return to_bytes(a) == to_bytes(b)


def test_between_compares_bits_not_values():
    assert change().elements.at.tolist() == []
    # NaN is equal to itself here, 0.0 and -0.0 are not.
    assert change((2, np.nan), (3, -0.0), (5, 7.0)).elements.at.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.float16, 1.5),
        (np.float32, 1.5),
        (np.float64, 1.5),
        (ml_dtypes.bfloat16, 1.5),
        (np.int8, -100),
        (np.uint8, 200),
        (np.int16, -30_000),
        (np.uint16, 60_000),
        (np.int32, -2_000_000_000),
    ],
)
def test_deltas_hold_the_bits_of_their_type(dtype: type, value: float):
    before, after = np.zeros(3, dtype), np.array([0, value, 0], dtype)
    found = TensorDelta.between(ParamName("w"), before, after)
    assert found.dtype == np.dtype(dtype).name
    new = found.elements.new
    assert new.view(dtype)[0] == value
    assert new.dtype.kind == "u"
    assert new.dtype.itemsize == np.dtype(dtype).itemsize
    again = from_bytes(to_bytes(patch(found)), "f").deltas[0]
    assert (again.dtype, again.elements.new.dtype) == (found.dtype, new.dtype)
    assert again.elements.new.view(dtype)[0] == value


def test_a_scalar_has_one_position():
    found = TensorDelta.between(
        ParamName("s"), np.float32(1).reshape(()), np.float32(2).reshape(())
    )
    assert (found.elements.at.tolist(), found.shape) == ([0], ())


@pytest.mark.parametrize("dtype", ["int64", "uint32", "bool", "float8_e4m3fn", "object"])
def test_other_types_are_refused(dtype: str):
    with pytest.raises(PatchError, match=f"found {dtype}"):
        bit_type(dtype)


def test_size_counts_elements():
    assert patch(change((0, 9.0), (5, 8.0)), change((1, 7.0), name="v")).size == 3
    assert patch().size == 0


def test_invert_twice_is_nothing_and_once_swaps():
    p = patch(change((0, 9.0), (5, 8.0)))
    assert same(p.invert().invert(), p)
    assert not same(p.invert(), p)
    assert p.invert().deltas[0].elements.old.tolist() == p.deltas[0].elements.new.tolist()
    assert p.invert().deltas[0].elements.new.tolist() == p.deltas[0].elements.old.tolist()
    assert (p.invert().base, p.invert().result) == (p.base, p.result)


def test_identity_names_the_change_and_nothing_else():
    one, two = change((0, 9.0)), change((1, 9.0), name="v")
    p = patch(one, two)
    unchanged = [
        patch(two, one),
        replace(p, method="other"),
        replace(p, seed=99),
        replace(p, metrics={}),
        replace(p, metadata=()),
        replace(p, result=None),
    ]
    assert {q.identity for q in unchanged} == {p.identity}
    others = [
        p.invert(),
        patch(one),
        patch(change((0, 9.5)), two),
        patch(change((1, 9.0)), two),
        patch(with_elements(one, param=ParamName("u")), two),
        patch(with_elements(one, shape=(3, 2)), two),
        replace(p, base=Digest.of(b"x")),
    ]
    assert len({q.identity for q in [p, *others]}) == len(others) + 1


def test_the_file_form_says_everything():
    p = patch(change((0, 9.0), (5, np.inf)), change((4, 1.0), name="ünï/co:de"))
    q = from_bytes(to_bytes(p), "file")
    assert same(p, q)
    assert (q.base, q.base_weights, q.result) == (p.base, p.base_weights, p.result)
    assert (q.method, q.seed, q.metrics) == ("m(a=1)", 3, {"x": 0.25})
    assert (q.metadata, q.tool) == ((("key", "note"),), "tests 1")
    for a, b in zip(p.deltas, q.deltas, strict=True):
        assert (a.param, a.dtype, a.shape) == (b.param, b.dtype, b.shape)
        for x, y in zip(a.elements, b.elements, strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_patch_without_a_result_stays_so():
    assert from_bytes(to_bytes(patch(change((0, 2.0)), result=None)), "f").result is None


def test_the_file_form_is_always_the_same_and_aligned():
    forms = {
        to_bytes(patch(change((0, 9.0)), metadata=(("k", "n" * n),)))
        for n in range(9)
        for _ in "ab"
    }
    assert len(forms) == 9
    for data in forms:
        # safetensors asks for tensor data at a multiple of 8.
        assert int.from_bytes(data[:8], "little") % 8 == 0


GOOD_HEADER = {
    "lancet.patch.version": "1",
    "targets": json.dumps([{"initializer": "w", "dtype": "float32", "shape": [2, 3]}]),
    "base.sha256": "0" * 64,
    "base.weights_sha256": "0" * 64,
    "result.sha256": "",
    "method": "m",
    "seed": "1",
    "metrics": "{}",
    "metadata": "[]",
    "tool": "t",
}
GOOD_TENSORS = {
    "0/index": np.array([1, 4], np.int64),
    "0/old": np.array([1, 2], np.uint32),
    "0/new": np.array([3, 4], np.uint32),
}


def target(**changes: object) -> str:
    return json.dumps([{"initializer": "w", "dtype": "float32", "shape": [2, 3], **changes}])


def test_the_hand_made_file_is_good():
    assert from_bytes(safetensors_save(GOOD_TENSORS, GOOD_HEADER), "f").size == 2


@pytest.mark.parametrize(
    "header",
    [
        {"lancet.patch.version": "2"},
        {"lancet.patch.version": ""},
        {"targets": "not json"},
        {"targets": "3"},
        {"targets": "null"},
        {"targets": "[3]"},
        {"targets": "[{}]"},
        {"targets": "[" * 100_000},
        {"targets": target(dtype="int64")},
        {"targets": target(dtype=["float32"])},
        {"targets": target(dtype="float64")},
        {"targets": target(dtype="int16")},
        {"targets": target(shape=3)},
        {"targets": target(shape=["a"])},
        {"targets": target(shape=[2, 2])},
        {"targets": target(shape=[1 << 70, 0])},
        {"targets": target(shape=[1 << 70])},
        {"targets": target(shape=[1] * 63 + [2, 3])},
        {"targets": target(shape=[float("inf")])},
        {"targets": target(shape=[float("nan")])},
        {"seed": "one"},
        {"seed": "9" * 5000},
        {"metrics": "[]"},
        {"metrics": '{"a": "b"}'},
        {"metrics": '{"a": 1' + "0" * 400 + "}"},
        {"metrics": '{"a": null}'},
    ],
    ids=lambda h: next(iter(h)) + "=" + next(iter(h.values()))[:40],
)
def test_headers_that_contradict_themselves(header: dict[str, str]):
    with pytest.raises(PatchError):
        from_bytes(safetensors_save(GOOD_TENSORS, {**GOOD_HEADER, **header}), "f")


@pytest.mark.parametrize("key", GOOD_HEADER)
def test_every_header_entry_is_needed(key: str):
    header = {k: v for k, v in GOOD_HEADER.items() if k != key}
    with pytest.raises(PatchError):
        from_bytes(safetensors_save(GOOD_TENSORS, header), "f")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("0/index", np.array([1, 4], np.int32)),
        ("0/index", np.array([1.0, 4.0])),
        ("0/index", np.array([4, 1], np.int64)),
        ("0/index", np.array([1, 1], np.int64)),
        ("0/index", np.array([-1, 4], np.int64)),
        ("0/index", np.array([1, 6], np.int64)),
        ("0/index", np.array([1], np.int64)),
        ("0/old", np.array([1, 2], np.float32)),
        ("0/old", np.array([1, 2], np.uint64)),
        ("0/new", np.array([1, 2, 3], np.uint32)),
        ("0/new", np.array([1, 2], np.int32)),
        ("0/new", np.array([1, 2], np.uint8)),
    ],
)
def test_tensors_that_contradict_the_header(name: str, array: np.ndarray):
    with pytest.raises(PatchError):
        from_bytes(safetensors_save({**GOOD_TENSORS, name: array}, GOOD_HEADER), "f")


@pytest.mark.parametrize("name", GOOD_TENSORS)
def test_every_tensor_is_needed(name: str):
    tensors = {k: v for k, v in GOOD_TENSORS.items() if k != name}
    with pytest.raises(PatchError, match="f: "):
        from_bytes(safetensors_save(tensors, GOOD_HEADER), "f")


def test_two_targets_of_one_name_are_refused():
    with pytest.raises(PatchError, match="two targets name one initializer"):
        from_bytes(to_bytes(patch(change((0, 2.0)), change((1, 3.0)))), "f")


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\0" * 8, b"\xff" * 16, safetensors_save({}), safetensors_save(GOOD_TENSORS)],
)
def test_other_files_are_refused(data: bytes):
    with pytest.raises(PatchError, match=r"some\.file"):
        from_bytes(data, "some.file")


def test_a_header_with_a_name_twice_is_refused():
    """Two readers could see two patches in one file."""
    good = safetensors_save(GOOD_TENSORS, GOOD_HEADER)
    length = int.from_bytes(good[:8], "little")
    header = good[8 : 8 + length].rstrip()
    place = json.dumps(json.loads(header)["0/old"])
    header = header[:-1] + f', "0/old": {place}}}'.encode()
    header += b" " * (-len(header) % 8)
    with pytest.raises(PatchError, match="f: "):
        from_bytes(len(header).to_bytes(8, "little") + header + good[8 + length :], "f")


@pytest.mark.parametrize(
    ("dtype", "bits"), [("bfloat16", 0x7F81), ("float16", 0x7C01), ("float32", 0x7F800001)]
)
def test_signalling_nans_are_shown_without_a_warning(tmp_path: Path, dtype: str, bits: int):
    """Found by Hypothesis: numpy warns when such a number becomes another type."""
    column = np.array([bits], bit_type(dtype))
    delta = TensorDelta.of(
        ParamName("w"), dtype, (1,), np.zeros(1, np.int64), column, np.zeros_like(column)
    )
    path = tmp_path / "p"
    save_patch(Patch(Digest("0" * 64), None, None, (delta,), "m", 0, {}), path)
    (target,) = show_patch(path).body["targets"]
    assert target["weights_changed"] == 1
    assert target["largest_change"] == 0.0
