# SPDX-License-Identifier: Apache-2.0
"""`Samples` and splits that never share an image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lancet_onnx.samples import Pairs, Samples, Split


def numbered(labels: list[int] | None, ids: list[int] | None = None, count: int = 0) -> Samples:
    """Images that carry their number in two pixels."""
    ids = ids or list(range(len(labels) if labels is not None else count))
    images = np.array([[[[i % 256, i // 256]]] for i in ids], np.uint8)
    known = None if labels is None else np.array(labels, np.int64)
    return Samples(images, known, False, "test")


def ids(samples: Samples) -> list[int]:
    flat = samples.images.reshape(-1, 2).astype(int)
    return (flat[:, 0] + 256 * flat[:, 1]).tolist()


def test_pixels_are_in_zero_to_one():
    images = np.array([[[[0, 51, 255]]]], np.uint8)
    np.testing.assert_allclose(Samples(images, None, False, "s").pixels, [[[[0, 0.2, 1]]]])
    kept = np.array([[[[0.5, 0.25, 1]]]], np.float32)
    np.testing.assert_array_equal(Samples(kept, None, False, "s").pixels, kept)


def test_take_keeps_image_and_label_together():
    part = numbered([5, 6, 7, 8]).take(np.array([2, 0]))
    assert ids(part) == [2, 0]
    assert part.labels.tolist() == [7, 5]
    assert numbered(None, count=3).take(np.array([1])).labels is None


def test_pairs_take():
    a = np.arange(8, dtype=np.float32).reshape(4, 2)
    part = Pairs(a, -a, np.arange(4), np.arange(4) + 1).take(slice(1, 3))
    assert len(part) == 2
    assert part.bad.tolist() == a[1:3].tolist()
    assert (part.wrong.tolist(), part.right.tolist()) == ([1, 2], [2, 3])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_halves_are_disjoint_complete_and_even(labels: list[int], seed: int):
    samples = numbered(labels)
    split = Split.of(samples, seed)
    tool, figures = ids(split.tool), ids(split.figures)
    assert sorted(tool + figures) == list(range(len(labels)))
    for half in (split.tool, split.figures):
        assert half.labels.tolist() == [labels[i] for i in ids(half)]
    for label in set(labels):
        a, b = ((h.labels == label).sum() for h in (split.tool, split.figures))
        assert abs(int(a) - int(b)) <= 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=60),
    st.integers(0, 1000),
    st.booleans(),
)
def test_copies_of_an_image_stay_together(images: list[tuple[int, int]], seed: int, labelled: bool):
    numbers, labels = [i for i, _ in images], [label for _, label in images]
    split = Split.of(numbered(labels if labelled else None, numbers), seed)
    assert not set(ids(split.tool)) & set(ids(split.figures))
    assert sorted(ids(split.tool) + ids(split.figures)) == sorted(numbers)


def test_the_seed_decides():
    samples = numbered([i % 3 for i in range(60)])
    one, again, other = Split.of(samples, 1), Split.of(samples, 1), Split.of(samples, 2)
    assert ids(one.tool) == ids(again.tool)
    assert ids(one.figures) == ids(again.figures)
    assert set(ids(one.tool)) != set(ids(other.tool))
    assert (one.seed, other.seed) == (1, 2)


def test_halves_are_shuffled():
    """What is taken first from a half must not be what lay first in the file."""
    split = Split.of(numbered([0] * 200), 3)
    assert ids(split.tool) != sorted(ids(split.tool))
    assert abs(np.mean(ids(split.tool)[:50]) - 100) < 25


def test_unlabelled_images_are_halved_evenly():
    split = Split.of(numbered(None, count=101), 0)
    assert {len(split.tool), len(split.figures)} == {50, 51}
    assert split.tool.labels is None


@pytest.mark.parametrize("shape", [(7,), (3, 2, 2)])
def test_raw_inputs_of_any_shape_are_split(shape: tuple[int, ...], rng):
    samples = Samples(rng.normal(size=(10, *shape)).astype(np.float32), None, True, "s")
    split = Split.of(samples, 0)
    assert len(split.tool) == len(split.figures) == 5
    assert split.tool.raw
