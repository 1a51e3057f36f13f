# SPDX-License-Identifier: Apache-2.0
"""Many triggers to one class, and the pairs that a repair learns from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SIDE, pictures, planted

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.natural import natural
from lancet_onnx.pairs.union import KINDS, Stamp, stamped_pairs, union
from lancet_onnx.samples import PRESETS
from lancet_onnx.samples.core import Ints

CLASSES, TARGET = 4, 2


@pytest.fixture
def canvas(tmp_path: Path) -> Canvas:
    return Canvas.of(planted(tmp_path, CLASSES, TARGET), pictures(CLASSES, 5), PRESETS["unit"])


def dots(count: int) -> list[Stamp]:
    """Stamps of one pixel each: stamp i is white at column i of the last row."""
    made = []
    for number in range(count):
        mask = torch.zeros(1, SIDE, SIDE)
        mask[0, -1, number] = 1.0
        made.append(Stamp(f"dot {number}", mask, torch.ones(1, SIDE, SIDE)))
    return made


def which(bad: np.ndarray, good: np.ndarray) -> list[list[int]]:
    """Columns of the last row where the stamped image is not the clean one."""
    return [np.flatnonzero((b != g)[0, -1]).tolist() for b, g in zip(bad, good, strict=True)]


def test_sets_hold_one_trigger_of_each_kind(canvas: Canvas, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lancet_onnx.pairs.union.STEPS", 40)
    heard: list[float] = []
    sets = union(
        canvas, natural(canvas, 0), TARGET, 2, 0, progress=lambda _, share: heard.append(share)
    )
    assert [[s.kind for s in group] for group in sets] == [[k.name for k in KINDS]] * 2
    for stamp in (s for group in sets for s in group):
        hit = canvas.logits(stamp.on(canvas.pixels)).argmax(1) == TARGET
        assert float(hit.float().mean()) > 0.9, stamp.kind
    assert not torch.equal(sets[0][0].mask, sets[1][0].mask)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_strong_triggers_lead_by_more_than_cheap_ones(
    canvas: Canvas, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lancet_onnx.pairs.union.STEPS", 60)
    (group,) = union(canvas, natural(canvas, 0), TARGET, 1, 0)
    own = {s.kind: canvas.logits(s.on(canvas.pixels))[:, TARGET].mean() for s in group}
    assert own["strong"] > own["cheap"]


def test_triggers_of_a_union_are_the_seeds(canvas: Canvas, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lancet_onnx.pairs.union.STEPS", 3)
    usual = natural(canvas, 0)
    first, again, other = (union(canvas, usual, TARGET, 1, seed)[0][0] for seed in (0, 0, 9))
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.mask, other.mask)


@pytest.mark.parametrize("true", [None, np.arange(20, dtype=np.int64) % 3])
def test_pairs_say_what_is_wrong_and_what_is_right(canvas: Canvas, true: Ints | None):
    made = stamped_pairs(canvas, dots(3), TARGET, true, 2, 0)
    assert len(made) == 2 * 20
    assert (made.wrong == TARGET).all()
    rows = {image.tobytes(): i for i, image in enumerate(canvas.pixels.numpy())}
    source = [rows[image.tobytes()] for image in made.good]
    assert sorted(source) == sorted([*range(20)] * 2)
    own = canvas.labels.numpy() if true is None else true
    assert np.array_equal(made.right, own[source])
    assert source != sorted(source)


def test_every_stamp_is_used_and_none_twice_on_an_image(canvas: Canvas):
    made = stamped_pairs(canvas, dots(5), TARGET, None, 2, 0)
    found = which(made.bad, made.good)
    assert all(len(columns) == 1 for columns in found)
    assert {column for columns in found for column in columns} == set(range(5))
    by_image: dict[bytes, list[int]] = {}
    for image, columns in zip(made.good, found, strict=True):
        by_image.setdefault(image.tobytes(), []).extend(columns)
    assert all(len(set(columns)) == len(columns) == 2 for columns in by_image.values())


def test_an_image_gets_no_more_stamps_than_there_are(canvas: Canvas):
    assert len(stamped_pairs(canvas, dots(1), TARGET, None, 2, 0)) == 20
    assert len(stamped_pairs(canvas, dots(3), TARGET, None, 99, 0)) == 60


def test_pairs_are_in_the_models_own_form(tmp_path: Path):
    classifier = planted(tmp_path, CLASSES, TARGET)
    canvas = Canvas.of(classifier, pictures(CLASSES, 5), PRESETS["minus1to1"])
    made = stamped_pairs(canvas, dots(1), TARGET, None, 1, 0)
    wanted = PRESETS["minus1to1"].apply(pictures(CLASSES, 5).pixels)
    rows = {np.round(image, 4).tobytes() for image in wanted}
    assert {np.round(image, 4).tobytes() for image in made.good} == rows
    assert (made.bad[:, 0, -1, 0] == 1.0).all()
    assert (made.bad[:, 0, -1, 1:] == made.good[:, 0, -1, 1:]).all()


def test_a_trigger_read_from_a_file_goes_where_the_images_are():
    images = torch.zeros(2, 1, SIDE, SIDE, device="meta")
    (stamp,) = dots(1)
    assert stamp.on(images).device == images.device
    white = stamp.on(torch.zeros(2, 1, SIDE, SIDE))
    assert white.sum() == 2
    assert (white[:, 0, -1, 0] == 1).all()


def test_pairs_are_the_seeds(canvas: Canvas):
    first, again, other = (stamped_pairs(canvas, dots(5), TARGET, None, 2, s) for s in (0, 0, 1))
    assert np.array_equal(first.bad, again.bad)
    assert not np.array_equal(first.bad, other.bad)
