# SPDX-License-Identifier: Apache-2.0
"""Pixels on which a trigger is drawn: the way into the model, variants of images, and triggers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import flat

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.samples import PRESETS, Preprocess, Samples

UNIT = PRESETS["unit"]
RAW = Preprocess("none", passthrough=True)


def samples_of(shape: tuple[int, ...], count: int = 12, *, raw: bool = False) -> Samples:
    images = np.random.default_rng(3).random((count, *shape)).astype(np.float32)
    return Samples(5 * images - 2 if raw else images, None, raw, "noise")


def canvas_of(
    folder: Path, shape: tuple[int, int, int], preprocess: Preprocess = UNIT, count: int = 12
) -> Canvas:
    """A canvas of noise; `shape` is (H, W, C)."""
    height, width, channels = shape
    inner = (channels, height, width) if preprocess.layout == "nchw" else shape
    return Canvas.of(flat(folder, inner), samples_of(shape, count), preprocess)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "preprocess",
    [
        UNIT,
        PRESETS["imagenet"],
        PRESETS["uint8"],
        replace(PRESETS["imagenet"], color="bgr"),
        replace(PRESETS["imagenet"], layout="nhwc"),
        replace(PRESETS["imagenet"], color="bgr", layout="nhwc"),
    ],
    ids=str,
)
def test_pixels_become_inputs_as_preprocessing_says(
    tmp_path: Path, preprocess: Preprocess, channels: int
):
    shape = (5, 7, channels)
    canvas = canvas_of(tmp_path, shape, preprocess)
    pixels = samples_of(shape).pixels
    wanted = preprocess.apply(pixels)
    made = canvas.inputs(canvas.pixels)
    np.testing.assert_allclose(made.numpy(), wanted, rtol=1e-5, atol=2e-5)
    logits = canvas.classifier.logits(canvas.classifier.tensor(wanted))
    torch.testing.assert_close(canvas.logits(canvas.pixels), logits, rtol=1e-4, atol=1e-3)
    assert torch.equal(canvas.labels, logits.argmax(1))


@pytest.mark.parametrize("shape", [(6,), (3, 4), (4, 4, 3), (2, 3, 4, 2)])
def test_raw_inputs_come_back_from_their_own_range(tmp_path: Path, shape: tuple[int, ...]):
    samples = samples_of(shape, raw=True)
    canvas = Canvas.of(flat(tmp_path, shape), samples, RAW)
    assert canvas.layout == ""
    assert canvas.pixels.shape == (12, 1, 1, int(np.prod(shape)))
    assert float(canvas.pixels.min()) == 0.0
    assert float(canvas.pixels.max()) == 1.0
    np.testing.assert_allclose(canvas.inputs(canvas.pixels).numpy(), samples.images, atol=1e-5)


def test_raw_inputs_of_one_value_are_no_division_by_zero(tmp_path: Path):
    samples = Samples(np.full((4, 6), 3.0, np.float32), None, True, "constant")
    canvas = Canvas.of(flat(tmp_path, (6,)), samples, RAW)
    assert torch.isfinite(canvas.inputs(canvas.pixels)).all()
    np.testing.assert_allclose(canvas.inputs(canvas.pixels).numpy(), samples.images, atol=1e-5)


@pytest.mark.parametrize("preprocess", [replace(PRESETS["imagenet"], color="bgr"), RAW], ids=str)
def test_gradients_pass_to_the_pixels(tmp_path: Path, preprocess: Preprocess):
    raw = preprocess.passthrough
    shape = (3, 5, 7) if not raw else (105,)
    samples = samples_of((5, 7, 3) if not raw else shape, 2, raw=raw)
    canvas = Canvas.of(flat(tmp_path, shape), samples, preprocess)
    name = canvas.classifier.signature.logits
    pixels = canvas.pixels.clone().requires_grad_()
    (scores,) = canvas.run(pixels, [name])
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), pixels)
    step = 1e-2 * torch.randn(pixels.shape)
    (moved,) = canvas.run(canvas.pixels + step, [name])
    expected = (gradient * step).sum((1, 2, 3))
    torch.testing.assert_close(moved[:, 1] - scores[:, 1].detach(), expected, rtol=1e-2, atol=1e-3)


def test_the_same_value_may_be_asked_for_twice(tmp_path: Path):
    canvas = canvas_of(tmp_path, (4, 4, 1))
    name = canvas.classifier.signature.logits
    first, second = canvas.run(canvas.pixels, [name, name])
    assert torch.equal(first, second)
    assert first.shape == (12, 4)


def test_a_part_keeps_images_and_labels_together(tmp_path: Path):
    canvas = canvas_of(tmp_path, (4, 4, 1))
    part = canvas.take(slice(3, 8))
    assert torch.equal(part.pixels, canvas.pixels[3:8])
    assert torch.equal(part.labels, canvas.labels[3:8])
    assert torch.equal(part.logits(part.pixels).argmax(1), part.labels)


SHAPES = [(8, 8, 3), (5, 9, 1), (9, 5, 3), (1, 1, 1), (2, 2, 1), (3, 2, 1), (30, 30, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 5, 6, 24, 31])
def test_variants_keep_shape_and_range(tmp_path: Path, shape: tuple[int, int, int], count: int):
    canvas = canvas_of(tmp_path, shape)
    made = canvas.varied(count, torch.Generator().manual_seed(0))
    assert made.shape == (count, *canvas.pixels.shape[1:])
    assert float(made.min()) >= 0.0
    assert float(made.max()) <= 1.0


@pytest.mark.parametrize("shape", [(8, 8, 3), (5, 9, 1), (30, 30, 1)])
def test_variants_are_the_generators(tmp_path: Path, shape: tuple[int, int, int]):
    canvas = canvas_of(tmp_path, shape)
    first, again, other = (
        canvas.varied(24, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_most_images_are_varied_and_keep_their_pixels(tmp_path: Path):
    canvas = canvas_of(tmp_path, (8, 8, 1))
    before = canvas.pixels.clone()
    made = canvas.varied(60, torch.Generator().manual_seed(4))
    originals = {image.numpy().tobytes() for image in canvas.pixels}
    same = [image.numpy().tobytes() in originals for image in made]
    # Ten of each kind: as they are, flipped, turned, moved, shuffled and mixed.
    assert all(same[:10])
    assert not any(same[20:30] + same[40:60])
    pixels = {np.sort(image.numpy(), axis=None).tobytes() for image in canvas.pixels}
    moved = [np.sort(image.numpy(), axis=None).tobytes() in pixels for image in made]
    assert all(moved[:50])
    assert not any(moved[50:])
    assert torch.equal(canvas.pixels, before)


def test_shuffling_leaves_what_no_tile_covers(tmp_path: Path):
    canvas = canvas_of(tmp_path, (30, 30, 1), count=1)
    shuffled = canvas.varied(60, torch.Generator().manual_seed(5))[40:50]
    assert torch.equal(shuffled[..., 28:], canvas.pixels[..., 28:].expand(10, -1, -1, -1))
    assert torch.equal(shuffled[:, :, 28:], canvas.pixels[:, :, 28:].expand(10, -1, -1, -1))
    assert not torch.equal(
        shuffled[..., :28, :28], canvas.pixels[..., :28, :28].expand(10, 1, -1, -1)
    )


def test_raw_inputs_are_not_varied(tmp_path: Path):
    canvas = Canvas.of(flat(tmp_path, (16,)), samples_of((16,), raw=True), RAW)
    originals = {row.numpy().tobytes() for row in canvas.pixels}
    made = canvas.varied(24, torch.Generator().manual_seed(0))
    assert {row.numpy().tobytes() for row in made} <= originals


@pytest.mark.parametrize("preprocess", [UNIT, replace(PRESETS["imagenet"], color="bgr"),
                                        replace(UNIT, layout="nhwc")], ids=str)  # fmt: skip
def test_a_drawn_trigger_stamps_as_it_did_on_the_canvas(tmp_path: Path, preprocess: Preprocess):
    shape = (5, 7, 3)
    canvas = canvas_of(tmp_path, shape, preprocess)
    mask, pattern = torch.rand(1, 5, 7), torch.rand(3, 5, 7)
    trigger = canvas.trigger(mask, pattern, "blend", "drawn")
    assert trigger.mask.shape == (5, 7, 1)
    assert trigger.pattern.shape == shape
    assert (trigger.mode, trigger.source) == ("blend", "drawn")
    stamped = preprocess.apply(trigger.stamp(samples_of(shape)).pixels)
    drawn = canvas.inputs(canvas.pixels * (1 - mask) + pattern * mask).numpy()
    np.testing.assert_allclose(drawn, stamped, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["blend", "add"])
def test_a_trigger_for_raw_inputs_is_in_their_range(tmp_path: Path, mode):
    samples = samples_of((3, 4), raw=True)
    canvas = Canvas.of(flat(tmp_path, (3, 4)), samples, RAW)
    mask, pattern = torch.rand(1, 1, 12), torch.rand(1, 1, 12)
    trigger = canvas.trigger(mask, pattern, mode, "drawn")
    base = canvas.pixels if mode == "add" else canvas.pixels * (1 - mask)
    drawn = canvas.inputs(base + pattern * mask).numpy()
    np.testing.assert_allclose(trigger.stamp(samples).images, drawn, rtol=1e-5, atol=1e-5)
