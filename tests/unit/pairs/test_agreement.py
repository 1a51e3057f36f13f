# SPDX-License-Identifier: Apache-2.0
"""How far searches agree: by what their triggers change, wherever and however strongly."""

import pytest
import torch

from lancet_onnx.pairs.agreement import agreement
from lancet_onnx.pairs.reconstruct import Found

GREY = torch.full((3, 1, 1), 0.4)


def found(mask: torch.Tensor, pattern: torch.Tensor) -> Found:
    count = len(mask)
    return Found(torch.arange(count), *torch.zeros(3, count), mask, pattern)


def at(*squares: tuple[int, float], opacity: float = 1.0) -> Found:
    """One class for each square: which corner, and its colour."""
    mask = torch.zeros(len(squares), 1, 8, 8)
    pattern = torch.rand(len(squares), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for c, (corner, colour) in enumerate(squares):
        top, left = divmod(corner, 2)
        where = (c, slice(None), slice(5 * top, 5 * top + 3), slice(5 * left, 5 * left + 3))
        mask[where], pattern[where] = opacity, colour
    return found(mask, pattern)


def test_the_same_trigger_agrees_however_faint_it_is():
    assert agreement([at((0, 1.0))], [at((0, 1.0), opacity=0.3)], GREY)[0] == pytest.approx(1.0)


def test_triggers_in_other_places_do_not_agree():
    assert agreement([at((0, 1.0))], [at((3, 1.0))], GREY)[0] == pytest.approx(0.0, abs=1e-6)


def test_opposite_colours_in_one_place_disagree():
    assert agreement([at((0, 1.0))], [at((0, 0.0))], GREY)[0] == pytest.approx(-1.0)


def test_what_a_mask_does_not_cover_says_nothing():
    one, other = at((0, 1.0)), at((0, 1.0))
    other.pattern[:, :, 5:] = 0.9
    assert agreement([one], [other], GREY)[0] == pytest.approx(1.0)


def test_classes_are_compared_by_themselves_and_pairs_of_searches_averaged():
    ones = [at((0, 1.0), (1, 1.0)), at((0, 1.0), (1, 1.0))]
    others = [at((0, 1.0), (1, 1.0)), at((0, 1.0), (2, 1.0))]
    assert agreement(ones, others, GREY) == pytest.approx({0: 1.0, 1: 0.5})


def test_a_trigger_of_nothing_agrees_with_none():
    nothing = found(torch.zeros(1, 1, 8, 8), torch.rand(1, 3, 8, 8))
    assert agreement([nothing], [at((0, 1.0))], GREY) == {0: 0.0}
