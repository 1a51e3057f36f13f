# SPDX-License-Identifier: Apache-2.0
"""Control patches: what any patch of the trigger's size, place and energy does.

A large patch hides the object and moves labels by itself; only what the trigger does beyond its
controls is evidence of a backdoor.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lancet_onnx.samples.core import Floats
from lancet_onnx.trigger import Trigger

ALIKE = 0.05
"""Patterns that differ less than this per pixel, on average, are the same pattern."""


def control_triggers(trigger: Trigger, count: int, seed: int) -> list[Trigger]:
    """Return `count` patches with the trigger's mask and mode but patterns of their own.

    In turn: the trigger's pixels in another order, its negative in another order, noise, and one
    plain colour; the latter two with the same mean squared distance from grey (added patterns:
    from zero) as the trigger has. One that would equal the trigger is drawn in another way.
    """
    rng = np.random.default_rng(seed)
    touched = np.broadcast_to(trigger.mask, trigger.pattern.shape).max(axis=-1) > 0
    if trigger.mode == "add":
        touched &= np.abs(trigger.pattern).max(axis=-1) > 0
    kinds = (_shuffled, _negative, _noise, _plain)
    controls = []
    for number in range(count):
        inside = trigger.pattern[touched]
        middle = np.float32(0.0 if trigger.mode == "add" else 0.5)
        pattern = np.zeros_like(trigger.pattern)
        # A plain trigger stays what it is in any order: such a control would be the trigger.
        for kind in (kinds[number % len(kinds)], _negative, _noise):
            pattern[touched] = kind(inside, middle, rng)
            if np.abs(pattern - trigger.pattern)[touched].mean() > ALIKE:
                break
        controls.append(replace(trigger, pattern=pattern, source=f"control {number}"))
    return controls


def _shuffled(inside: Floats, _middle: np.float32, rng: np.random.Generator) -> Floats:
    shuffled: Floats = inside[rng.permutation(len(inside))][:, rng.permutation(inside.shape[1])]
    return shuffled


def _negative(inside: Floats, middle: np.float32, rng: np.random.Generator) -> Floats:
    return np.subtract(2 * middle, _shuffled(inside, middle, rng), dtype=np.float32)


def _noise(inside: Floats, middle: np.float32, rng: np.random.Generator) -> Floats:
    energy = np.sqrt(np.mean((inside - middle) ** 2))
    signs = rng.choice(np.array([-1, 1], np.float32), size=inside.shape)
    noise: Floats = (middle + energy * signs).astype(np.float32)
    return noise


def _plain(inside: Floats, middle: np.float32, rng: np.random.Generator) -> Floats:
    energy = np.sqrt(np.mean((inside - middle) ** 2))
    direction = rng.normal(size=inside.shape[1])
    direction *= energy * np.sqrt(inside.shape[1]) / np.linalg.norm(direction)
    return np.broadcast_to((middle + direction).astype(np.float32), inside.shape)
