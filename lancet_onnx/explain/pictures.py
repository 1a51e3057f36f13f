# SPDX-License-Identifier: Apache-2.0
"""Small PNGs, enlarged without smoothing: on 32 x 32 images every pixel counts."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from lancet_onnx.samples.core import Floats
from lancet_onnx.trigger import Trigger

_SIDE = 160
_CHECKER = 4


def trigger_png(trigger: Trigger) -> bytes:
    """Return the trigger on a chequered ground that shows where it is transparent."""
    height, width = trigger.pattern.shape[:2]
    rows, columns = np.indices((height, width))
    ground = np.where((rows // _CHECKER + columns // _CHECKER) % 2, 0.62, 0.78)[..., None]
    ground = np.repeat(ground, trigger.pattern.shape[2], axis=2).astype(np.float32)
    if trigger.mode == "add":
        return _png(np.clip(ground * 0.6 + trigger.mask * trigger.pattern, 0, 1))
    return _png(ground * (1 - trigger.mask) + trigger.pattern * trigger.mask)


def mask_png(trigger: Trigger) -> bytes:
    """Return the mask's opacity as grey, black where nothing of the trigger is."""
    return _png(trigger.mask.max(axis=-1, keepdims=True))


def stored_png(trigger: Trigger) -> bytes:
    """Return the trigger in its own pixels, the opacity as alpha, as `read_trigger` takes it."""
    stream = io.BytesIO()
    _stored(trigger).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def stored_trigger(trigger: Trigger) -> Trigger:
    """Return the trigger as it is after storing: opacity and colours in 256 steps."""
    rgba = np.asarray(_stored(trigger), np.float32) / np.float32(255)
    pattern = rgba[..., :3] if trigger.pattern.shape[2] == 3 else rgba[..., :1]
    return replace(trigger, mask=rgba[..., 3:].copy(), pattern=pattern.copy())


def _stored(trigger: Trigger) -> Image.Image:
    colours = np.broadcast_to(trigger.pattern, (*trigger.pattern.shape[:2], 3))
    pixels = np.concatenate([colours, trigger.mask], axis=-1)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8), "RGBA")


def image_png(pixels: Floats) -> bytes:
    """Return one image (H, W, C) in [0, 1]."""
    return _png(pixels)


def pair_png(good: Floats, bad: Floats) -> bytes:
    """Return x' (clean) and x (triggered) side by side; both (H, W, C) in [0, 1]."""
    gap = np.ones((good.shape[0], max(1, good.shape[1] // 16), good.shape[2]), np.float32)
    return _png(np.concatenate([good, gap, bad], axis=1))


def _png(pixels: Floats) -> bytes:
    levels = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    factor = max(1, _SIDE // image.height)
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
