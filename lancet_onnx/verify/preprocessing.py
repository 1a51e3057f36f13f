# SPDX-License-Identifier: Apache-2.0
"""Which preprocessing a model wants: told, recorded beside it, or refused with what was tried.

A behavioural check fed with the wrong mean or channel order gives confident nonsense, so nothing
is scanned before the model answers sensibly on labelled images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lancet_onnx.errors import DataError
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.samples import PRESETS, Preprocess, Samples
from lancet_onnx.samples.preprocess import from_file, from_mapping
from lancet_onnx.verify.metrics import Rate

METADATA_KEY = "lancet.preprocess"
_TRIED = 400
_BETTER = 0.05


@dataclass(frozen=True, slots=True)
class Trial:
    """How well one preprocessing did on the data."""

    preprocess: Preprocess
    accuracy: Rate

    def __str__(self) -> str:
        return f"{self.preprocess} {self.accuracy.value:.1%}"


def recorded(path: Path, metadata: Mapping[str, str]) -> Preprocess | None:
    """Return the preprocessing noted in the model or in a config file beside it."""
    noted = metadata.get(METADATA_KEY)
    if noted:
        try:
            found = PRESETS.get(noted) or from_mapping(json.loads(noted), f"{path.name} metadata")
        except ValueError:
            found = None
        if found is None:
            raise DataError(
                f"{path}: its metadata '{METADATA_KEY}' says {noted!r}, which is neither a preset "
                f"({', '.join(PRESETS)}) nor JSON with mean and std; give --preprocess"
            )
        return found
    for name in ("preprocessor_config.json", "config.json"):
        beside = path.parent / name
        if beside.is_file():
            try:
                return from_file(beside)
            except DataError:
                if name == "preprocessor_config.json":
                    raise
    return None


def resolve(
    model: OrtModel,
    samples: Samples,
    chosen: Preprocess | None,
    layout: str,
    source: str,
) -> Preprocess:
    """Return the preprocessing to use, checked on labelled samples.

    Args:
        model: the unrepaired model.
        samples: images; labels make the check possible.
        chosen: what the user asked for, or what was found in or beside the model.
        layout: ``nchw`` or ``nhwc``, from the model's input shape.
        source: the model's name for messages.

    Raises:
        DataError: nothing told or noted; near chance; or another usual one is clearly better.
    """
    if chosen is not None and not chosen.passthrough:
        chosen = replace(chosen, layout=layout)
    if samples.raw:
        return chosen or PRESETS["none"]
    if chosen is None:
        raise DataError(
            f"{source}: how images must be prepared is not known; give --preprocess. "
            + _tried(trials(model, samples, layout))
        )
    if samples.labels is None:
        return chosen
    own = _trial(model, samples, chosen)
    chance = np.bincount(samples.labels).max() / len(samples)
    others = [t for t in trials(model, samples, layout) if t.preprocess != chosen]
    best = max(others, key=lambda t: t.accuracy.value, default=own)
    clearly = best.accuracy.value - own.accuracy.value > _BETTER and best.accuracy.low > (
        own.accuracy.value
    )
    if clearly:
        raise DataError(
            f"{source}: preprocessing '{chosen}' gives a clean accuracy of only "
            f"{own.accuracy.value:.1%}; '{best.preprocess}' gives {best.accuracy.value:.1%}. "
            f"Give --preprocess {_flags(best.preprocess)}. " + _tried([own, *others])
        )
    if own.accuracy.high <= chance * 1.5 or own.accuracy.value <= chance:
        raise DataError(
            f"{source}: clean accuracy is {own.accuracy.value:.1%} with preprocessing '{chosen}', "
            f"near chance ({chance:.1%}); are the labels in the model's order, and is the "
            "preprocessing right? " + _tried([own, *others])
        )
    return chosen


def trials(model: OrtModel, samples: Samples, layout: str) -> list[Trial]:
    """Return how every usual preprocessing does, best first; without labels the list is empty."""
    if samples.labels is None or samples.raw:
        return []
    variants = [
        replace(preset, layout=layout, color=color)
        for preset in PRESETS.values()
        if not preset.passthrough
        for color in (("rgb", "bgr") if samples.images.shape[-1] == 3 else ("rgb",))
    ]
    found = [_trial(model, samples, variant) for variant in variants]
    return sorted(found, key=lambda t: -t.accuracy.value)


def _trial(model: OrtModel, samples: Samples, preprocess: Preprocess) -> Trial:
    few = samples.take(np.arange(min(_TRIED, len(samples))))
    labels = model.labels(preprocess.apply(few.pixels))
    return Trial(preprocess, Rate.of(labels == few.labels))


def _tried(found: list[Trial]) -> str:
    if not found:
        return "Without labelled images nothing could be tried; the usual ones are " + ", ".join(
            PRESETS
        )
    return "Tried on the data (clean accuracy): " + "; ".join(str(trial) for trial in found)


def _flags(preprocess: Preprocess) -> str:
    return preprocess.name + (" --color bgr" if preprocess.color == "bgr" else "")
