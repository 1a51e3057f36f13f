# SPDX-License-Identifier: Apache-2.0
"""Images that a model gets wrong: given apart with their true labels, or found in the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lancet_onnx.api.options import DataOptions
from lancet_onnx.api.subject import Prepared, Subject, check_labels, read_images
from lancet_onnx.errors import DataError
from lancet_onnx.explain import probabilities
from lancet_onnx.samples import Samples
from lancet_onnx.samples.core import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Misread:
    """Labelled images some of which the model gets wrong.

    Attributes:
        samples: the images with their true labels.
        read: (N,) int64, what onnxruntime says of them.
        shares: (N, classes) float32 in [0, 1], the probabilities that it gives.
        given: they were given as errors, so that those which are none are worth telling.
    """

    samples: Samples
    read: Ints
    shares: Floats
    given: bool

    @property
    def true(self) -> Ints:
        """(N,) int64 true labels."""
        assert self.samples.labels is not None  # noqa: S101 - only labelled ones are made
        return self.samples.labels

    @property
    def errors(self) -> int:
        """How many of the images the model gets wrong."""
        return int((self.read != self.true).sum())


def misread(
    subject: Subject, prepared: Prepared, data: DataOptions, errors: Path | None
) -> Misread:
    """Return the images of `errors`, or those of the data, and what onnxruntime says of them.

    Raises:
        DataError: no labels, labels that the model does not have, unusable images, or not one
            that the model gets wrong.
    """
    samples = prepared.samples
    if errors is not None:
        samples = _read_errors(subject, prepared, data, errors)
    if samples.labels is None:
        raise DataError(
            f"{samples.source}: the images have no labels, so nobody can say which of them the "
            "model gets wrong. Give labelled images with --data, or misclassified images with "
            "their true labels with --errors"
        )
    scores = subject.ort.scores(prepared.inputs(samples))
    read = scores.argmax(1).astype(np.int64)
    found = Misread(samples, read, probabilities(scores), errors is not None)
    if not found.errors:
        raise DataError(
            f"{samples.source}: the model gets all {len(samples)} images right, so there is no "
            "error here. Check the labels and the preprocessing, or give images that it gets "
            "wrong, with their true labels, with --errors"
        )
    return found


def _read_errors(subject: Subject, prepared: Prepared, data: DataOptions, path: Path) -> Samples:
    """Return the images of `path`; names of class folders mean what they mean in the data.

    Raises:
        DataError: unusable images, a class folder that the data does not have, or labels that the
            model does not have.
    """
    samples, _ = read_images(subject, replace(data, path=path))
    known, classes = prepared.samples.classes, subject.classifier.signature.classes
    # A folder of errors need not have a folder for each class, so positions tell nothing.
    if samples.classes and (known or len(samples.classes) != classes):
        strange = [name for name in samples.classes if name not in known]
        if strange:
            told = f"--data has {', '.join(known)}" if known else "--data has no class folders"
            raise DataError(
                f"{path}: which class is the folder '{strange[0]}'? {told}. Name the folders as "
                "those of --data, or give an .npz with x and y, or a CSV of path,label"
            )
        number = np.array([known.index(name) for name in samples.classes], np.int64)
        assert samples.labels is not None  # noqa: S101 - class folders are labels
        samples = replace(samples, labels=number[samples.labels], classes=known)
    check_labels(samples, classes)
    return samples
