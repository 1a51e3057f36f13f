# SPDX-License-Identifier: Apache-2.0
"""A found trigger as a file: what was judged is what is read back."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lancet_onnx.explain.pictures import (
    image_png,
    mask_png,
    stored_png,
    stored_trigger,
    where_png,
)
from lancet_onnx.trigger import Trigger, read_trigger


def drawn(channels: int, *, shape: tuple[int, int] = (9, 13)) -> Trigger:
    rng = np.random.default_rng(6)
    mask = rng.random((*shape, 1)).astype(np.float32)
    mask[0] = 0.0
    mask[1] = 1.0
    pattern = rng.random((*shape, channels)).astype(np.float32)
    return Trigger(mask, pattern, "blend", "free")


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_stored_is_what_is_read(tmp_path: Path, channels: int):
    trigger = drawn(channels)
    path = tmp_path / "trigger.png"
    path.write_bytes(stored_png(trigger))
    read = read_trigger(path, (9, 13, channels))
    stored = stored_trigger(trigger)
    assert read.mode == stored.mode == "blend"
    assert stored.source == "free"
    np.testing.assert_allclose(read.mask, stored.mask, atol=1e-6)
    np.testing.assert_allclose(read.pattern, stored.pattern, atol=1e-6)
    assert stored.pattern.shape == (9, 13, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_storing_rounds_to_the_nearest_of_256_steps_once(channels: int):
    trigger = drawn(channels)
    stored = stored_trigger(trigger)
    for before, after in ((trigger.mask, stored.mask), (trigger.pattern, stored.pattern)):
        assert np.abs(before - after).max() <= 0.5 / 255 + 1e-6
        assert not np.array_equal(before, after)
    again = stored_trigger(stored)
    assert np.array_equal(again.mask, stored.mask)
    assert np.array_equal(again.pattern, stored.pattern)
    assert stored_png(stored) == stored_png(trigger)


def test_colours_under_a_transparent_mask_are_kept(tmp_path: Path):
    trigger = drawn(3)
    path = tmp_path / "trigger.png"
    path.write_bytes(stored_png(trigger))
    read = read_trigger(path, (9, 13, 3))
    assert not read.mask[0].any()
    np.testing.assert_allclose(read.pattern[0], trigger.pattern[0], atol=0.5 / 255 + 1e-6)


def test_values_out_of_range_are_cut_not_wrapped():
    trigger = drawn(1)
    wild = Trigger(trigger.mask * 3 - 1, trigger.pattern * 3 - 1, "blend", "free")
    stored = stored_trigger(wild)
    np.testing.assert_allclose(stored.mask, np.clip(wild.mask, 0, 1), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(stored.pattern, np.clip(wild.pattern, 0, 1), atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("columns", [1, 3])
def test_a_mask_is_shown_as_grey_by_its_largest_opacity(columns: int):
    mask = np.zeros((20, 20, columns), np.float32)
    mask[:10, :, -1] = 1.0
    trigger = Trigger(mask, np.zeros((20, 20, 3), np.float32), "blend", "free")
    shown = Image.open(io.BytesIO(mask_png(trigger)))
    assert shown.mode == "L"
    assert shown.size == (160, 160)
    pixels = np.asarray(shown)
    assert (pixels[:80] == 255).all()
    assert (pixels[80:] == 0).all()


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


@pytest.mark.parametrize(
    ("shape", "size"),
    [((28, 28, 1), (112, 112)), ((32, 32, 3), (128, 128)), ((8, 8, 1), (112, 112)),
     ((9, 13, 3), (117, 81)), ((100, 60, 3), (60, 100)), ((224, 448, 3), (112, 56)),
     ((1, 500, 1), (112, 1))],
)  # fmt: skip
def test_images_are_shown_about_112_pixels_large(
    shape: tuple[int, int, int], size: tuple[int, int]
):
    pixels = np.random.default_rng(1).random(shape).astype(np.float32)
    image = opened(image_png(pixels))
    assert image.size == size
    assert image.mode == ("L" if shape[2] == 1 else "RGB")
    assert opened(where_png(pixels, pixels[..., :1])).size == size


def test_small_images_keep_every_pixel():
    pixels = np.random.default_rng(1).random((14, 14, 3)).astype(np.float32)
    shown = np.asarray(opened(image_png(pixels)), np.float32) / 255
    for part in (shown[::8, ::8], shown[7::8, 7::8]):
        np.testing.assert_allclose(part, pixels, atol=0.5 / 255 + 1e-6)


def test_a_region_is_red_and_framed_on_a_grey_image():
    mask = np.zeros((28, 28, 1), np.float32)
    mask[10, 20] = 1.0
    shown = np.asarray(opened(where_png(np.full((28, 28, 3), 0.4, np.float32), mask)))
    assert shown[42, 82].tolist() == [230, 26, 26]
    red = (shown[..., 0] == 230).sum()
    assert red == 16, "one pixel, four by four"
    frame = (shown == (255, 200, 0)).all(-1)
    rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
    assert rows.min() < 40 < 43 < rows.max() < 50
    assert columns.min() < 80 < 83 < columns.max() < 90
    grey = shown[~frame & (shown[..., 0] != 230)]
    assert (grey == grey[:, :1]).all()


@pytest.mark.parametrize("at", [(0, 0), (27, 27), (0, 27)])
def test_a_frame_stays_inside_the_image(at: tuple[int, int]):
    mask = np.zeros((28, 28, 1), np.float32)
    mask[at] = 0.3
    shown = np.asarray(opened(where_png(np.zeros((28, 28, 1), np.float32), mask)))
    assert 20 < (shown == (255, 200, 0)).all(-1).sum() < 60


def test_an_empty_mask_has_no_frame():
    empty = np.zeros((8, 8, 1), np.float32)
    shown = np.asarray(opened(where_png(empty, empty)))
    assert (shown == shown[0, 0]).all()
