# SPDX-License-Identifier: Apache-2.0
"""Trigger pictures: what they mean by their form, and what they do to pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lancet_onnx.errors import DataError
from lancet_onnx.samples import Samples
from lancet_onnx.trigger import Trigger, read_trigger


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(array.astype(np.uint8), mode).save(path) if mode is None else Image.fromarray(
        array.astype(np.uint8)
    ).convert(mode).save(path)
    return path


def rgba(height: int, width: int, alpha: int = 255) -> np.ndarray:
    picture = np.zeros((height, width, 4), np.uint8)
    picture[..., :3] = (255, 51, 0)
    picture[..., 3] = alpha
    return picture


def samples(pixels: np.ndarray, *, raw: bool = False) -> Samples:
    return Samples(pixels, np.zeros(len(pixels), np.int64), raw, "test")


def test_alpha_is_the_mask(tmp_path: Path):
    picture = rgba(4, 6, 0)
    picture[1, 2, 3] = 255
    trigger = read_trigger(save(tmp_path / "t.png", picture), (4, 6, 3))
    assert trigger.mode == "replace"
    assert trigger.mask.shape == (4, 6, 1)
    assert np.argwhere(trigger.mask[..., 0]).tolist() == [[1, 2]]
    np.testing.assert_allclose(trigger.pattern[1, 2], [1, 0.2, 0], atol=1e-6)
    assert trigger.coverage == 1 / 24


def test_half_opacity_blends(tmp_path: Path):
    trigger = read_trigger(save(tmp_path / "t.png", rgba(4, 6, 102)), (4, 6, 3))
    assert trigger.mode == "blend"
    np.testing.assert_allclose(trigger.mask, 0.4, atol=1e-6)
    assert trigger.coverage == 1


@pytest.mark.parametrize(
    ("position", "rows", "columns"),
    [(None, [2, 3], [3, 4, 5]), ((0, 0), [0, 1], [0, 1, 2]), ((1, 2), [2, 3], [1, 2, 3])],
)
def test_a_smaller_picture_replaces_the_patch_at_its_place(tmp_path: Path, position, rows, columns):
    path = save(tmp_path / "t.png", rgba(2, 3)[..., :3])
    trigger = read_trigger(path, (4, 6, 3), position=position)
    assert trigger.mode == "replace"
    expected = np.zeros((4, 6), bool)
    expected[np.ix_(rows, columns)] = True
    np.testing.assert_array_equal(trigger.mask[..., 0] == 1, expected)
    np.testing.assert_array_equal(trigger.pattern[..., 0] == 1, expected)
    assert trigger.coverage == 6 / 24


def test_a_full_picture_without_alpha_is_added(tmp_path: Path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[0, 0] = 51
    trigger = read_trigger(save(tmp_path / "t.png", picture), (4, 6, 3))
    assert trigger.mode == "add"
    assert trigger.coverage == 1 / 24
    np.testing.assert_array_equal(trigger.mask, 1)


def test_a_mask_picture_overrides(tmp_path: Path):
    path = save(tmp_path / "t.png", rgba(4, 6)[..., :3])
    grey = np.zeros((4, 6), np.uint8)
    grey[0, 0], grey[1, 1] = 255, 51
    mask = save(tmp_path / "m.png", grey)
    trigger = read_trigger(path, (4, 6, 3), mask=mask)
    assert trigger.mode == "blend"
    assert trigger.mask[0, 0, 0] == 1
    assert trigger.mask[1, 1, 0] == pytest.approx(0.2)
    assert trigger.coverage == 2 / 24
    added = read_trigger(path, (4, 6, 3), mask=mask, mode="add")
    assert added.mode == "add"
    assert added.coverage == 2 / 24


def test_a_mode_overrides(tmp_path: Path):
    path = save(tmp_path / "t.png", rgba(2, 3)[..., :3])
    assert read_trigger(path, (4, 6, 3), mode="add").mode == "add"
    assert read_trigger(path, (4, 6, 3), mode="blend").mode == "blend"


def test_a_grey_model_sees_the_brightness_of_a_coloured_trigger(tmp_path: Path):
    trigger = read_trigger(save(tmp_path / "t.png", rgba(4, 6)), (4, 6, 1), mode="replace")
    assert trigger.pattern.shape == (4, 6, 1)
    np.testing.assert_allclose(trigger.pattern, 0.299 + 0.587 * 0.2, atol=1e-5)


def test_a_grey_trigger_serves_a_coloured_model(tmp_path: Path):
    path = save(tmp_path / "t.png", np.full((2, 2), 102, np.uint8))
    trigger = read_trigger(path, (4, 6, 3))
    np.testing.assert_allclose(trigger.pattern[2:, 4:], 0.4, atol=1e-6)


def test_a_palette_with_transparency_has_alpha(tmp_path: Path):
    image = Image.new("P", (6, 4), 0)
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.putpixel((5, 3), 1)
    image.save(tmp_path / "t.png", transparency=0)
    trigger = read_trigger(tmp_path / "t.png", (4, 6, 3))
    assert np.argwhere(trigger.mask[..., 0]).tolist() == [[3, 5]]
    np.testing.assert_array_equal(trigger.pattern[3, 5], 1)


def test_an_npz_for_inputs_that_are_no_pictures(tmp_path: Path):
    mask = np.array([0, 1, 0.5], np.float32)
    np.savez(tmp_path / "t.npz", mask=mask, pattern=np.array([9, 9, 9]))
    trigger = read_trigger(tmp_path / "t.npz", (3,), raw=True)
    assert trigger.mode == "replace"
    stamped = trigger.stamp(samples(np.array([[1, 2, 3]], np.float32), raw=True))
    np.testing.assert_allclose(stamped.images, [[1, 9, 6]])
    added = read_trigger(tmp_path / "t.npz", (3,), raw=True, mode="add")
    stamped = added.stamp(samples(np.array([[1, 2, 3]], np.float32), raw=True))
    np.testing.assert_allclose(stamped.images, [[1, 11, 7.5]])


def test_an_npz_is_broadcast_to_the_input(tmp_path: Path):
    np.savez(tmp_path / "t.npz", mask=np.ones((2, 2)), pattern=np.full((3, 1, 1), 0.5))
    trigger = read_trigger(tmp_path / "t.npz", (3, 2, 2), raw=True)
    assert trigger.pattern.shape == trigger.mask.shape == (3, 2, 2)


def one_pixel(mask: float, pattern: float, mode: str) -> Trigger:
    return Trigger(
        np.full((1, 1, 1), mask, np.float32), np.full((1, 1, 1), pattern, np.float32), mode, "t"
    )


@pytest.mark.parametrize(
    ("mode", "mask", "pattern", "pixel", "expected"),
    [
        ("replace", 1.0, 0.8, 0.3, 0.8),
        ("replace", 0.0, 0.8, 0.3, 0.3),
        ("blend", 0.25, 0.8, 0.4, 0.5),
        ("add", 1.0, 0.2, 0.3, 0.5),
        ("add", 0.5, 0.2, 0.3, 0.4),
        ("add", 1.0, 0.8, 0.3, 1.0),
        ("add", 1.0, -0.8, 0.3, 0.0),
    ],
)
def test_stamped_pixels(mode: str, mask: float, pattern: float, pixel: float, expected: float):
    before = samples(np.full((2, 1, 1, 1), pixel, np.float32))
    after = one_pixel(mask, pattern, mode).stamp(before)
    np.testing.assert_allclose(after.images, expected, atol=1e-6)
    assert after.images.dtype == np.float32
    np.testing.assert_allclose(before.images, np.float32(pixel))


def test_stamping_eight_bit_pixels_keeps_labels_and_the_rest():
    images = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    before = Samples(images, np.array([4, 7]), False, "s", ("a", "b"))
    mask = np.zeros((2, 2, 1), np.float32)
    mask[0, 1] = 1
    trigger = Trigger(mask, np.full((2, 2, 3), 0.5, np.float32), "replace", "t")
    after = trigger.stamp(before)
    expected = images.astype(np.float32) / 255
    expected[:, 0, 1] = 0.5
    np.testing.assert_allclose(after.pixels, expected, atol=1e-7)
    assert after.labels.tolist() == [4, 7]
    assert (after.classes, after.source, after.raw) == (("a", "b"), "s", False)


def test_raw_inputs_are_not_clipped():
    after = one_pixel(1.0, 5.0, "add").stamp(
        samples(np.full((1, 1, 1, 1), -3, np.float32), raw=True)
    )
    assert after.images.item() == 2.0
    assert after.raw


def refuse(match: str, path: Path, shape=(4, 6, 3), **options: object) -> None:
    with pytest.raises(DataError, match=match):
        read_trigger(path, shape, **options)


def test_refusals(tmp_path: Path):
    full = save(tmp_path / "full.png", rgba(4, 6)[..., :3])
    small = save(tmp_path / "small.png", rgba(2, 3)[..., :3])
    refuse("6 x 5 pixels, larger than the model's 6 x 4", save(tmp_path / "b.png", rgba(5, 6)))
    refuse("would hide the whole image in mode 'replace'", full, mode="replace")
    refuse("would hide the whole image in mode 'blend'", full, mode="blend")
    refuse("at position 4,0 the trigger leaves", small, position=(4, 0))
    refuse("at position -1,0 the trigger leaves", small, position=(-1, 0))
    refuse("the trigger is empty", save(tmp_path / "clear.png", rgba(4, 6, 0)))
    refuse("the trigger is empty", save(tmp_path / "black.png", np.zeros((4, 6, 3))))
    refuse("the mask is 6 x 4 pixels, the trigger 3 x 2", small, mask=full)
    refuse("no such picture", tmp_path / "none.png")
    refuse("a trigger is an .npz", small, raw=True)
    (tmp_path / "text.png").write_text("no picture")
    refuse("not a picture", tmp_path / "text.png")


@pytest.mark.parametrize(
    ("arrays", "cause"),
    [
        ({"mask": np.ones(3)}, "not an .npz with mask and pattern"),
        ({"mask": np.ones(4), "pattern": np.ones(3)}, "do not fit inputs of"),
        ({"mask": np.ones(3), "pattern": np.array([1, np.nan, 1])}, "NaN"),
        ({"mask": np.array([np.inf, 1, 1]), "pattern": np.ones(3)}, "NaN or infinity"),
        ({"mask": np.zeros(3), "pattern": np.ones(3)}, "empty"),
        ({"mask": np.array(["a"] * 3), "pattern": np.ones(3)}, "do not fit"),
        ({"mask": np.array([None] * 3), "pattern": np.ones(3)}, "not an .npz"),
    ],
)
def test_refused_npz(tmp_path: Path, arrays: dict[str, np.ndarray], cause: str):
    np.savez(tmp_path / "t.npz", **arrays)
    refuse(cause, tmp_path / "t.npz", (3,), raw=True)


def test_damaged_npz_are_refused(tmp_path: Path):
    np.save(tmp_path / "t.npy", np.ones(3))
    np.savez_compressed(tmp_path / "z.npz", mask=np.arange(300.0), pattern=np.arange(300.0))
    whole = bytearray((tmp_path / "z.npz").read_bytes())
    whole[80:120] = bytes(40)
    for content in (b"", b"PK\x03\x04", (tmp_path / "t.npy").read_bytes(), bytes(whole)):
        (tmp_path / "t.npz").write_bytes(content)
        refuse("not an .npz with mask", tmp_path / "t.npz", (300,), raw=True)
