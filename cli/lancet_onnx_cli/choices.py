# SPDX-License-Identifier: Apache-2.0
"""The words that options take, beside those of the library."""

from __future__ import annotations

from typing import Literal

Format = Literal["text", "json", "html"]
"""Forms of a report."""

Method = Literal["auto", "flip", "mute"]
"""What is done to located weights; auto takes what measured best: flip."""

Color = Literal["rgb", "bgr"]
Layout = Literal["nchw", "nhwc"]
Resize = Literal["squash", "shortest"]
