# SPDX-License-Identifier: Apache-2.0
"""What is said of classes by what a search found; here that is given."""

from pathlib import Path

import pytest
import torch
from tiny import SIDE, pictures, planted

from lancet_onnx.api.suspects import Scored, showing, triggers_of
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.hunt import SOURCE, Hunt
from lancet_onnx.pairs.reconstruct import Found
from lancet_onnx.samples import PRESETS
from lancet_onnx.verify.searching import BOUNDS

CLASSES, TARGET = 4, 2


@pytest.fixture
def canvas(tmp_path: Path) -> Canvas:
    """Images of a model that a bright corner leads to the target."""
    return Canvas.of(planted(tmp_path, CLASSES, TARGET), pictures(CLASSES, 5), PRESETS["unit"])


def trigger(cost: float, *, works: bool) -> Found:
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., -2:, -2:] = float(works)
    numbers = torch.tensor([cost])
    return Found(torch.tensor([TARGET]), numbers, numbers, numbers, mask, torch.ones_like(mask))


def first(canvas: Canvas, **found: Found) -> tuple[int | None, list[str]]:
    costs = {form: float(each.cost) for form, each in found.items()}
    hunted = Hunt(found, {TARGET: 1}, (), (), 0)
    source, triggers = triggers_of(TARGET, costs, hunted, canvas)
    return source, [each.source for each in triggers]


@pytest.mark.parametrize(
    ("free", "window", "order"),
    [
        ((0.05, True), (0.02, True), ["window", "free"]),
        ((0.05, True), (0.02, False), ["free", "window"]),
        ((0.05, False), (0.02, False), ["window", "free"]),
        ((0.01, True), (0.23, False), ["free", "window"]),
    ],
)
def test_the_cheapest_trigger_that_works_comes_first(
    canvas: Canvas, free: tuple[float, bool], window: tuple[float, bool], order: list[str]
):
    made = {
        form: trigger(cost, works=works)
        for form, (cost, works) in (("free", free), ("window", window))
    }
    assert first(canvas, **made) == (None, order)


def test_a_trigger_for_one_class_is_alone(canvas: Canvas):
    cheap, dear = trigger(0.001, works=False), trigger(0.06, works=True)
    assert first(canvas, free=dear, **{SOURCE: cheap}) == (1, [SOURCE])
    assert first(canvas, free=cheap, **{SOURCE: dear}) == (None, ["free"])


def test_what_is_said_of_a_suspect_is_of_the_trigger_that_is_shown():
    found = {form: trigger(cost, works=True) for form, cost in (("free", 0.05), ("window", 0.01))}
    costs = {0: {"free": 0.5}, TARGET: {"free": 0.05, "window": 0.01}}
    other = {"score": 0.1, "stray": 0.0}
    seen = Scored({0: other, TARGET: {"score": 23.5, "stray": 0.19, "cost_free": 0.05}}, costs)
    assert seen.others(TARGET) == [0.1]
    told = showing("free", TARGET, seen, Hunt(found, {}, (), (), 0))
    assert told[0] == other
    assert told[TARGET] == {
        "score": pytest.approx(0.9 * BOUNDS["free"] / 0.05),
        "stray": 0.19,
        "cost_free": 0.05,
        "coverage": 0.05,
        "alikeness": 0.05,
    }
