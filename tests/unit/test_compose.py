# SPDX-License-Identifier: Apache-2.0
"""Two patches as one, their elements merged block by block."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from builders import from_bytes, to_bytes, with_elements
from hypothesis import given, settings
from hypothesis import strategies as st

from lancet_onnx.errors import PatchError
from lancet_onnx.patch import Patch, TensorDelta, compose
from lancet_onnx.patch import core as core_module
from lancet_onnx.patch import file as file_module
from lancet_onnx.types import Digest, ParamName

MANY = settings(max_examples=200, deadline=None)
SIZE = 40
BASE, MIDDLE, RESULT = (Digest.of(name) for name in (b"base", b"middle", b"result"))


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Let three elements be a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core_module, "BLOCK", 3)
        patch.setattr(file_module, "BLOCK", 3)
        yield


def patch(base: Digest, result: Digest, *deltas: TensorDelta, seed: int = 0) -> Patch:
    noted = (("lancet-onnx", str(seed)),)
    return Patch(base, None, result, deltas, f"m{seed}", seed, {"x": 0.5}, noted, "t")


def between(before: np.ndarray, after: np.ndarray, name: str = "w") -> TensorDelta:
    return TensorDelta.between(ParamName(name), before, after)


values = st.lists(st.integers(0, 3), min_size=SIZE, max_size=SIZE).map(
    lambda items: np.array(items, np.float32)
)


@MANY
@given(values, values, values)
def test_elements_are_merged(a: np.ndarray, b: np.ndarray, c: np.ndarray):
    both = compose(patch(BASE, MIDDLE, between(a, b)), patch(MIDDLE, RESULT, between(b, c)))
    expected = between(a, c)
    if expected.count == 0:
        assert both.deltas == ()
        return
    (found,) = both.deltas
    for one, other in zip(found.elements, expected.elements, strict=True):
        np.testing.assert_array_equal(one, other)
    again = from_bytes(to_bytes(both))
    assert again.identity == both.identity


def test_all_but_the_elements_of_a_patch_of_two():
    a, b, c = (np.full(SIZE, v, np.float32) for v in (1, 2, 3))
    first = patch(BASE, MIDDLE, between(a, b), between(a, b, "only first"), seed=1)
    second = patch(MIDDLE, RESULT, between(b, c), between(b, c, "only second"), seed=2)
    both = compose(first, second)
    assert (both.base, both.result) == (BASE, RESULT)
    assert [d.param for d in both.deltas] == ["w", "only first", "only second"]
    assert both.metadata == (("lancet-onnx", "1"), ("lancet-onnx", "2"))
    assert both.method == "compose(m1, seed 1; m2, seed 2)"
    assert both.metrics == {"first.x": 0.5, "second.x": 0.5}


def test_patches_that_do_not_follow_each_other_are_refused():
    a, b = (np.full(SIZE, v, np.float32) for v in (1, 2))
    first = patch(BASE, MIDDLE, between(a, b))
    for second in (replace(first, base=BASE), replace(first, base=RESULT)):
        with pytest.raises(PatchError, match="follow each other"):
            compose(first, second)
    with pytest.raises(PatchError, match="unknown"):
        compose(replace(first, result=None), first)


def test_patches_that_contradict_each_other_are_refused():
    a, b, c = (np.full(SIZE, v, np.float32) for v in (1, 2, 3))
    first = patch(BASE, MIDDLE, between(a, b))
    with pytest.raises(PatchError, match="element 0 of 'w': the second patch expects another"):
        compose(first, patch(MIDDLE, RESULT, between(a, c)))
    other = with_elements(between(b, c), shape=(SIZE, 1))
    with pytest.raises(PatchError, match="disagree about 'w'"):
        compose(first, patch(MIDDLE, RESULT, other))
