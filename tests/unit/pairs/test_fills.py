# SPDX-License-Identifier: Apache-2.0
"""What regions are filled with."""

import pytest
import torch

from lancet_onnx.pairs.fills import (
    blur,
    blurred,
    colour_around,
    drawn_in,
    filled,
    mean_colour,
    noise,
    shuffled,
)


def images(count: int = 2, channels: int = 3, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand((count, channels, height, width), generator=torch.Generator().manual_seed(0))


def spot(at: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros_like(at[:, :1])
    mask[..., 5:9, 6:11] = 1.0
    return mask


@pytest.mark.parametrize("fill", [blurred, drawn_in, colour_around, mean_colour])
def test_an_even_image_stays_as_it_is(fill):
    even = torch.full((1, 3, 16, 24), 0.4)
    torch.testing.assert_close(filled(even, spot(even), fill), even)


@pytest.mark.parametrize("fill", [blurred, drawn_in, colour_around, mean_colour])
def test_only_what_is_under_the_mask_changes(fill):
    shown = images()
    mask = spot(shown)
    moved = filled(shown, mask, fill) - shown
    assert not (moved * (1 - mask)).any()
    assert moved.any()


@pytest.mark.parametrize("fill", [drawn_in, colour_around])
def test_nothing_of_what_is_under_the_mask_is_left(fill):
    shown = images()
    mask = spot(shown)
    other = shown * (1 - mask) + mask
    difference = filled(shown, mask, fill) - filled(other, mask, fill)
    assert float(difference.abs().max()) < 0.01


@pytest.mark.parametrize("shape", [(16, 24), (1, 20), (1, 1)])
def test_fills_take_any_size_and_no_image_at_all(shape: tuple[int, int]):
    draw = torch.Generator().manual_seed(0)
    for count in (2, 0):
        shown = images(count, 1, *shape)
        mask = torch.ones_like(shown)
        fills = (blurred, drawn_in, colour_around, mean_colour)
        for fill in (*fills, noise(shown, draw), shuffled(shown, draw)):
            made = filled(shown, mask, fill)
            assert made.shape == shown.shape
            assert bool(torch.isfinite(made).all())


def test_noise_has_the_images_mean_and_spread():
    shown = 0.3 + 0.2 * images(1, 3, 64, 64)
    made = noise(shown, torch.Generator().manual_seed(1))(shown, shown[:, :1])
    torch.testing.assert_close(made.mean((2, 3)), shown.mean((2, 3)), atol=0.01, rtol=0)
    torch.testing.assert_close(made.std((2, 3)), shown.std((2, 3)), atol=0.01, rtol=0)


def test_shuffled_pixels_are_the_images_own():
    shown = images()
    made = shuffled(shown, torch.Generator().manual_seed(1))(shown, shown[:, :1])
    assert not torch.equal(made, shown)
    assert torch.equal(made.flatten(2).sort(2).values, shown.flatten(2).sort(2).values)


def test_a_blur_is_as_wide_on_a_larger_image():
    point, large = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 64, 64)
    point[..., 16, 16], large[..., 32, 32] = 1.0, 1.0
    # Twice the side: a quarter of the height, twice as far.
    small, wide = blur(point, 2.0), blur(large, 2.0)
    assert float(wide.max()) == pytest.approx(float(small.max()) / 4, rel=0.02)
    share = float(wide[..., 32, 36] / wide.max())
    assert share == pytest.approx(float(small[..., 16, 18] / small.max()), rel=0.02)
