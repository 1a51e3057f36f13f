# SPDX-License-Identifier: Apache-2.0
"""A trigger: mask, pattern and mode, and how it is stamped on images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lancet_onnx.errors import DataError
from lancet_onnx.samples import Samples
from lancet_onnx.samples.core import Floats
from lancet_onnx.samples.preprocess import to_channels
from lancet_onnx.samples.reading import NPZ_ERRORS, picture

Mode = Literal["replace", "blend", "add"]


@dataclass(frozen=True, slots=True, eq=False)
class Trigger:
    """What an attacker puts on an image.

    Attributes:
        mask: (H, W, 1) opacity in [0, 1]; for raw inputs of the input's own shape.
        pattern: (H, W, C) in [0, 1]; for raw inputs of the input's own shape.
        mode: ``replace`` and ``blend`` mix by the mask, ``add`` adds the pattern where the mask is.
        source: where it came from, for messages and reports.
    """

    mask: Floats
    pattern: Floats
    mode: Mode
    source: str

    @property
    def coverage(self) -> float:
        """Share of the image that the trigger touches, 0 to 1."""
        touched = self.mask * np.abs(self.pattern) if self.mode == "add" else self.mask
        return float((touched.max(axis=-1) > 0).mean())

    def stamp(self, samples: Samples) -> Samples:
        """Return the samples with the trigger on them; labels stay the true ones.

        Pixels are kept in [0, 1]; raw inputs are not clipped, since their range is unknown.
        """
        pixels = samples.pixels
        if self.mode == "add":
            stamped = pixels + self.mask * self.pattern
        else:
            stamped = pixels * (1 - self.mask) + self.pattern * self.mask
        if not samples.raw:
            stamped = stamped.clip(0, 1)
        images = stamped.astype(np.float32)
        return replace(samples, images=images)


def read_trigger(
    path: Path,
    shape: tuple[int, ...],
    *,
    raw: bool = False,
    mask: Path | None = None,
    mode: Mode | None = None,
    position: tuple[int, int] | None = None,
) -> Trigger:
    """Read a trigger picture, or an npz with `mask` and `pattern` for inputs that are no pictures.

    With an alpha channel, alpha is the mask's opacity; without, and smaller than the input, the
    picture replaces the patch at `position` (left, top; default bottom-right); without, and of the
    input's size, it is added. `mask` and `mode` override.

    Args:
        path: the picture or npz.
        shape: (H, W, C) of the images; with `raw` the shape of one model input.
        raw: images are in the model's own form, so the trigger must be an npz.
        mask: a grey picture of the trigger's size: its brightness is the opacity.
        mode: how to stamp, instead of what the picture implies.
        position: where a picture smaller than the input goes.

    Raises:
        DataError: unreadable, of the wrong size, or with nothing in it.
    """
    if path.suffix == ".npz":
        trigger = _from_npz(path, shape, mode)
    elif raw:
        raise DataError(
            f"{path}: with --preprocess none a trigger is an .npz with mask and pattern of the "
            f"input's shape {shape}, since a picture's pixels have no meaning there"
        )
    else:
        trigger = _from_picture(path, shape, mask, mode, position)
    if trigger.coverage == 0:
        raise DataError(f"{path}: the trigger is empty (no pixel has any opacity)")
    return trigger


def _from_npz(path: Path, shape: tuple[int, ...], mode: Mode | None) -> Trigger:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            mask, pattern = archive["mask"], archive["pattern"]
    except NPZ_ERRORS as error:
        raise DataError(f"{path}: not an .npz with mask and pattern ({error})") from error
    try:
        mask = np.broadcast_to(mask.astype(np.float32), shape)
        pattern = np.broadcast_to(pattern.astype(np.float32), shape)
    except ValueError:
        raise DataError(
            f"{path}: mask {mask.shape} and pattern {pattern.shape} do not fit inputs of {shape}"
        ) from None
    if not (np.isfinite(mask).all() and np.isfinite(pattern).all()):
        raise DataError(f"{path}: mask or pattern hold NaN or infinity")
    if mask.min() < 0 or mask.max() > 1:
        raise DataError(f"{path}: the mask is an opacity and must lie between 0 and 1")
    return Trigger(mask, pattern, mode or "replace", str(path))


def _from_picture(
    path: Path,
    shape: tuple[int, ...],
    mask_path: Path | None,
    mode: Mode | None,
    position: tuple[int, int] | None,
) -> Trigger:
    height, width, channels = shape
    stored = picture(path, "")
    has_alpha = "A" in stored.getbands() or "transparency" in stored.info
    rgba = np.asarray(stored.convert("RGBA"), np.float32) / np.float32(255)
    pattern, opacity = rgba[..., :3], rgba[..., 3:]
    if pattern.shape[0] > height or pattern.shape[1] > width:
        raise DataError(
            f"{path}: the trigger is {pattern.shape[1]} x {pattern.shape[0]} pixels, larger than "
            f"the model's {width} x {height} images; give it in the images' own pixels"
        )
    full = pattern.shape[:2] == (height, width)
    if mask_path is not None:
        grey = np.asarray(picture(mask_path, "L"), np.float32)[..., None] / np.float32(255)
        if grey.shape[:2] != pattern.shape[:2]:
            raise DataError(
                f"{mask_path}: the mask is {grey.shape[1]} x {grey.shape[0]} pixels, the trigger "
                f"{pattern.shape[1]} x {pattern.shape[0]}; they must be of one size"
            )
        opacity, has_alpha = grey, True
    if mode is None:
        if has_alpha:
            mode = "replace" if set(np.unique(opacity)) <= {0.0, 1.0} else "blend"
        else:
            mode = "add" if full else "replace"
    if mode != "add" and full and not has_alpha:
        raise DataError(
            f"{path}: a picture of the input's size without transparency would hide the whole "
            f"image in mode '{mode}'; give it an alpha channel, or a --mask"
        )
    left, top = position or (width - pattern.shape[1], height - pattern.shape[0])
    if not (0 <= left <= width - pattern.shape[1] and 0 <= top <= height - pattern.shape[0]):
        raise DataError(f"{path}: at position {left},{top} the trigger leaves the image")
    place = np.s_[top : top + pattern.shape[0], left : left + pattern.shape[1]]
    whole_mask = np.zeros((height, width, 1), np.float32)
    whole = np.zeros((height, width, channels), np.float32)
    whole_mask[place] = opacity
    whole[place] = to_channels(pattern, channels)
    return Trigger(whole_mask, whole, mode, str(path))
