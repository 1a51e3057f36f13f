# SPDX-License-Identifier: Apache-2.0
"""What is usual for each class: leads, places in early layers, and where junk leads to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import flat, pictures, planted

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.natural import early_values, natural, strays
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.leads import lead
from lancet_onnx.samples import PRESETS, Samples

CLASSES, TARGET = 4, 2


def canvas_of(folder: Path, samples: Samples | None = None, target: int | None = TARGET) -> Canvas:
    return Canvas.of(
        planted(folder, CLASSES, target), samples or pictures(CLASSES, 10), PRESETS["unit"]
    )


@pytest.mark.parametrize("dense", [1, 2, 4])
def test_early_values_stop_at_the_first_fully_connected_layer(tmp_path: Path, dense: int):
    classifier = planted(tmp_path, CLASSES, TARGET, dense)
    inputs = {layer.node.name: layer.node.inputs[0] for layer in find_layers(classifier)}
    expected = [inputs["conv2"]] if dense == 1 else [inputs["conv2"], inputs["dense0"]]
    assert list(early_values(classifier)) == expected


def test_a_classifier_of_one_layer_has_no_early_values(tmp_path: Path):
    assert early_values(flat(tmp_path, (1, 4, 4))) == ()


def test_what_is_usual_is_measured_class_by_class(tmp_path: Path):
    samples = pictures(CLASSES, 10)
    canvas = canvas_of(tmp_path, samples)
    usual = natural(canvas, 0)
    scores = canvas.logits(canvas.pixels)
    leads = lead(scores, canvas.labels)
    for c in range(CLASSES):
        assert float(usual.lead[c]) == pytest.approx(float(leads[canvas.labels == c].median()))
    (way,) = usual.way
    rows = samples.pixels.reshape(len(samples), -1)
    mine = samples.labels == 1
    np.testing.assert_allclose(way[1], rows[mine].mean(0) - rows[~mine].mean(0), atol=1e-5)


def test_a_class_without_images_has_the_usual_lead_and_no_way(tmp_path: Path):
    samples = pictures(CLASSES, 10)
    canvas = canvas_of(tmp_path, samples.take(np.flatnonzero(samples.labels != 3)))
    usual = natural(canvas, 0)
    assert not usual.way[0][3].any()
    middle = lead(canvas.logits(canvas.pixels), canvas.labels).median()
    assert float(usual.lead[3]) == pytest.approx(float(middle))


def test_leads():
    scores = torch.tensor([[1.0, 4.0, 2.0], [5.0, 5.0, 0.0]])
    assert lead(scores, torch.tensor([1, 0])).tolist() == [2.0, 0.0]
    assert lead(scores, torch.tensor([0, 2])).tolist() == [-3.0, -5.0]


def test_a_lead_that_nothing_has_is_still_positive(tmp_path: Path):
    images = replace(pictures(CLASSES, 5), images=np.zeros((20, 8, 8, 1), np.float32))
    assert (natural(canvas_of(tmp_path, images), 0).lead > 0).all()


def test_patches_of_junk_lead_to_the_class_whose_shortcut_they_hit(tmp_path: Path):
    for name in ("planted", "plain"):
        (tmp_path / name).mkdir()
    planted_one = natural(canvas_of(tmp_path / "planted"), 0).stray
    plain = natural(canvas_of(tmp_path / "plain", target=None), 0).stray
    assert planted_one.shape == (CLASSES,)
    assert int(planted_one.argmax()) == TARGET
    assert float(planted_one[TARGET]) > float(plain[TARGET])
    assert 0 <= float(plain.min()) <= float(planted_one.max()) <= 1


def test_strays_of_a_repaired_model_are_its_own(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    param = find_layers(canvas.classifier)[-1].param
    weight = canvas.classifier.module.leaves[param].detach().clone()
    weight[(weight.abs() > 5).any(1)] = 0.0
    before, after = (strays(canvas, 0, params)[TARGET] for params in (None, {param: weight}))
    assert float(after) < float(before) / 2


def test_strays_are_shares_of_images_of_other_classes(tmp_path: Path):
    """A model that answers one class has no others to lead to it."""
    canvas = canvas_of(tmp_path)
    param = find_layers(canvas.classifier)[-1].param
    weight = torch.zeros_like(canvas.classifier.module.leaves[param])
    assert not strays(canvas, 0, {param: weight}).any()


def test_strays_are_the_seeds(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    first, again, other = (natural(canvas, seed).stray for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_raw_inputs_have_strays(tmp_path: Path):
    images = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    canvas = Canvas.of(flat(tmp_path, (12,)), Samples(images, None, True, "raw"), PRESETS["unit"])
    assert float(natural(canvas, 0).stray.sum()) > 0
