# SPDX-License-Identifier: Apache-2.0
"""Pixels in [0, 1] -> what a model takes: scale, mean, standard deviation, colour order, layout."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.errors import DataError
from lancet_onnx.samples.core import Floats

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How pixels become inputs: ``(pixel * scale - mean) / std``, channels and axes in order.

    Attributes:
        name: preset or file that this came from.
        scale: 1 keeps pixels in [0, 1]; 255 gives the values of 8-bit pictures.
        mean: one number a channel, or one for all.
        std: likewise.
        color: ``rgb`` or ``bgr``.
        layout: ``nchw`` or ``nhwc``.
        passthrough: the images are already in the model's own form (``none``).
    """

    name: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    color: str = "rgb"
    layout: str = "nchw"
    passthrough: bool = False

    def __str__(self) -> str:
        if self.passthrough:
            return self.name
        extra = [
            f"{label} {value}"
            for label, value, usual in (
                ("color", self.color, "rgb"),
                ("layout", self.layout, "nchw"),
            )
            if value != usual
        ]
        return ", ".join([self.name, *extra])

    def apply(self, pixels: Floats) -> Floats:
        """Return model inputs for pixels (N, H, W, C) in [0, 1]; float32.

        Raises:
            DataError: mean or std has neither one number nor one a channel.
        """
        if self.passthrough:
            return pixels
        channels = pixels.shape[-1]
        mean, std = (self._per_channel(values, channels) for values in (self.mean, self.std))
        if self.color == "bgr" and channels == 3:
            pixels = pixels[..., ::-1]
        inputs = (pixels * np.float32(self.scale) - mean) / std
        if self.layout == "nchw":
            inputs = inputs.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(inputs, np.float32)

    def _per_channel(self, values: tuple[float, ...], channels: int) -> Floats:
        if channels == 1 and len(values) == 3:
            return np.array([float(np.dot(_LUMA, values))], np.float32)
        if len(values) not in (1, channels):
            raise DataError(
                f"preprocessing '{self.name}' has {len(values)} means or deviations for images of "
                f"{channels} channels; give one, or one a channel"
            )
        return np.array(values, np.float32)


PRESETS: Mapping[str, Preprocess] = {
    p.name: p
    for p in (
        Preprocess("unit"),
        Preprocess("minus1to1", mean=(0.5,), std=(0.5,)),
        Preprocess("imagenet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        Preprocess("uint8", scale=255.0),
        Preprocess("none", passthrough=True),
    )
}
"""The named preprocessings; ``none`` takes float32 inputs in the model's own form."""


def named(value: str) -> Preprocess:
    """Return the preset called `value`, or what the TOML or JSON file of that name says.

    Raises:
        DataError: neither.
    """
    if value in PRESETS:
        return PRESETS[value]
    path = Path(value)
    if path.suffix in (".toml", ".json") and path.is_file():
        return from_file(path)
    raise DataError(
        f"preprocessing '{value}' is neither a file (.toml or preprocessor_config.json) nor one of "
        + ", ".join(PRESETS)
    )


def from_file(path: Path) -> Preprocess:
    """Read a TOML with scale, mean, std, color, layout; a Hugging Face or timm JSON.

    Raises:
        DataError: unreadable, or a value that is not of the kind expected.
    """
    try:
        text = path.read_text()
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as preprocessing ({error})") from error
    found = from_mapping(content, str(path)) if isinstance(content, dict) else None
    if found is None:
        raise DataError(
            f"{path}: no preprocessing in this file; expected scale, mean, std, color, layout "
            "(TOML) or image_mean, image_std (preprocessor_config.json)"
        )
    return found


def from_mapping(content: object, name: str) -> Preprocess | None:
    """Interpret our own keys, Hugging Face's or timm's; None where there are none of them."""
    if not isinstance(content, Mapping):  # what JSON holds need not be an object
        return None
    if "pretrained_cfg" in content and isinstance(content["pretrained_cfg"], dict):
        content = content["pretrained_cfg"]
    if "image_mean" in content or "rescale_factor" in content:
        rescaled = bool(content.get("do_rescale", True))
        factor = _number(content.get("rescale_factor", 1 / 255), name) if rescaled else 1.0
        normalised = bool(content.get("do_normalize", "image_mean" in content))
        mean = _numbers(content.get("image_mean", [0.0]), name) if normalised else (0.0,)
        std = _numbers(content.get("image_std", [1.0]), name) if normalised else (1.0,)
        return _divisible(Preprocess(name, factor * 255, mean, std))
    known = {"scale", "mean", "std", "color", "layout"}
    if not known & content.keys():
        return None
    result = Preprocess(name, scale=_number(content.get("scale", 1.0), name))
    result = replace(
        result,
        mean=_numbers(content.get("mean", [0.0]), name),
        std=_numbers(content.get("std", [1.0]), name),
        color=_choice(content.get("color", "rgb"), ("rgb", "bgr"), name),
        layout=_choice(content.get("layout", "nchw"), ("nchw", "nhwc"), name),
    )
    return _divisible(result)


def _divisible(preprocess: Preprocess) -> Preprocess:
    if 0 in preprocess.std:
        raise DataError(f"{preprocess.name}: a standard deviation of 0")
    return preprocess


def _number(value: object, name: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise DataError(f"{name}: expected a number, found {value!r}")


def _numbers(value: object, name: str) -> tuple[float, ...]:
    if isinstance(value, (list, tuple)) and value:
        return tuple(_number(item, name) for item in value)
    return (_number(value, name),)


def _choice(value: object, choices: tuple[str, ...], name: str) -> str:
    if isinstance(value, str) and value.lower() in choices:
        return value.lower()
    raise DataError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")


def to_channels(image: NDArray[np.generic], channels: int) -> Floats:
    """Return a picture (H, W, C) in [0, 1] with 1 or 3 channels; grey by luma."""
    pixels = image.astype(np.float32)
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 1 and pixels.shape[-1] == 3:
        return (pixels @ _LUMA)[..., None].astype(np.float32)
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, channels, axis=-1)
    raise DataError(f"a picture of {pixels.shape[-1]} channels cannot serve a model of {channels}")
