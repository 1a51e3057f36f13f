# SPDX-License-Identifier: Apache-2.0
"""Control patches: the trigger's place and energy, never the trigger itself."""

import numpy as np
import pytest

from lancet_onnx.pairs.controls import ALIKE, control_triggers
from lancet_onnx.trigger import Trigger


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["replace", "add"])
@pytest.mark.parametrize("plain", [True, False])
def test_controls_keep_the_place_and_differ_from_the_trigger(channels: int, mode: str, plain: bool):
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 8, 1), np.float32)
    mask[5:, 5:] = 1
    pattern = np.zeros((8, 8, channels), np.float32)
    pattern[5:, 5:] = 1.0 if plain else rng.random((3, 3, channels)).round()
    trigger = Trigger(mask, pattern, mode, "t")
    controls = control_triggers(trigger, 12, seed=1)
    assert len(controls) == 12
    for control in controls:
        assert control.mask is trigger.mask
        assert control.mode == trigger.mode
        inside = np.abs(control.pattern - pattern)[5:, 5:]
        assert inside.mean() > ALIKE or not plain
        assert not control.pattern[:5].any()
    again = control_triggers(trigger, 12, seed=1)
    assert all((a.pattern == b.pattern).all() for a, b in zip(controls, again, strict=True))
