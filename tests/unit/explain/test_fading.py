# SPDX-License-Identifier: Apache-2.0
"""Wiping a region out step by step, and what scores say in probabilities."""

import numpy as np
import torch

from lancet_onnx.explain import AMOUNTS, faded, probabilities
from lancet_onnx.pairs.fills import blurred, filled


def test_the_first_step_is_the_image_and_the_last_its_companion():
    draw = torch.Generator().manual_seed(1)
    pixels, masks = torch.rand((3, 2, 6, 9), generator=draw), torch.zeros(3, 1, 6, 9)
    masks[:, :, 2:4, 3:7] = torch.rand((3, 1, 2, 4), generator=draw)
    steps = faded(pixels, masks)
    assert steps.shape == (3, len(AMOUNTS), 2, 6, 9)
    assert torch.equal(steps[:, 0], pixels)
    assert torch.equal(steps[:, -1], filled(pixels, masks, blurred))
    assert torch.equal(steps[..., :2, :], pixels[:, None, :, :2].expand_as(steps[..., :2, :]))
    # Each step goes the same part of the way.
    ways = (steps - pixels[:, None])[:, 1:] / torch.tensor(AMOUNTS[1:])[:, None, None, None]
    torch.testing.assert_close(ways, ways[:, -1:].expand_as(ways), rtol=0, atol=1e-5)


def test_amounts_go_from_nothing_to_all_in_even_steps():
    assert (AMOUNTS[0], AMOUNTS[-1], len(AMOUNTS)) == (0.0, 1.0, 11)
    np.testing.assert_allclose(np.diff(AMOUNTS), 0.1)


def test_logits_become_probabilities_and_probabilities_stay():
    logits = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]], np.float32)
    shares = probabilities(logits)
    np.testing.assert_allclose(shares, [[0.25, 0.75], [1.0, 0.0]], atol=1e-6)
    assert probabilities(shares) is shares


def test_scores_that_only_look_like_probabilities_in_part_are_logits():
    for scores in ([[0.5, 0.5], [2.0, 0.0]], [[1.5, -0.5]], [[0.2, 0.2]]):
        shares = probabilities(np.array(scores, np.float32))
        np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-6)
        raised = np.exp(np.array(scores))
        np.testing.assert_allclose(shares, raised / raised.sum(1, keepdims=True), atol=1e-6)
