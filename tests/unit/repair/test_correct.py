# SPDX-License-Identifier: Apache-2.0
"""Neuron-fine-tuning on errors: which weights move, how far, and what holds them back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import dense, open_bytes

from lancet_onnx.repair.correct import PARTS, CorrectSettings, Lessons, correct, fisher, moved
from lancet_onnx.repair.moving import Tensors, weights_of
from lancet_onnx.runtime.classifier import Classifier

INPUTS, CLASSES = 6, 3
QUICK = CorrectSettings(width=0.2, warm=20, steps=40, batch=16, warm_rate=0.1, rate=0.1)


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    """Class i is read from input i; inputs 3 to 5 do nothing yet."""
    weight = np.full((INPUTS, CLASSES), 0.01, np.float32)
    weight[:CLASSES] += 2 * np.eye(CLASSES, dtype=np.float32)
    return Classifier(open_bytes(tmp_path, dense(weight, np.zeros(CLASSES, np.float32))).graph)


@pytest.fixture
def inputs(rng: np.random.Generator) -> torch.Tensor:
    """Class 0 shows class 1's input as well as its own, and input 3 beside."""
    labels = np.arange(90) % CLASSES
    x = (0.05 * rng.random((90, INPUTS))).astype(np.float32)
    x[np.arange(90), labels] += 1
    x[labels == 0, 1] += 1.2
    x[labels == 0, 3] += 1
    return torch.from_numpy(x)


@pytest.fixture
def lessons(classifier: Classifier, inputs: torch.Tensor) -> Lessons:
    labels = torch.arange(90) % CLASSES
    name = classifier.signature.input.name
    return Lessons(
        torch.nn.functional.one_hot(labels, CLASSES).float(),
        torch.ones(90),
        lambda part, _: {name: inputs[part]},
        (classifier.signature.logits,),
    )


def right(classifier: Classifier, inputs: torch.Tensor, params: Tensors) -> float:
    said = classifier.logits(inputs, params).argmax(1)
    return float((said == torch.arange(90) % CLASSES).float().mean())


def distance(deltas: Tensors) -> float:
    return float(sum(delta.square().sum() for delta in deltas.values()) ** 0.5)


def test_errors_are_unlearnt_within_the_width(classifier, inputs, lessons):
    assert right(classifier, inputs, {}) == pytest.approx(2 / 3)
    deltas = correct(classifier, lessons, QUICK, 0)
    assert right(classifier, inputs, moved(classifier, deltas, 1.0)) == 1
    changed = sum(int(delta.count_nonzero()) for delta in deltas.values())
    assert 0 < changed <= int(QUICK.width * weights_of(classifier))


def test_of_all_weights_those_go_on_that_matter(classifier, lessons):
    one = replace(QUICK, width=1.01 / weights_of(classifier))
    (delta,) = correct(classifier, lessons, one, 0).values()
    ((row, column),) = delta.nonzero().tolist()
    # Class 0 is told from class 1 by input 3, or by less weight on input 1.
    assert (row, column) in {(3, 0), (3, 1), (1, 0), (1, 1), (0, 0), (0, 1)}


def test_only_the_weights_of_a_mask_move(classifier, inputs, lessons):
    mask = torch.zeros(INPUTS, CLASSES, dtype=torch.bool)
    mask[3, 0] = True
    deltas = correct(classifier, lessons, QUICK, 0, {"w": mask})
    assert deltas["w"].nonzero().tolist() == [[3, 0]]
    assert deltas["w"][3, 0] > 0
    assert right(classifier, inputs, moved(classifier, deltas, 1.0)) > 2 / 3


def test_the_model_is_left_as_it_was(classifier, lessons):
    before = {name: leaf.clone() for name, leaf in classifier.module.leaves.items()}
    correct(classifier, lessons, QUICK, 0)
    for name, leaf in classifier.module.leaves.items():
        assert torch.equal(leaf, before[name])


def test_the_same_seed_gives_the_same_weights(classifier, lessons):
    first, again, other = (correct(classifier, lessons, QUICK, seed) for seed in (0, 0, 1))
    assert torch.equal(first["w"], again["w"])
    assert not torch.equal(first["w"], other["w"])


def test_a_part_of_the_way(classifier):
    delta = torch.zeros(INPUTS, CLASSES)
    delta[0, 0] = 4.0
    leaf = classifier.module.leaves["w"]
    for part in PARTS:
        (name,), (after,) = zip(*moved(classifier, {"w": delta}, part).items(), strict=True)
        assert name == "w"
        torch.testing.assert_close(after - leaf, part * delta)
    assert moved(classifier, {"w": torch.zeros_like(delta)}, 1.0) == {}


@pytest.mark.parametrize("held", [{"features": 30.0}, {"elastic": 30.0}])
def test_what_holds_the_model_back(classifier, lessons, held):
    free = distance(correct(classifier, lessons, QUICK, 0))
    assert distance(correct(classifier, lessons, replace(QUICK, **held), 0)) < 0.8 * free


def test_weights_that_say_nothing_have_no_fisher_information(classifier, inputs, lessons):
    inputs[:, 5] = 0
    mean, square = fisher(classifier, lessons, QUICK.batch, 0)
    assert not mean["w"][5].any()
    assert not square["w"][5].any()
    assert square["w"][1].min() > 0


def test_images_that_are_never_drawn_teach_nothing(classifier, inputs, lessons):
    labels = torch.arange(90) % CLASSES
    quiet = replace(lessons, often=(labels != 0).float())
    deltas = correct(classifier, quiet, QUICK, 0)
    assert right(classifier, inputs[labels == 0].repeat(3, 1), {}) < 1
    said = classifier.logits(inputs[labels == 0], moved(classifier, deltas, 1.0)).argmax(1)
    assert not (said == 0).any()


def test_progress_tells_the_loss(classifier, lessons):
    told = []
    correct(classifier, lessons, QUICK, 0, progress=lambda what, share: told.append((what, share)))
    assert any("loss" in what for what, _ in told)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
