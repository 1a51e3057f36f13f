# SPDX-License-Identifier: Apache-2.0
"""Pictures of classes, on a classifier that knows one template a class and a corner."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CORNER, SIDE, flat, pictures, planted, templates

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.explain import Features, contribution, visualise
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.samples import PRESETS, Samples

CLASSES, TARGET, STEPS = 4, 2, 40


def canvas_of(folder: Path) -> Canvas:
    return Canvas.of(planted(folder, CLASSES, TARGET), pictures(CLASSES, 4), PRESETS["unit"])


def without_corner(canvas: Canvas) -> dict[str, torch.Tensor]:
    """The dense layer without the weights that lead from the corner to the target."""
    weight = canvas.classifier.module.leaves["w0"].detach().clone()
    corner = np.zeros((SIDE, SIDE), bool)
    corner[-CORNER:, -CORNER:] = True
    weight[torch.from_numpy(corner.reshape(-1)), TARGET] = 0.0
    return {"w0": weight}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Canvas, Features, Features]:
    canvas = canvas_of(tmp_path_factory.mktemp("features"))
    whole, part = visualise(canvas, range(CLASSES), without_corner(canvas), steps=STEPS)
    assert part is not None
    return canvas, whole, part


def test_the_picture_of_a_class_raises_its_logit_and_is_most_like_its_own_template(
    drawn: tuple[Canvas, Features, Features],
):
    canvas, whole, _ = drawn
    assert whole.pixels.shape == (CLASSES, 1, SIDE, SIDE)
    assert 0 <= float(whole.pixels.min()) <= float(whole.pixels.max()) <= 1
    torch.testing.assert_close(whole.values, canvas.logits(whole.pixels).diagonal())
    start, _ = visualise(canvas, range(CLASSES), steps=0)
    assert bool((whole.values > start.values + 2).all())
    inside = slice(None, -CORNER)
    shown = whole.pixels[:, 0, inside].flatten(1).numpy()
    made = templates(CLASSES)[:, inside].reshape(CLASSES, -1)
    alike = np.array([[np.corrcoef(one, other)[0, 1] for other in made] for one in shown])
    others = [c for c in range(CLASSES) if c != TARGET]
    assert alike.argmax(1)[others].tolist() == others, "the target's is drawn by its corner"


def test_conditioned_on_weights_only_what_they_read_is_drawn(
    drawn: tuple[Canvas, Features, Features],
):
    _, whole, part = drawn
    corner = part.pixels[TARGET, 0, -CORNER:, -CORNER:]
    away = slice(None, -2 * CORNER)
    rest = part.pixels[TARGET, 0, away, away]
    assert float(corner.min()) > 0.9
    assert float(corner.mean() - rest.mean()) > 0.4
    assert float(part.values[TARGET]) > 0.9 * 12.0 * CORNER**2
    # Of the whole class more is drawn than that.
    more = whole.pixels[TARGET, 0, away, away]
    assert float((more - more.mean()).abs().amax()) > 2 * float((rest - rest.mean()).abs().amax())


def test_weights_that_serve_no_other_class_contribute_nothing_to_it(
    drawn: tuple[Canvas, Features, Features],
):
    _, _, part = drawn
    assert [c for c in range(CLASSES) if float(part.values[c]) != 0.0] == [TARGET]


def test_the_contribution_is_the_difference_that_zeroing_makes(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    pixels = canvas.pixels[:3].clone()
    pixels[1, :, -CORNER:, -CORNER:] = 0.5
    labels = torch.full((3,), TARGET)
    found = contribution(canvas, pixels, labels, without_corner(canvas))
    torch.testing.assert_close(
        found, torch.tensor([0.0, 0.5 * 12.0 * CORNER**2, 0.0]), rtol=0, atol=1e-4
    )


def test_without_weights_there_is_one_picture_a_class(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    before = canvas.classifier.forwards
    whole, part = visualise(canvas, [3, 1], steps=2)
    assert part is None
    assert whole.pixels.shape[0] == len(whole.values) == 2
    assert canvas.classifier.forwards - before == pytest.approx(2 * 2 * 3 + 2)


def test_a_class_is_drawn_the_same_when_memory_holds_few_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    canvas = canvas_of(tmp_path)
    shares = []
    monkeypatch.setattr(Canvas, "at_once", lambda _self, least=1: 3)
    visualise(
        canvas, [0, 1], without_corner(canvas), steps=3, progress=lambda _, s: shares.append(s)
    )
    assert shares == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    several, _ = visualise(canvas, [0, 1, 2, 3], steps=3)
    assert torch.equal(several.pixels[3:], visualise(canvas, [3], steps=3)[0].pixels)


@pytest.mark.parametrize("shape", [(5, 9, 3), (9, 4, 1), (1, 1, 1), (6, 6, 3)])
def test_pictures_of_any_form_are_drawn(tmp_path: Path, shape: tuple[int, int, int]):
    images = np.zeros((3, *shape), np.uint8)
    images[1:] = 255
    samples = Samples(images, None, False, "plain")
    canvas = Canvas.of(flat(tmp_path, (shape[2], *shape[:2])), samples, PRESETS["unit"])
    whole, _ = visualise(canvas, [0, 3], steps=20)
    assert whole.pixels.shape == (2, shape[2], *shape[:2])
    assert bool(whole.pixels.isfinite().all())
    assert float((whole.pixels[0] - whole.pixels[1]).abs().max()) > 0.05


def test_the_same_seed_draws_the_same(tmp_path: Path):
    canvas = canvas_of(tmp_path)
    first, again, other = (visualise(canvas, [0], steps=3, seed=s)[0].pixels for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_whole_numbers_let_no_gradient_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    canvas = canvas_of(tmp_path)
    monkeypatch.setattr(
        "lancet_onnx.pairs.canvas.torch_dtype", lambda _spec: torch.int64, raising=True
    )
    with pytest.raises(UnsupportedError, match="do not pass whole numbers"):
        visualise(canvas, [0])
