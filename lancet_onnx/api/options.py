# SPDX-License-Identifier: Apache-2.0
"""What a caller may ask for, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lancet_onnx.samples import Sizes
from lancet_onnx.trigger import Mode
from lancet_onnx.types import Method


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Images and how the model wants them.

    Attributes:
        path: folder, npz or CSV; None scans on generated images.
        preprocess: preset or file; None takes what the model or a file beside it says.
        mean: overrides the preprocessing's means.
        std: overrides its standard deviations.
        color: overrides its channel order, ``rgb`` or ``bgr``.
        layout: overrides the axis order read from the model, ``nchw`` or ``nhwc``.
        resize: how pictures of another size are fitted: ``squash`` (as does None), or ``shortest``
            and crop.
        output: which of the model's outputs holds the scores; None takes the first that can.
    """

    path: Path | None = None
    preprocess: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    color: Literal["rgb", "bgr"] | None = None
    layout: Literal["nchw", "nhwc"] | None = None
    resize: Literal["squash", "shortest"] | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class TriggerOptions:
    """A trigger picture (or npz) and how to stamp it; see `lancet_onnx.trigger.read_trigger`."""

    path: Path
    mask: Path | None = None
    mode: Mode | None = None
    position: tuple[int, int] | None = None
    target: int | None = None


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to look for a trigger that nobody knows.

    Attributes:
        classes: the classes to look at; None looks at all of them.
        budget: seconds for the search, which ends inside them with the best verdict it then has;
            None takes the time it needs.
        state: file in which the search is kept, so that an interrupted one goes on from there.
    """

    classes: tuple[int, ...] | None = None
    budget: float | None = None
    state: Path | None = None


@dataclass(frozen=True, slots=True)
class SuspectOptions:
    """What a search found: a class, and triggers that lead to it.

    Attributes:
        target: the class.
        triggers: reconstructions of what the attacker uses, best first.
    """

    target: int
    triggers: tuple[TriggerOptions, ...]


@dataclass(frozen=True, slots=True)
class CorrectOptions:
    """Which errors on honest images are repaired, and what that may break.

    Attributes:
        errors: misclassified images with their true labels, in a form that data may have; None
            takes those of the data.
        max_regression: how many of the held-out images that were right may be wrong after it, 0
            to 1.
    """

    errors: Path | None = None
    max_regression: float = 0.03


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """How to repair and what to write.

    Attributes:
        output: path of the repaired model.
        patch: path of the patch file; None puts it beside the output.
        method: flip, mute or tune; auto takes what measures best.
        as_published: the paper's rules to the letter instead of the measured best: flips, or mutes
            where `method` says so.
        compensate: keep each edited layer's mean output by moving its bias.
        max_accuracy_loss: budget on clean images, 0 to 1.
        force: replace existing outputs.
        keep: write also when the verdict is ``not_repaired``, and repair even where the images show
            no backdoor.
        metadata: add one `metadata_props` entry that names base and patch.
        sizes: how many images locate, stop and guard.
    """

    output: Path
    patch: Path | None = None
    method: Method = "auto"
    as_published: bool = False
    compensate: bool = True
    max_accuracy_loss: float = 0.01
    force: bool = False
    keep: bool = False
    metadata: bool = True
    sizes: Sizes = field(default_factory=Sizes)
