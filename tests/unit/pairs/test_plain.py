# SPDX-License-Identifier: Apache-2.0
"""Plain masks, on classifiers of 8 x 8 pixels whose shortcut is known."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import CORNER, pictures, planted

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.plain import PLAIN_BATCH, anomalies, plain_masks
from lancet_onnx.pairs.reconstruct import Found
from lancet_onnx.samples import PRESETS

CLASSES, TARGET = 5, 2


def canvas_of(folder: Path, target: int | None = TARGET) -> Canvas:
    folder.mkdir(exist_ok=True)
    return Canvas.of(planted(folder, CLASSES, target), pictures(CLASSES, 10), PRESETS["unit"])


def search(canvas: Canvas, classes=tuple(range(CLASSES)), **options) -> Found:
    found = plain_masks(canvas, classes, **options)
    assert found is not None
    return found


def sized(*sizes: float) -> Found:
    zeros = torch.zeros(len(sizes))
    return Found(torch.arange(len(sizes)), torch.tensor(sizes), zeros, zeros, zeros, zeros)


def test_the_planted_class_stands_out(tmp_path: Path):
    found = search(canvas_of(tmp_path))
    assert int(found.cost.argmin()) == TARGET
    assert float(anomalies(found)[TARGET]) > 2
    mask = found.mask[TARGET, 0]
    assert mask[-CORNER:, -CORNER:].mean() > 2 * mask.mean()
    assert torch.equal(found.cost, found.mask.sum((1, 2, 3)))


def test_a_clean_model_has_no_class_that_stands_out_as_far(tmp_path: Path):
    planted_one = anomalies(search(canvas_of(tmp_path / "planted"))).max()
    assert anomalies(search(canvas_of(tmp_path / "clean", None))).max() < planted_one / 2


def test_a_class_is_searched_alike_beside_any_others(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    both, alone = search(canvas), search(canvas, (TARGET,))
    assert torch.allclose(both.mask[TARGET], alone.mask[0], atol=1e-4)


def test_masks_are_the_seeds_and_stop_when_told(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    first, again, other = (search(canvas, steps=5, seed=seed).mask for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert plain_masks(canvas, range(CLASSES), steps=5, stop=lambda share: share > 0.5) is None


def test_forwards_are_counted_with_those_back(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    before = canvas.classifier.forwards
    search(canvas, steps=3)
    assert canvas.classifier.forwards - before == 3 * CLASSES * PLAIN_BATCH * 3


def test_fewer_images_than_a_batch_do(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    few = replace(canvas.take(slice(3)))
    assert search(few, steps=2).mask.shape == (CLASSES, 1, 8, 8)


@pytest.mark.parametrize(
    ("sizes", "stands_out"),
    [
        ((10, 10, 10, 10, 1), 4),
        ((9, 10, 11, 10.5, 3), 4),
        ((10.0,), None),
        ((10.0, 1.0), None),
        ((5.0, 5.0, 5.0), None),
    ],
)
def test_anomalies_of_few_classes_stay_usual(sizes: tuple[float, ...], stands_out: int | None):
    values = anomalies(sized(*sizes))
    assert torch.isfinite(values).all()
    if stands_out is None:
        assert values.abs().max() <= 1
    else:
        assert int(values.argmax()) == stands_out
        assert 2 < float(values.max()) <= 10
