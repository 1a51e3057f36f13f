# SPDX-License-Identifier: Apache-2.0
"""Companions, on classifiers of 8 x 8 pixels whose errors come from a known spot."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import info, model_bytes, tensor, write
from onnx.helper import make_node as make
from tiny import SIDE, SPOT, flat, pictures, spotted_file
from tiny import spotted as spotted_pictures

from lancet_onnx.errors import DataError, UnsupportedError
from lancet_onnx.model import load
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.companions import LEARNT, STEPS, Companions, companions, restored
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import PRESETS, Samples

CLASSES, TARGET, EACH = 4, 2, 3
UNIT = PRESETS["unit"]
FIELDS = ("positions", "wrong", "true", "masks", "pixels")


def spotted(channels: int = 1) -> Samples:
    return spotted_pictures(CLASSES, EACH, channels)


def classifier_of(folder: Path, channels: int = 1) -> Classifier:
    return Classifier(load(spotted_file(folder, CLASSES, TARGET, channels)).graph)


def canvas_of(folder: Path, samples: Samples | None = None) -> Canvas:
    return Canvas.of(classifier_of(folder), samples or spotted(), UNIT)


def same(first: Companions, other: Companions) -> bool:
    return first.unsolved == other.unsolved and all(
        torch.equal(getattr(first, name), getattr(other, name)) for name in FIELDS
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mask_lies_where_the_error_comes_from(tmp_path: Path, channels: int):
    samples = spotted(channels)
    canvas = Canvas.of(classifier_of(tmp_path, channels), samples, UNIT)
    labels = samples.labels
    errors = np.flatnonzero(canvas.labels.numpy() != labels)
    assert len(errors) == EACH * (CLASSES - 1)
    found = companions(canvas, labels)
    assert found.positions.tolist() == errors.tolist()
    assert len(found) == len(errors)
    assert found.unsolved == 0
    assert found.wrong.tolist() == [TARGET] * len(errors)
    assert found.true.tolist() == labels[errors].tolist()
    assert found.masks.shape == (len(errors), 1, SIDE, SIDE)
    assert found.pixels.shape == (len(errors), channels, SIDE, SIDE)
    assert torch.equal(canvas.logits(found.pixels).argmax(1), found.true)
    # The spot is a sixteenth of the image.
    inside = found.masks[..., SPOT, SPOT].sum((1, 2, 3)) / found.masks.sum((1, 2, 3))
    assert float(inside.mean()) > 0.9
    assert float(inside.min()) > 0.5
    assert float(found.areas.max()) < 0.1


def test_masks_and_companions_are_in_range_and_differ_from_x_only_under_the_mask(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    found = companions(canvas, spotted().labels)
    for values in (found.masks, found.pixels):
        assert 0 <= float(values.min()) <= float(values.max()) <= 1
    moved = (found.pixels - canvas.pixels[found.positions]).abs()
    assert bool((moved <= found.masks + 1e-6).all())
    torch.testing.assert_close(found.areas, found.masks.mean((1, 2, 3)))


def test_only_errors_get_companions(tmp_path: Path):
    canvas = canvas_of(tmp_path, pictures(CLASSES, EACH))
    before, own = canvas.classifier.forwards, canvas.labels.numpy()
    found = companions(canvas, own)
    assert (len(found), found.unsolved) == (0, 0)
    assert found.masks.shape == (0, 1, SIDE, SIDE)
    assert canvas.classifier.forwards == before
    assert all(len(hit) == 0 for hit in restored(canvas, found).values())


def test_no_images_give_no_companions(tmp_path: Path):
    canvas = canvas_of(tmp_path).take(slice(0))
    found = companions(canvas, np.zeros(0, np.int64))
    assert (len(found), found.unsolved) == (0, 0)


def test_what_no_mask_solves_is_counted_and_left_out(tmp_path: Path):
    samples = spotted()
    labels = samples.labels.copy()
    # A black image has no region to wipe out: its label cannot be changed.
    samples.images[0] = 0.0
    canvas = canvas_of(tmp_path, samples)
    labels[0] = (int(canvas.labels[0]) + 1) % CLASSES
    found = companions(canvas, labels)
    assert found.unsolved == 1
    assert found.positions.tolist() == np.flatnonzero(canvas.labels.numpy() != labels)[1:].tolist()


def test_groups_give_what_all_at_once_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    canvas, labels = canvas_of(tmp_path), spotted().labels
    whole = companions(canvas, labels)
    monkeypatch.setattr("lancet_onnx.pairs.canvas.AT_ONCE", 4)
    parts = companions(canvas, labels)
    assert parts.positions.tolist() == whole.positions.tolist()
    torch.testing.assert_close(parts.masks, whole.masks, atol=1e-3, rtol=0)


def test_a_model_too_large_for_two_images_at_once_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    canvas, labels = canvas_of(tmp_path), spotted().labels
    monkeypatch.setattr("lancet_onnx.pairs.canvas.MEMORY", 1)
    heard: list[float] = []
    companions(canvas, labels, progress=lambda _what, share: heard.append(share))
    assert len(heard) == STEPS * EACH * (CLASSES - 1)
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_bits(tmp_path: Path):
    canvas, labels = canvas_of(tmp_path), spotted().labels
    first, again, other = (companions(canvas, labels, seed=seed) for seed in (0, 0, 1))
    assert same(first, again)
    assert not torch.equal(first.masks, other.masks)
    tries = [restored(canvas, first, seed=seed) for seed in (3, 3)]
    assert all(torch.equal(hit, tries[1][name]) for name, hit in tries[0].items())


def test_images_are_counted(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    before = canvas.classifier.forwards
    found = companions(canvas, spotted().labels)
    # Each step there and back (twice as dear), and once more to see what the companions get.
    assert canvas.classifier.forwards - before == len(found) * (3 * STEPS + 1)
    before = canvas.classifier.forwards
    tried = restored(canvas, found)
    assert canvas.classifier.forwards - before == len(found) * len(tried)


def test_a_spot_filled_otherwise_restores_the_label_and_another_place_does_not(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    tried = dict(restored(canvas, companions(canvas, spotted().labels)))
    assert float(tried.pop("elsewhere").float().mean()) < 0.2
    # Half the blur leaves much of a spot of two pixels, and noise may be bright.
    wiped = ("twice the blur", "mean colour", "colour around")
    assert all(bool(tried[name].all()) for name in wiped)
    assert set(LEARNT) < tried.keys()
    assert all(hit.dtype == torch.bool for hit in tried.values())


def test_raw_inputs_are_refused(tmp_path: Path):
    images = np.random.default_rng(0).random((4, 6)).astype(np.float32)
    canvas = Canvas.of(flat(tmp_path, (6,)), Samples(images, None, True, "rows"), UNIT)
    with pytest.raises(DataError, match="no pictures"):
        companions(canvas, np.zeros(4, np.int64))


@pytest.mark.parametrize("labels", [[0, 1], [CLASSES] * 24, [-1] * 24])
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: list[int]):
    with pytest.raises(DataError, match="true labels"):
        companions(canvas_of(tmp_path), np.array(labels, np.int64))


def test_inputs_of_whole_numbers_are_refused(tmp_path: Path):
    nodes = [
        make("Cast", ["x"], ["c"], "cast", to=1),
        make("Flatten", ["c"], ["f"], "flat"),
        make("Gemm", ["f", "w"], ["y"], "dense"),
    ]
    weight = np.random.default_rng(2).normal(size=(SIDE * SIDE, CLASSES)).astype(np.float32)
    inputs = [info("x", ["N", 1, SIDE, SIDE], 2)]
    path = write(
        tmp_path, model_bytes(nodes, [tensor("w", weight)], inputs, [info("y", ["N", CLASSES])])
    )
    classifier = Classifier(load(path).graph)
    canvas = Canvas.of(classifier, spotted(), PRESETS["uint8"])
    with pytest.raises(UnsupportedError, match="uint8"):
        companions(canvas, spotted().labels)
