# SPDX-License-Identifier: Apache-2.0
"""Errors that a user gives: read, checked, and halved so that none is learnt from and reported."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.api.misread import misread
from lancet_onnx.api.options import DataOptions
from lancet_onnx.api.subject import Prepared, Subject
from lancet_onnx.errors import DataError
from lancet_onnx.samples import Samples, Split


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Errors that were given apart from the data.

    Attributes:
        learnt: those that the repair learns from, beside the data's own.
        held_out: those that it is told by.
        apart: how many of these, the first ones, are not among the data.
        count: how many images were given.
        no_errors: how many of them the model gets right; they are left out.
        known: how many of the errors are among the data as well.
    """

    learnt: Samples
    held_out: Samples
    apart: int
    count: int
    no_errors: int
    known: int


def read_given(
    subject: Subject, prepared: Prepared, data: DataOptions, path: Path, split: Split
) -> Given:
    """Read the errors in `path` and halve them.

    An error that is also among the data stays where the data's split has it. All other images are
    halved class by class, errors or not: so a second repair finds each where the first had it.

    Raises:
        DataError: unusable or unlabelled images, labels that the model does not have or that
            differ from the data's, or not one error.
    """
    found = misread(subject, prepared, data, path)
    wrong = found.read != found.true
    marks, labels = _marks(found.samples), found.true.tolist()
    places = [_labels_of(half) for half in (split.tool, split.figures)]
    known: dict[bytes, int] = {**places[1], **places[0]}
    for number in np.flatnonzero(wrong).tolist():
        label = labels[number]
        other = known.setdefault(marks[number], label)
        if other != label:
            raise DataError(
                f"{path}: image {number} has the label {label}, but the same image has {other} "
                "there or in the data; which one is true? Mend one of them"
            )
    in_tool, in_figures = (np.array([m in place for m in marks], bool) for place in places)
    halves = Split.of(found.samples.take(np.flatnonzero(~(in_tool | in_figures))), split.seed)
    errors = {(marks[i], labels[i]) for i in np.flatnonzero(wrong).tolist()}
    learnt, held_out = (_among(half, errors) for half in (halves.tool, halves.figures))
    return Given(
        learnt,
        joined(held_out, found.samples.take(np.flatnonzero(in_figures & wrong))),
        len(held_out),
        len(found.samples),
        len(found.samples) - found.errors,
        int(((in_tool | in_figures) & wrong).sum()),
    )


def joined(first: Samples, second: Samples) -> Samples:
    """Return all of both; where one has whole numbers and the other fractions, fractions."""
    assert first.labels is not None  # noqa: S101 - only labelled images come here
    assert second.labels is not None  # noqa: S101
    alike = first.raw or first.images.dtype == second.images.dtype
    images: Sequence[NDArray[np.generic]] = (
        (first.images, second.images) if alike else (first.pixels, second.pixels)
    )
    return replace(
        first,
        images=np.concatenate(images),
        labels=np.concatenate([first.labels, second.labels]),
    )


def _among(samples: Samples, errors: Set[tuple[bytes, int]]) -> Samples:
    """Return those of some labelled samples that are errors, by what marks them and their label."""
    assert samples.labels is not None  # noqa: S101 - only labelled images come here
    told = zip(_marks(samples), samples.labels.tolist(), strict=True)
    return samples.take(np.flatnonzero([one in errors for one in told]))


def _labels_of(samples: Samples) -> dict[bytes, int]:
    labels = samples.labels
    return dict(zip(_marks(samples), [] if labels is None else labels.tolist(), strict=False))


def _marks(samples: Samples) -> list[bytes]:
    """Return what tells each image from others, whatever its file holds pixels as."""
    return [hashlib.blake2b(image.tobytes()).digest() for image in samples.pixels]
