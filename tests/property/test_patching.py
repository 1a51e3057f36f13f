# SPDX-License-Identifier: Apache-2.0
"""Laws of patches over random models in random storage forms, and over damaged bytes."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from builders import (
    apply,
    field,
    from_bytes,
    patch_of,
    revert,
    seal,
    stored_somehow,
    to_bytes,
    with_elements,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_models import Stored, edits, models, patched, text

from lancet_onnx.api import diff_models
from lancet_onnx.errors import ModelError, PatchError, UnsupportedError
from lancet_onnx.model import load
from lancet_onnx.model.contents import survey
from lancet_onnx.model.skim import skim
from lancet_onnx.model.write import METADATA_KEY, applied
from lancet_onnx.patch import Patch, TensorDelta, compose, opened_patch
from lancet_onnx.types import Digest, ParamName

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=300, deadline=None)


@QUICK
@given(patched(), st.one_of(st.just(""), text))
def test_reverting_a_patch_gives_the_files_byte_for_byte(case, metadata: str):
    stored, deltas = case
    with TemporaryDirectory() as folder, TemporaryDirectory() as other:
        model = stored.open(Path(folder))
        patch, files = seal(model, patch_of(model, *deltas, metadata=metadata))
        after = files.open(Path(other))
        assert revert(after, patch).all == stored.files
        # The patch also survives its file form.
        assert revert(after, from_bytes(to_bytes(patch), "f")).all == stored.files
        for delta in deltas:
            index, _, new = delta.elements
            found = after.graph.constants[delta.param].reshape(-1)[index]
            assert found.tobytes() == new.tobytes()


@QUICK
@given(patched())
def test_the_result_is_the_files_with_the_new_values_and_nothing_else(case):
    stored, deltas = case
    with TemporaryDirectory() as folder:
        model = stored.open(Path(folder))
        result = apply(model, patch_of(model, *deltas)).all
    assert result == stored.edited(deltas).files
    assert (result != stored.files) == any(d.count for d in deltas)


@QUICK
@given(patched())
def test_what_keeps_its_width_keeps_its_place(case):
    stored, deltas = case
    wide = [stored.constants[d.param] for d in deltas]
    fixed = [
        delta
        for delta, held in zip(deltas, wide, strict=True)
        if held.storage == "raw" or held.array.dtype in (np.float32, np.float64)
    ]
    with TemporaryDirectory() as folder:
        model = stored.open(Path(folder))
        result = apply(model, patch_of(model, *fixed)).all
    changed = 0
    for name, before in stored.files.items():
        assert len(result[name]) == len(before)
        changed += sum(a != b for a, b in zip(before, result[name], strict=True))
    elements = [d.elements for d in fixed]
    flipped = (np.ascontiguousarray(e.old ^ e.new).view(np.uint8) for e in elements)
    assert changed == sum(int(np.count_nonzero(part)) for part in flipped)


@QUICK
@given(patched(), st.one_of(st.just(""), text))
def test_the_difference_of_a_model_and_its_result_is_the_patch(case, metadata: str):
    stored, deltas = case
    with TemporaryDirectory() as folder, TemporaryDirectory() as other:
        model = stored.open(Path(folder))
        patch, files = seal(model, patch_of(model, *deltas, metadata=metadata))
        after = files.open(Path(other))
        report = diff_models(model.path, after.path, Path(folder) / "found")
        with opened_patch(Path(folder) / "found") as found:
            assert (found.base, found.result) == (patch.base, patch.result)
            assert found.metadata == patch.metadata
            assert contents_of(found) == contents_of(patch)
            assert apply(model, found).all == files.all
        assert report.body["weights_changed"] == patch.size


@QUICK
@given(patched(), st.data())
def test_two_patches_composed_do_what_they_do_one_after_the_other(case, data: st.DataObject):
    stored, deltas = case
    middle = stored.edited(deltas)
    further = data.draw(edits(middle))
    with TemporaryDirectory() as a, TemporaryDirectory() as b:
        model = stored.open(Path(a))
        first, files = seal(model, patch_of(model, *deltas))
        then = files.open(Path(b))
        second, _ = seal(then, patch_of(then, *further))
        both = compose(first, second)
        assert apply(model, both).all == middle.edited(further).files
        assert from_bytes(to_bytes(both)).size == both.size
        assert all((d.elements.old != d.elements.new).all() for d in both.deltas)
        if second.result != first.base:
            with pytest.raises(PatchError, match="patches that follow each other"):
                compose(second, first)


def contents_of(patch: Patch) -> dict[str, list[list[int]]]:
    """What a patch changes, without targets of which it changes nothing."""
    return {
        delta.param: [column.tolist() for column in delta.elements]
        for delta in patch.deltas
        if delta.count
    }


@QUICK
@given(patched(), st.data())
def test_a_refused_patch_leaves_no_trace(case, data: st.DataObject):
    """Another digest, a wrong old value, positions out of order or out of range, a target twice."""
    stored, deltas = case
    touched = [i for i, d in enumerate(deltas) if d.count]
    if not touched:
        return
    which = data.draw(st.sampled_from(touched))
    good = deltas[which]
    index, old, new = good.elements
    size = int(np.prod(good.shape, dtype=object))
    spoilt = {
        "old": with_elements(good, old=old ^ 1),
        "range": with_elements(good, index=index + size),
        "order": with_elements(
            good, index=np.repeat(index, 2), old=np.repeat(old, 2), new=np.repeat(new, 2)
        ),
        "fewer": with_elements(good, old=old[:-1]),
        "shape": with_elements(good, shape=(*good.shape, 1)),
    }
    kind = data.draw(st.sampled_from([*spoilt, "digest", "twice"]))
    changed = list(deltas)
    if kind == "twice":
        changed.append(good)
    elif kind != "digest":
        changed[which] = spoilt[kind]
    with TemporaryDirectory() as folder, TemporaryDirectory() as other:
        model = stored.open(Path(folder))
        patch = patch_of(model, *changed)
        if kind == "digest":
            patch = replace(patch, base=Digest.of(b"other"), base_weights=Digest.of(b"other"))
        with (
            survey(model.path) as contents,
            pytest.raises(PatchError),
            applied(contents, patch, Path(other) / "out.onnx"),
        ):
            pass
        assert list(Path(other).iterdir()) == []


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
        model = stored.open(Path(folder))
        with pytest.raises(PatchError, match="does not store its element"):
            apply(model, patch_of(model, *others, bad))


@QUICK
@given(models())
def test_a_patch_of_nothing_is_the_same_file(stored: Stored):
    with TemporaryDirectory() as folder:
        model = stored.open(Path(folder))
        assert apply(model, patch_of(model)).all == stored.files


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
        model = stored.open(Path(folder))
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
