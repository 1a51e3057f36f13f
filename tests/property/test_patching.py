# SPDX-License-Identifier: Apache-2.0
"""Laws of patches over random models in random storage forms, and over damaged bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import pytest
from builders import (
    INTEGER_STORAGE,
    apply,
    field,
    from_bytes,
    info,
    model_bytes,
    open_bytes,
    patch_of,
    revert,
    seal,
    sparse_tensor,
    stored_somehow,
    tensor,
    to_bytes,
    with_elements,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lancet_onnx.errors import ModelError, PatchError, UnsupportedError
from lancet_onnx.model import load
from lancet_onnx.model.skim import skim
from lancet_onnx.model.write import METADATA_KEY
from lancet_onnx.patch import Patch, TensorDelta
from lancet_onnx.types import Digest, ParamName

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=300, deadline=None)

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
bits = st.integers(0, 2**32 - 1)


DTYPES = (
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    np.int8,
    np.uint8,
    np.int16,
    np.uint16,
    np.int32,
)
PLACES = ("initializer", "constant", "branch", "sparse")


@dataclass
class Constant:
    """One constant of a model: its values, where they are and in which form.

    `stored` are the flat positions that the file holds (all of them unless it is sparse).
    """

    name: str
    array: np.ndarray
    storage: str
    place: str
    stored: tuple[int, ...]

    @property
    def bits(self) -> np.ndarray:
        return self.array.reshape(-1).view(f"u{self.array.dtype.itemsize}")


@dataclass
class Stored:
    """A model file, what it holds, and its metadata."""

    constants: dict[str, Constant]
    metadata: dict[str, str]

    @property
    def data(self) -> bytes:
        """The file, put together piece by piece; the same constants give the same bytes."""
        at = {p: [c for c in self.constants.values() if c.place == p] for p in PLACES}
        items = {place: [tensor(c.name, c.array, c.storage) for c in at[place]] for place in PLACES}
        nodes = []
        for c in at["constant"]:
            inner = TensorProto.FromString(tensor("inner", c.array, c.storage))
            nodes.append(helper.make_node("Constant", [], [c.name], value=inner))
        if at["branch"]:
            branch = helper.make_graph([], "b", [], [])
            branch.initializer.extend(TensorProto.FromString(item) for item in items["branch"])
            nodes.append(
                helper.make_node("If", ["0"], ["1"], then_branch=branch, else_branch=EMPTY)
            )
        sparse = [sparse_tensor(c.name, c.array, c.stored, c.storage) for c in at["sparse"]]
        return model_bytes(
            nodes,
            items["initializer"],
            [info("0", [], TensorProto.BOOL)],
            [info("1", [1])],
            metadata=self.metadata,
            sparse=sparse,
        )

    def edited(self, deltas: Sequence[TensorDelta]) -> "Stored":
        """What the file should be after `deltas`."""
        constants = dict(self.constants)
        for delta in deltas:
            old = constants[delta.param]
            array = np.array(old.array)
            index, _, new = delta.elements
            array.reshape(-1).view(new.dtype)[index] = new
            constants[delta.param] = replace(old, array=array)
        return replace(self, constants=constants)


EMPTY = helper.make_graph([], "e", [], [])


@st.composite
def constant(draw: st.DrawFn, name: str) -> Constant:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    place = draw(st.sampled_from(PLACES))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=place == "sparse", max_size=3)))
    size = int(np.prod(shape))
    values = np.array(draw(st.lists(bits, min_size=size, max_size=size)), np.uint64)
    if dtype.itemsize == 8:
        values = values << np.uint64(31) | values
    array = values.astype(f"<u{dtype.itemsize}").view(dtype).reshape(shape)
    stored = tuple(range(size))
    if place == "sparse":
        stored = tuple(sorted(draw(st.sets(st.sampled_from(stored), min_size=1))))
        array.reshape(-1)[[i for i in range(size) if i not in stored]] = 0
    storage = draw(st.sampled_from(INTEGER_STORAGE))
    return Constant(name, array, storage, place, stored)


@st.composite
def models(draw: st.DrawFn) -> Stored:
    names = draw(st.lists(text, min_size=1, max_size=4, unique=True))
    # "0" and "1" are the names of the model's input and output.
    constants = {f"c{name}": draw(constant(f"c{name}")) for name in names}
    return Stored(constants, draw(st.dictionaries(text, text, max_size=2)))


@st.composite
def patched(draw: st.DrawFn) -> tuple[Stored, tuple[TensorDelta, ...]]:
    stored = draw(models())
    deltas = []
    for name, held in stored.constants.items():
        places = sorted(draw(st.sets(st.sampled_from(held.stored), max_size=5)))
        if not places and draw(st.booleans()):
            continue
        old = held.bits[places]
        highest = min(2 ** (8 * old.dtype.itemsize), 2**32) - 1
        new = old ^ np.array([draw(st.integers(1, highest)) for _ in places], old.dtype)
        index = np.array(places, np.int64)
        array = held.array
        deltas.append(
            TensorDelta.of(ParamName(name), array.dtype.name, array.shape, index, old, new)
        )
    return stored, tuple(deltas)


@QUICK
@given(patched(), st.one_of(st.just(""), text))
def test_reverting_a_patch_gives_the_file_byte_for_byte(case, metadata: str):
    stored, deltas = case
    original = stored.data
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), original)
        patch, files = seal(model, patch_of(model, *deltas, metadata=metadata))
        data = files.onnx
        after = open_bytes(Path(folder), data, "after.onnx")
        assert revert(after, patch).onnx == original
        # The patch also survives its file form.
        assert revert(after, from_bytes(to_bytes(patch), "f")).onnx == original
        for delta in deltas:
            index, _, new = delta.elements
            found = after.graph.constants[delta.param].reshape(-1)[index]
            assert found.tobytes() == new.tobytes()


@QUICK
@given(patched())
def test_the_result_is_the_file_with_the_new_values_and_nothing_else(case):
    stored, deltas = case
    original = stored.data
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), original)
        data = apply(model, patch_of(model, *deltas)).onnx
    assert data == stored.edited(deltas).data
    assert (data != original) == any(d.count for d in deltas)


@QUICK
@given(patched())
def test_what_keeps_its_width_keeps_its_place(case):
    stored, deltas = case
    original = stored.data
    wide = [stored.constants[d.param] for d in deltas]
    fixed = [
        delta
        for delta, held in zip(deltas, wide, strict=True)
        if held.storage == "raw" or held.array.dtype in (np.float32, np.float64)
    ]
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), original)
        data = apply(model, patch_of(model, *fixed)).onnx
    assert len(data) == len(original)
    changed = sum(a != b for a, b in zip(original, data, strict=True))
    elements = [d.elements for d in fixed]
    flipped = (np.ascontiguousarray(e.old ^ e.new).view(np.uint8) for e in elements)
    assert changed == sum(int(np.count_nonzero(part)) for part in flipped)


@QUICK
@given(patched(), st.data())
def test_what_a_sparse_tensor_leaves_out_is_refused(case, data: st.DataObject):
    stored, deltas = case
    sparse = [c for c in stored.constants.values() if len(c.stored) < c.array.size]
    if not sparse:
        return
    held = data.draw(st.sampled_from(sparse))
    absent = sorted(set(range(held.array.size)) - set(held.stored))
    index = np.array([data.draw(st.sampled_from(absent))], np.int64)
    bad = TensorDelta.of(
        ParamName(held.name),
        held.array.dtype.name,
        held.array.shape,
        index,
        held.bits[index],
        held.bits[index] ^ 1,
    )
    others = [d for d in deltas if d.param != held.name]
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), stored.data)
        with pytest.raises(PatchError, match="does not store its element"):
            apply(model, patch_of(model, *others, bad))


@QUICK
@given(models())
def test_a_patch_of_nothing_is_the_same_file(stored: Stored):
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), stored.data)
        assert apply(model, patch_of(model)).onnx == model.contents.source


@QUICK
@given(patched(), st.data())
def test_any_wrong_old_bit_is_refused(case, data: st.DataObject):
    stored, deltas = case
    touched = [i for i, d in enumerate(deltas) if d.count]
    if not touched:
        return
    which = data.draw(st.sampled_from(touched))
    delta = deltas[which]
    old = delta.elements.old.copy()
    old[data.draw(st.integers(0, len(old) - 1))] ^= old.dtype.type(
        1 << data.draw(st.integers(0, 8 * old.dtype.itemsize - 1))
    )
    wrong = [*deltas[:which], with_elements(delta, old=old), *deltas[which + 1 :]]
    with TemporaryDirectory() as folder:
        model = open_bytes(Path(folder), stored.data)
        with pytest.raises(PatchError, match="is not what the patch expects"):
            apply(model, patch_of(model, *wrong))


@QUICK
@given(patched(), text, st.integers(), st.dictionaries(text, st.floats(allow_nan=False)))
def test_the_file_form_round_trips(case, method: str, seed: int, metrics: dict[str, float]):
    _, deltas = case
    noted = ((METADATA_KEY, method),)
    patch = Patch(Digest.of(b"a"), Digest.of(b"b"), None, deltas, method, seed, metrics, noted)
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
    return to_bytes(Patch(digest, digest, digest, (delta,), "m", 1, {"x": 1.0}, (("k", "n"),)))


@MANY
@given(st.one_of(st.binary(max_size=200), damaged(whole_patch())))
def test_damaged_patches_are_read_or_refused(data: bytes):
    try:
        patch = from_bytes(data, "f")
    except PatchError:
        return
    assert all(d.elements.at.max(initial=-1) < np.prod(d.shape, dtype=object) for d in patch.deltas)


WHOLE = stored_somehow(np.random.default_rng(1))


@MANY
@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda b: field(7, b)),
              damaged(WHOLE))
)  # fmt: skip
def test_spans_of_damaged_models_are_read_or_refused(data: bytes):
    try:
        found = skim(data)
    except ModelError:
        return
    spans = [found.span(path) for path in [*found.tensors, *found.attributes]]
    for span in filter(None, spans):
        assert all(0 <= run.start <= run.end <= len(data) for run in span.runs)


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
        assert model.contents.source == data


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
            skim(WHOLE[:length])
        except ModelError:
            continue
