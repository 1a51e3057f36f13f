# SPDX-License-Identifier: Apache-2.0
"""Pictures that show what was found: triggers, pairs, what a class looks like, fading regions."""

from lancet_onnx.explain.choosing import Chosen, choose, in_turn
from lancet_onnx.explain.fading import AMOUNTS, faded, probabilities
from lancet_onnx.explain.features import Features, contribution, visualise
from lancet_onnx.explain.pictures import image_png, pair_png, trigger_png, where_png

__all__ = [
    "AMOUNTS",
    "Chosen",
    "Features",
    "choose",
    "contribution",
    "faded",
    "image_png",
    "in_turn",
    "pair_png",
    "probabilities",
    "trigger_png",
    "visualise",
    "where_png",
]
