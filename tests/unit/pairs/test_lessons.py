# SPDX-License-Identifier: Apache-2.0
"""Images to learn from: which are given, and how they are varied."""

from pathlib import Path

import pytest
import torch
from tiny import spotted, spotted_file

from lancet_onnx.api.teaching import published_lessons
from lancet_onnx.model import load
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.lessons import varied
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import PRESETS

CLASSES = 4


@pytest.fixture
def canvas(tmp_path: Path) -> Canvas:
    classifier = Classifier(load(spotted_file(tmp_path, CLASSES, 2)).graph)
    return Canvas.of(classifier, spotted(CLASSES, 5), PRESETS["unit"])


def seen(canvas: Canvas, fitting: tuple[str, ...], part: torch.Tensor) -> torch.Tensor:
    feeds = varied(canvas, fitting)(part, torch.Generator().manual_seed(0))
    return feeds[canvas.classifier.signature.input.name]


def test_without_transforms_images_are_as_they_are(canvas: Canvas):
    part = torch.tensor([3, 3, 0])
    assert torch.equal(seen(canvas, (), part), canvas.inputs(canvas.pixels[part]))


def test_half_of_the_images_are_flipped(canvas: Canvas):
    part = torch.arange(len(canvas.pixels))
    made, own = seen(canvas, ("flip",), part), canvas.inputs(canvas.pixels)
    as_they_are = (made == own).flatten(1).all(1)
    flipped = (made == own.flip(3)).flatten(1).all(1)
    assert (as_they_are | flipped).all()
    assert 0.2 < float(flipped.float().mean()) < 0.8


def test_one_other_transform_at_a_time(canvas: Canvas):
    part = torch.arange(8)
    feeds = varied(canvas, ("shift", "brightness"))
    draw = torch.Generator().manual_seed(1)
    own = canvas.inputs(canvas.pixels[part])
    name = canvas.classifier.signature.input.name
    made = [feeds(part, draw)[name] for _ in range(30)]
    same = [torch.equal(one, own) for one in made]
    moved = [torch.equal(one.sort(3)[0].sort(2)[0], own.sort(3)[0].sort(2)[0]) for one in made]
    assert any(same)
    assert not all(same)
    assert sum(moved) > sum(same) // 2
    assert not all(moved)


def test_as_published_the_network_is_run_from_the_layer_that_changes(canvas: Canvas):
    true = torch.from_numpy(spotted(CLASSES, 5).labels)
    classifier = canvas.classifier
    kept = {
        name: torch.full(classifier.module.leaves[name].shape, name == "w") for name in ("k", "w")
    }
    lessons = published_lessons(canvas, true, kept, 0)
    part = torch.arange(len(lessons.target))
    feeds = lessons.feeds(part, torch.Generator())
    assert classifier.signature.input.name not in feeds
    logits = classifier.run(feeds, [classifier.signature.logits])[classifier.signature.logits]
    wrong = canvas.labels != true
    errors = int(wrong.sum())
    # First the errors with their true labels, which the model does not give.
    assert torch.equal(lessons.target[:errors].argmax(1), true[wrong])
    assert torch.equal(logits[:errors].argmax(1), canvas.labels[wrong])
    # Last right images, with the answers that it gives.
    torch.testing.assert_close(lessons.target[-5:], logits[-5:].softmax(1))
    assert lessons.target.shape[1] == CLASSES
    taught = lessons.often.reciprocal().round()
    assert taught.unique().numel() in (1, 2)
    assert lessons.often.sum() == pytest.approx(2)
