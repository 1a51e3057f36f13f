# SPDX-License-Identifier: Apache-2.0
"""Forms of a mask: what their numbers look like."""

import pytest
import torch

from lancet_onnx.pairs.hunt import FORMS
from lancet_onnx.pairs.masks import BLOB, FREE, WINDOW, Form, begin, opacity

CPU = torch.device("cpu")


def started(form: Form, height: int = 12, width: int = 16, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return begin(form, 3, height, width, draw, CPU)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("size", [(12, 16), (5, 5), (1, 20)])
def test_masks_are_opacities_that_pass_gradients(form: Form, size: tuple[int, int]):
    numbers = started(form, *size).requires_grad_()
    shown = opacity(form, numbers, *size)
    assert shown.shape == (3, 1, *size)
    assert 0 <= shown.detach().min() <= shown.detach().max() <= 1
    shown.sum().backward()
    assert torch.isfinite(numbers.grad).all()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_searches_start_elsewhere(form: Form):
    first, again, other = started(form), started(form), started(form, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_a_free_mask_has_a_number_for_each_pixel():
    numbers = torch.full((1, 1, 4, 4), -9.0)
    numbers[0, 0, 1, 2] = 9.0
    shown = opacity(FREE, numbers, 4, 4)[0, 0]
    assert float(shown[1, 2]) > 0.99
    assert float(shown.sum() - shown[1, 2]) < 0.01


def test_a_blob_is_round_a_number():
    numbers = torch.full((1, 1, 15, 15), -9.0)
    numbers[0, 0, 7, 7] = 300.0
    shown = opacity(BLOB, numbers, 15, 15)[0, 0]
    inside = torch.zeros(15, 15, dtype=torch.bool)
    inside[5:10, 5:10] = True
    assert float(shown[inside].min()) > 0.9
    assert float(shown[~inside].max()) < 0.01


def test_a_window_is_one_rectangle():
    # The middle of the upper half, a quarter of the height and nearly all of the width.
    half = torch.logit(torch.tensor([0.125, 0.5]) / 0.55)
    middle = torch.logit(torch.tensor([0.25, 0.5])) / 2
    numbers = torch.stack([middle, half], -1)[None, None]
    shown = opacity(WINDOW, numbers, 32, 32)[0, 0]
    rows, columns = shown[:, 16], shown[8]
    assert float(rows[6:10].min()) > 0.9
    assert float(rows[:2].max()) < 0.1
    assert float(rows[14:].max()) < 0.1
    assert float(columns[2:-2].min()) > 0.85
    assert float(shown.mean()) == pytest.approx(0.25, abs=0.03)


def test_a_window_begins_over_most_of_the_image():
    assert float(opacity(WINDOW, started(WINDOW, 32, 32), 32, 32).mean()) > 0.5
    assert float(opacity(FREE, started(FREE, 32, 32), 32, 32).mean()) < 0.3


def test_a_window_of_raw_inputs_is_a_stretch():
    half = torch.logit(torch.tensor([0.3, 0.1]) / 0.55)
    numbers = torch.stack([torch.zeros(2), half], -1)[None, None]
    shown = opacity(WINDOW, numbers, 1, 40)[0, 0, 0]
    assert float(shown[20]) > 0.9
    assert float(shown[:12].max()) < 0.05
