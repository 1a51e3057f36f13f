# SPDX-License-Identifier: Apache-2.0
"""Pairs from a known trigger: which images serve for what, and what is kept aside."""

from dataclasses import replace

import numpy as np
import pytest

from lancet_onnx.model import load
from lancet_onnx.pairs import stamped_material
from lancet_onnx.pairs.stamped import FEWEST_TO_SPLIT
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import PRESETS, Material, Samples, Sizes
from lancet_onnx.trigger import read_trigger

NAME = "mnist_cnn_square"


@pytest.fixture(scope="module")
def classifier(fixtures) -> Classifier:
    return Classifier(load(fixtures.model(NAME)).graph)


def material(
    classifier: Classifier, fixtures, samples: Samples, *, aside: bool = True, **sizes: int
) -> Material:
    trigger = read_trigger(fixtures.trigger(NAME), (28, 28, 1))
    target = fixtures.target(NAME)
    unit = PRESETS["unit"]
    return stamped_material(classifier, samples, trigger, unit, target, Sizes(**sizes), aside=aside)


def rows(inputs: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in inputs}


def test_a_quarter_is_kept_aside_from_everything_else(classifier: Classifier, fixtures):
    found = material(classifier, fixtures, fixtures.samples(200))
    assert len(found.check) == 100
    assert len(found.lessons) == 150
    aside = rows(found.check.take(slice(50)).good)
    for others in (found.pairs.good, found.stop.good, found.lessons.good, found.guard):
        assert not aside & rows(others)
    assert not rows(found.pairs.good) & rows(found.stop.good)
    assert rows(found.check.take(slice(50, 100)).good) <= rows(found.lessons.good)


def test_lessons_and_check_hold_the_target_too(classifier: Classifier, fixtures):
    found = material(classifier, fixtures, fixtures.samples(200))
    target = fixtures.target(NAME)
    assert (found.lessons.right == target).any()
    assert (found.check.right == target).any()
    assert not (found.stop.right == target).any()
    assert (found.lessons.wrong == target).all()


@pytest.mark.parametrize("count", [200, FEWEST_TO_SPLIT - 1])
def test_nothing_is_kept_aside_of_few_images_or_if_it_is_not_wanted(
    classifier: Classifier, fixtures, count: int
):
    found = material(classifier, fixtures, fixtures.samples(count), aside=count < FEWEST_TO_SPLIT)
    assert len(found.check) == len(found.lessons) == len(found.guard) == count


def test_sizes_are_limits(classifier: Classifier, fixtures):
    found = material(classifier, fixtures, fixtures.samples(200), pairs=5, stop=7, guard=11)
    assert (len(found.pairs), len(found.stop), len(found.guard)) == (5, 7, 11)
    assert len(found.lessons) == 11


def test_without_labels_the_model_says_what_is_right(classifier: Classifier, fixtures):
    samples = replace(fixtures.samples(100), labels=None)
    found = material(classifier, fixtures, samples)
    assert found.guard_labels is None
    before = classifier.logits(classifier.tensor(found.check.good)).argmax(1)
    assert np.array_equal(found.check.right, before.numpy())
