# SPDX-License-Identifier: Apache-2.0
"""Errors made from errors: only by transforms that fit, and only those that stay errors."""

from pathlib import Path

import pytest
import torch
from tiny import flat, pictures

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.similar import (
    TRANSFORMS,
    brightened,
    fitting,
    mirrored,
    scaled,
    shifted,
    similar,
    turned,
)
from lancet_onnx.samples import PRESETS


@pytest.fixture
def canvas(tmp_path: Path) -> Canvas:
    """Class 0 when the left half is brighter, else class 1."""
    made = Canvas.of(flat(tmp_path, (1, 8, 8), 2), pictures(2, 30), PRESETS["unit"])
    weight = next(iter(made.classifier.module.leaves.values())).detach()
    sides = torch.cat([torch.ones(1, 8, 4), -torch.ones(1, 8, 4)], 2).reshape(-1)
    signs = torch.stack([sides, -sides], 1)
    weight.copy_(signs if weight.shape == signs.shape else signs.T)
    return made


def halves(bright: torch.Tensor) -> torch.Tensor:
    """Return images whose left half has the given brightness, the right one the rest to 1."""
    left = bright[:, None, None, None].expand(-1, 1, 8, 4)
    return torch.cat([left, 1 - left], 3)


BRIGHT = torch.tensor([0.9, 0.8, 0.2, 0.1])
ZERO = torch.zeros(4, dtype=torch.int64)


def test_what_mirrors_labels_does_not_fit(canvas: Canvas):
    right = halves(torch.linspace(0.6, 0.95, 20))
    found = fitting(canvas, right, 0)
    assert "flip" not in found
    assert {"brightness", "scale"} <= set(found)


def test_all_stay_errors_and_know_where_they_are_from(canvas: Canvas):
    right = halves(torch.linspace(0.6, 0.95, 20))
    found = similar(canvas, halves(BRIGHT), ZERO, right, 0)
    assert (canvas.logits(found.pixels).argmax(1) == 1).all()
    assert set(found.origin.tolist()) == {2, 3}
    assert len(found.pixels) == len(found.origin) == 2 * len(fitting(canvas, right, 0))


def test_they_are_the_seeds(canvas: Canvas):
    right = halves(torch.linspace(0.6, 0.95, 20))
    first, again, other = (similar(canvas, halves(BRIGHT), ZERO, right, s) for s in (0, 0, 1))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)


def test_no_errors_make_none(canvas: Canvas):
    found = similar(canvas, halves(BRIGHT)[:0], ZERO[:0], halves(torch.full((20,), 0.9)), 0)
    assert len(found.pixels) == len(found.origin) == 0


def test_without_images_that_are_right_nothing_is_known_to_fit(canvas: Canvas):
    assert fitting(canvas, halves(BRIGHT)[:0], 0) == ()
    assert len(similar(canvas, halves(BRIGHT), ZERO, halves(BRIGHT)[:0], 0).pixels) == 0


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (3, 3, 6, 10)])
def test_transforms_keep_form_and_range(name: str, shape: tuple[int, ...]):
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(shape, generator=draw)
    made = TRANSFORMS[name](images, draw)
    assert made.shape == images.shape
    assert 0 <= float(made.min()) <= float(made.max()) <= 1 + 1e-6
    assert not torch.equal(made, images)


def test_transforms_do_what_they_are_called():
    draw = torch.Generator().manual_seed(0)
    images = torch.zeros(2, 1, 9, 9)
    images[:, :, 4, 4] = 0.5
    assert torch.equal(mirrored(images, draw), images)
    assert int((shifted(images, draw) > 0).sum()) == 2
    assert torch.allclose(turned(images, draw)[:, :, 4, 4], images[:, :, 4, 4])
    assert torch.allclose(scaled(images, draw)[:, :, 4, 4], images[:, :, 4, 4])
    assert ((brightened(images, draw)[:, 0, 4, 4] - 0.5).abs() > 0.03).all()
