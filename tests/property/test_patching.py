# SPDX-License-Identifier: Apache-2.0
"""Laws of patches over random models in random storage forms, and over damaged bytes."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from builders import (
    DOUBLE_STORAGE,
    FLOAT_STORAGE,
    field,
    info,
    model_bytes,
    open_bytes,
    patch_of,
    stored_somehow,
    tensor,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lancet_onnx.errors import ModelError, PatchError, UnsupportedError
from lancet_onnx.model import load
from lancet_onnx.model.wire import tensor_spans
from lancet_onnx.model.write import apply, revert, seal
from lancet_onnx.patch import Patch, TensorDelta, from_bytes, to_bytes
from lancet_onnx.types import Digest, ParamName

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=300, deadline=None)

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
bits = st.integers(0, 2**32 - 1)


@dataclass
class Stored:
    """A model file with float constants, and the bits of each."""

    data: bytes
    constants: dict[str, np.ndarray]


@st.composite
def models(draw: st.DrawFn) -> Stored:
    names = draw(st.lists(text, min_size=1, max_size=4, unique=True))
    tensors, nodes, constants = [], [], {}
    for name in names:
        shape = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
        size = int(np.prod(shape))
        values = np.array(draw(st.lists(bits, min_size=size, max_size=size)), "<u4")
        if draw(st.booleans()):
            array = values.astype(np.uint64) << 31 | values
            array = array.astype("<u8").view(np.float64).reshape(shape)
            storage = draw(st.sampled_from(DOUBLE_STORAGE))
        else:
            array = values.view(np.float32).reshape(shape)
            storage = draw(st.sampled_from(FLOAT_STORAGE))
        if draw(st.booleans()):
            tensors.append(tensor(name, array, storage))
        else:
            inner = TensorProto.FromString(tensor("inner", array, storage))
            nodes.append(helper.make_node("Constant", [], [name], value=inner))
        constants[name] = array
    metadata = draw(st.dictionaries(text, text, max_size=2))
    return Stored(model_bytes(nodes, tensors, [], [info("y", [1])], metadata=metadata), constants)


@st.composite
def patched(draw: st.DrawFn) -> tuple[Stored, tuple[TensorDelta, ...]]:
    stored = draw(models())
    deltas = []
    for name, array in stored.constants.items():
        places = sorted(draw(st.sets(st.integers(0, array.size - 1), max_size=5)))
        if not places and draw(st.booleans()):
            continue
        unsigned = np.dtype(f"<u{array.dtype.itemsize}")
        old = array.reshape(-1).view(unsigned)[places]
        new = old ^ np.array([draw(st.integers(1, 2**32 - 1)) for _ in places], unsigned)
        deltas.append(
            TensorDelta(
                ParamName(name), array.dtype.name, array.shape, np.array(places, np.int64), old, new
            )
        )
    return stored, tuple(deltas)


@QUICK
@given(patched(), st.one_of(st.just(""), text))
def test_reverting_a_patch_gives_the_file_byte_for_byte(case, metadata: str):
    stored, deltas = case
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), stored.data)
        patch, files = seal(model, patch_of(model, *deltas, metadata=metadata))
        data = files.onnx
        after = open_bytes(Path(folder), data, "after.onnx")
        assert revert(after, patch).onnx == stored.data
        # The patch also survives its file form.
        assert revert(after, from_bytes(to_bytes(patch), "f")).onnx == stored.data
        for delta in deltas:
            found = after.graph.constants[delta.param].reshape(-1)[delta.index]
            assert found.tobytes() == delta.new.tobytes()


@QUICK
@given(patched())
def test_bytes_outside_the_elements_stay(case):
    stored, deltas = case
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), stored.data)
        data = apply(model, patch_of(model, *deltas)).onnx
    assert len(data) == len(stored.data)
    mine = set()
    for delta in deltas:
        width = delta.old.dtype.itemsize
        span = tensor_spans(stored.data)[delta.param]
        for position in delta.index:
            mine.update(span.offset(int(position) * width + i) for i in range(width))
    changed = {i for i, (a, b) in enumerate(zip(stored.data, data, strict=True)) if a != b}
    assert changed <= mine
    assert bool(changed) == any(len(d.index) for d in deltas)


@QUICK
@given(models())
def test_a_patch_of_nothing_is_the_same_file(stored: Stored):
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), stored.data)
        assert apply(model, patch_of(model)).onnx == stored.data


@QUICK
@given(patched(), st.data())
def test_any_wrong_old_bit_is_refused(case, data: st.DataObject):
    stored, deltas = case
    touched = [i for i, d in enumerate(deltas) if len(d.index)]
    if not touched:
        return
    which = data.draw(st.sampled_from(touched))
    delta = deltas[which]
    old = delta.old.copy()
    old[data.draw(st.integers(0, len(old) - 1))] ^= old.dtype.type(
        1 << data.draw(st.integers(0, 8 * old.dtype.itemsize - 1))
    )
    wrong = [*deltas[:which], replace(delta, old=old), *deltas[which + 1 :]]
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), stored.data)
        with pytest.raises(PatchError, match="is not what the patch expects"):
            apply(model, patch_of(model, *wrong))


@QUICK
@given(patched(), text, st.integers(), st.dictionaries(text, st.floats(allow_nan=False)))
def test_the_file_form_round_trips(case, method: str, seed: int, metrics: dict[str, float]):
    _, deltas = case
    patch = Patch(Digest.of(b"a"), Digest.of(b"b"), None, deltas, method, seed, metrics, method)
    again = from_bytes(to_bytes(patch), "f")
    assert to_bytes(again) == to_bytes(patch)
    assert (again.method, again.seed, again.metrics) == (method, seed, metrics)
    assert again.identity == patch.identity == again.invert().invert().identity


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def whole_patch() -> bytes:
    before = np.arange(6, dtype=np.float32).reshape(2, 3)
    delta = TensorDelta.between(ParamName("w"), before, before + 1)
    digest = Digest.of(b"")
    return to_bytes(Patch(digest, digest, digest, (delta,), "m", 1, {"x": 1.0}, "n"))


@MANY
@given(st.one_of(st.binary(max_size=200), damaged(whole_patch())))
def test_damaged_patches_are_read_or_refused(data: bytes):
    try:
        patch = from_bytes(data, "f")
    except PatchError:
        return
    assert all(d.index.max(initial=-1) < np.prod(d.shape, dtype=object) for d in patch.deltas)


WHOLE = stored_somehow(np.random.default_rng(1))


@MANY
@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda b: field(7, b)),
              damaged(WHOLE))
)  # fmt: skip
def test_spans_of_damaged_models_are_read_or_refused(data: bytes):
    try:
        spans = tensor_spans(data)
    except ModelError:
        return
    for span in spans.values():
        assert all(0 <= start <= end <= len(data) for start, end in span.runs)


@MANY
@given(damaged(WHOLE))
def test_damaged_models_are_read_or_refused(data: bytes):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(data)
        try:
            model = load(path)
        except (ModelError, UnsupportedError):
            return
        assert model.data == data


def test_a_model_cut_at_every_byte_is_read_or_refused(tmp_path: Path):
    path = tmp_path / "m.onnx"
    read = []
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        try:
            load(path)
        except (ModelError, UnsupportedError):
            continue
        read.append(length)
    # Only a cut between two fields of the outermost message leaves something to read.
    assert len(read) <= 2
    for length in range(len(WHOLE)):
        try:
            tensor_spans(WHOLE[:length])
        except ModelError:
            continue
