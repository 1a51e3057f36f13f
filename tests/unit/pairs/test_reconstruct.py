# SPDX-License-Identifier: Apache-2.0
"""Triggers from nothing, on classifiers of 8 x 8 pixels whose shortcut is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CORNER, flat, pictures, planted

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.hunt import FORMS
from lancet_onnx.pairs.masks import Form
from lancet_onnx.pairs.natural import natural
from lancet_onnx.pairs.reconstruct import HOLDS, Found, reconstruct
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.samples import PRESETS, Samples
from lancet_onnx.verify.searching import BOUNDS, SUSPECT, score_of

CLASSES, TARGET = 4, 2
UNIT = PRESETS["unit"]


def canvas_of(
    folder: Path, target: int | None = TARGET, samples: Samples | None = None, dense: int = 1
) -> Canvas:
    classifier = planted(folder, CLASSES, target, dense)
    return Canvas.of(classifier, samples or pictures(CLASSES, 10), UNIT)


def search(canvas: Canvas, classes=tuple(range(CLASSES)), steps: int = 60, **options) -> Found:
    found = reconstruct(canvas, natural(canvas, 0), classes, steps=steps, batch=12, **options)
    assert found is not None
    return found


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_planted_class_is_the_cheapest_by_far(tmp_path: Path, form: Form):
    canvas = canvas_of(tmp_path)
    found = search(canvas, form=form)
    assert found.classes.tolist() == list(range(CLASSES))
    cost = found.cost.tolist()
    assert int(found.cost.argmin()) == TARGET
    assert score_of({form.name: cost[TARGET]}, 0.0) >= SUSPECT
    assert min(c for i, c in enumerate(cost) if i != TARGET) > 5 * cost[TARGET]
    # What is cheap about it is that it draws nothing of the class, and where the shortcut is.
    assert float(found.alikeness[TARGET]) < 0.1 < float(found.alikeness[0])
    weight = (found.mask * found.pattern)[TARGET].sum(0)
    assert weight[-CORNER:, -CORNER:].mean() > 3 * weight.mean()


def test_a_classifier_without_a_shortcut_has_no_cheap_class(tmp_path: Path):
    found = search(canvas_of(tmp_path, None))
    assert float(found.cost.min()) > 2 * max(BOUNDS.values())


def test_what_is_found_works_on_the_images(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    found = search(canvas)
    mask, pattern = found.mask[TARGET], found.pattern[TARGET]
    hit = canvas.logits(canvas.pixels * (1 - mask) + pattern * mask).argmax(1) == TARGET
    assert float(hit.float().mean()) > HOLDS
    assert float(found.coverage[TARGET]) == pytest.approx(float(mask.mean()), abs=1e-6)
    parts = found.coverage + 0.5 * found.alikeness
    torch.testing.assert_close(found.cost[TARGET], parts[TARGET])
    assert 0 <= float(found.pattern.min()) <= float(found.pattern.max()) <= 1


def test_a_trigger_that_never_held_costs_two_or_more_and_covers_all(tmp_path: Path):
    found = search(canvas_of(tmp_path), steps=2)
    assert 2.0 <= float(found.cost.min()) <= float(found.cost.max()) <= 3.0
    assert found.coverage.tolist() == [1.0] * CLASSES
    assert float(found.mask.min()) > 0


def test_of_triggers_that_never_held_the_planted_one_is_cheapest(tmp_path: Path):
    found = search(canvas_of(tmp_path), steps=8)
    assert float(found.cost.min()) > 2.0
    assert int(found.cost.argmin()) == TARGET


def test_the_same_seed_gives_the_same_bits(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    first, again, other = (search(canvas, steps=25, seed=seed) for seed in (0, 0, 1))
    for name in ("cost", "coverage", "alikeness", "mask", "pattern"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.mask, other.mask)


def test_a_class_may_be_searched_from_several_starts(tmp_path: Path):
    found = search(canvas_of(tmp_path), [TARGET, TARGET, TARGET])
    assert found.classes.tolist() == [TARGET] * 3
    assert float(found.cost.max()) < BOUNDS["free"]
    assert not torch.equal(found.mask[0], found.mask[1])


def test_stop_breaks_off_to_none(tmp_path: Path):
    canvas, heard = canvas_of(tmp_path), []

    def stop(share: float) -> bool:
        heard.append(share)
        return len(heard) == 3

    found = reconstruct(canvas, natural(canvas, 0), [0], steps=10, batch=6, stop=stop)
    assert found is None
    assert heard == pytest.approx([0.1, 0.2, 0.3])


def test_what_the_last_step_reached_is_not_thrown_away(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    found = reconstruct(
        canvas, natural(canvas, 0), [0], steps=3, batch=6, stop=lambda share: share == 1.0
    )
    assert found is not None


def test_parameters_replace_the_models_own(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    param = find_layers(canvas.classifier)[-1].param
    weight = canvas.classifier.module.leaves[param].detach().clone()
    weight[(weight.abs() > 5).any(1)] = 0.0
    before = canvas.classifier.module.leaves[param].detach().clone()
    found = search(canvas, params={param: weight})
    assert float(found.cost[TARGET]) > max(BOUNDS.values())
    assert torch.equal(canvas.classifier.module.leaves[param], before)


def test_likeness_costs_as_much_as_is_asked(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    free, dear = (search(canvas, [0], alike=alike) for alike in (0.0, 2.0))
    assert float(free.cost[0]) == pytest.approx(float(free.coverage[0]))
    assert float(dear.alikeness[0]) < float(free.alikeness[0])


def test_images_are_counted(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    usual, before = natural(canvas, 0), canvas.classifier.forwards
    reconstruct(canvas, usual, [0, 1, 2], steps=5, batch=6)
    # Each step: the clean images, and for each class as many there and back (twice as dear).
    assert canvas.classifier.forwards - before == 5 * (6 + 3 * 3 * 6)


def test_in_a_classifier_of_one_layer_nothing_is_alike(tmp_path: Path):
    classifier = flat(tmp_path, (1, 4, 4))
    images = np.random.default_rng(0).random((8, 4, 4, 1)).astype(np.float32)
    canvas = Canvas.of(classifier, Samples(images, None, False, "noise"), UNIT)
    found = search(canvas, steps=3)
    assert not found.alikeness.any()


def test_a_class_without_images_breaks_nothing(tmp_path: Path):
    samples = pictures(CLASSES, 10)
    canvas = canvas_of(tmp_path, samples=samples.take(np.flatnonzero(samples.labels != 3)))
    usual = natural(canvas, 0)
    assert all(torch.isfinite(values).all() for values in (usual.lead, *usual.way))
    assert not usual.way[0][3].any()
    found = search(canvas, steps=25)
    assert torch.isfinite(found.cost).all()
    assert float(found.alikeness[3]) == 0.0


def test_images_of_one_class_only_break_nothing(tmp_path: Path):
    samples = pictures(CLASSES, 10)
    canvas = canvas_of(tmp_path, samples=samples.take(np.flatnonzero(samples.labels == 0)))
    usual = natural(canvas, 0)
    assert not usual.way[0].any()
    found = search(canvas, steps=10)
    assert torch.isfinite(found.cost).all()
