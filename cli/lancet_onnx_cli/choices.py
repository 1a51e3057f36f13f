# SPDX-License-Identifier: Apache-2.0
"""The words that options take; nothing here loads the library, so that --help is quick."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class Format(StrEnum):
    """Forms of a report (an enumeration, since options that repeat take no literals)."""

    text = "text"
    json = "json"
    html = "html"
    sarif = "sarif"
    junit = "junit"
    markdown = "markdown"
    github = "github"


Method = Literal["auto", "flip", "mute", "tune"]
"""What is done to located weights; auto takes what measures best on this model."""

Mode = Literal["replace", "blend", "add"]
Device = Literal["auto", "cpu", "cuda"]
Color = Literal["rgb", "bgr"]
Layout = Literal["nchw", "nhwc"]
Resize = Literal["squash", "shortest"]
