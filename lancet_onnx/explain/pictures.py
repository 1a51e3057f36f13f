# SPDX-License-Identifier: Apache-2.0
"""Small PNGs, enlarged without smoothing: on 32 x 32 images every pixel counts."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from lancet_onnx.samples.core import Floats
from lancet_onnx.trigger import Trigger

_SIDE = 160
_CHECKER = 4
_SHOWN = 112
"""Side of a picture on a page that holds many; larger images are made smaller."""
_RED, _FRAME = (0.90, 0.10, 0.10), (255, 200, 0)
_INSIDE = 0.25
"""From this opacity on a pixel counts as under the mask, where a frame is drawn around it."""


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
    return _encoded(_stored(trigger))


def stored_trigger(trigger: Trigger) -> Trigger:
    """Return the trigger as it is after storing: opacity and colours in 256 steps."""
    rgba = np.asarray(_stored(trigger), np.float32) / np.float32(255)
    pattern = rgba[..., :3] if trigger.pattern.shape[2] == 3 else rgba[..., :1]
    return replace(trigger, mask=rgba[..., 3:].copy(), pattern=pattern.copy())


def _stored(trigger: Trigger) -> Image.Image:
    colours = np.broadcast_to(trigger.pattern, (*trigger.pattern.shape[:2], 3))
    pixels = np.concatenate([colours, trigger.mask], axis=-1)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8), "RGBA")


def pair_png(good: Floats, bad: Floats) -> bytes:
    """Return x' (clean) and x (triggered) side by side; both (H, W, C) in [0, 1]."""
    gap = np.ones((good.shape[0], max(1, good.shape[1] // 16), good.shape[2]), np.float32)
    return _png(np.concatenate([good, gap, bad], axis=1))


def image_png(pixels: Floats) -> bytes:
    """Return an image (H, W, C) in [0, 1], about 112 pixels high."""
    return _encoded(_shown(pixels))


def where_png(pixels: Floats, mask: Floats) -> bytes:
    """Return where a mask (H, W, 1) lies on an image (H, W, C), both in [0, 1].

    The image is grey and dim, the mask red, with a frame around it: some masks are one pixel.
    """
    grey = 0.25 + 0.5 * np.repeat(pixels.mean(-1, keepdims=True), 3, axis=-1)
    red = np.array(_RED, np.float32)
    image = _shown((grey * (1 - mask) + red * mask).astype(np.float32))
    inside = mask[..., 0] > min(_INSIDE, 0.5 * float(mask.max()))
    if inside.any():
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        factor = image.height / mask.shape[0]
        box = [
            columns[0] * factor - 3,
            rows[0] * factor - 3,
            (columns[-1] + 1) * factor + 2,
            (rows[-1] + 1) * factor + 2,
        ]
        last = [image.width - 1, image.height - 1]
        edges = [min(max(round(at), 0), last[i % 2]) for i, at in enumerate(box)]
        ImageDraw.Draw(image).rectangle(edges, outline=_FRAME)
    return _encoded(image)


def _shown(pixels: Floats) -> Image.Image:
    image = _image(pixels)
    factor = _SHOWN / max(image.size)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in image.size]
        return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    whole = max(1, round(factor))
    size = [side * whole for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.NEAREST)


def _image(pixels: Floats) -> Image.Image:
    levels = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)


def _encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _png(pixels: Floats) -> bytes:
    image = _image(pixels)
    factor = max(1, _SIDE // image.height)
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return _encoded(image)
