# SPDX-License-Identifier: Apache-2.0
"""The words that options take."""

from __future__ import annotations

from enum import Enum
from typing import Literal


class Format(str, Enum):
    """Forms of a report."""

    text = "text"
    json = "json"
    html = "html"


class Method(str, Enum):
    """What is done to located weights; auto takes what measured best: flip."""

    auto = "auto"
    flip = "flip"
    mute = "mute"


class Color(str, Enum):
    """Channel order."""

    rgb = "rgb"
    bgr = "bgr"


class Layout(str, Enum):
    """Axis order."""

    nchw = "nchw"
    nhwc = "nhwc"


class Resize(str, Enum):
    """How a picture of another size is fitted."""

    squash = "squash"
    shortest = "shortest"


class Mode(str, Enum):
    """How a trigger is stamped."""

    replace = "replace"
    blend = "blend"
    add = "add"

    value: Literal["replace", "blend", "add"]


class Device(str, Enum):
    """Where onnxruntime runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"

    value: Literal["auto", "cpu", "cuda"]
