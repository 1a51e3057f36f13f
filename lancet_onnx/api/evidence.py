# SPDX-License-Identifier: Apache-2.0
"""What a gate's checks look at: a model, both engines and the images, each opened once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from lancet_onnx.api.halves import Halves, halved
from lancet_onnx.api.policy import Policy
from lancet_onnx.api.subject import FEW, Clock, Prepared, Subject, prepare
from lancet_onnx.errors import LancetError
from lancet_onnx.model import OnnxModel, load
from lancet_onnx.report import Picture
from lancet_onnx.runtime.dormant import ordinary_inputs
from lancet_onnx.samples import Samples
from lancet_onnx.samples.core import Floats, Ints
from lancet_onnx.trigger import Trigger
from lancet_onnx.types import Progress, no_progress
from lancet_onnx.verify.metrics import Labels

T = TypeVar("T")


class Evidence:
    """A model and all that is known of it; what cannot be had raises the same error each time.

    Attributes:
        path: the model.
        policy: what is asked of it.
        clock: times each check.
        progress: called by checks that take long.
        pictures: of triggers that work.
        loaded: gives the model.
        subject: gives it in both engines.
        prepared: gives the images.
        halves: gives them as a repair of this model split them, or as the policy's seed does.
        few: gives inputs of some of the images; None where there are none that can be used.
        inputs: gives some inputs, of the images or made up, and what they are in words.
    """

    def __init__(self, path: Path, policy: Policy, clock: Clock) -> None:
        self.path = path
        self.policy = policy
        self.clock = clock
        self.progress: Progress = no_progress
        self.pictures: list[Picture] = []
        self._clean: dict[Samples, Ints] = {}
        self.loaded: Callable[[], OnnxModel] = _once(lambda: load(path))
        self.subject: Callable[[], Subject] = _once(self._open)
        self.prepared: Callable[[], Prepared] = _once(lambda: prepare(self.subject(), policy.data))
        self.halves: Callable[[], Halves] = _once(self._halved)
        self.few: Callable[[], Floats | None] = _once(self._few)
        self.inputs: Callable[[], tuple[Floats, str]] = _once(self._inputs)

    def clean(self, samples: Samples) -> Ints:
        """Return what the model says of some of the images; a selection is asked of it once."""
        if samples not in self._clean:
            self._clean[samples] = self.subject().ort.labels(self.prepared().inputs(samples))
        return self._clean[samples]

    def labels(self, samples: Samples, trigger: Trigger) -> Labels:
        """Return what the model says of some of the images, without and with a trigger."""
        stamped = self.prepared().inputs(trigger.stamp(samples))
        return Labels(self.clean(samples), self.subject().ort.labels(stamped))

    def _few(self) -> Floats | None:
        if self.policy.data.path is None:
            return None
        try:
            prepared = self.prepared()
        except LancetError:  # the checks that need images say so themselves
            return None
        step = max(len(prepared.samples) // FEW, 1)  # of all classes, in files sorted by class
        chosen = np.arange(0, len(prepared.samples), step)[:FEW]
        return prepared.inputs(prepared.samples.take(chosen))

    def _inputs(self) -> tuple[Floats, str]:
        few = self.few()
        if few is not None:
            return few, "images"
        made = np.concatenate(ordinary_inputs(self.subject().classifier)).astype(np.float32)
        return made, "made-up images"

    def _halved(self) -> Halves:
        return halved(self.loaded(), self.prepared(), self.policy.asked.seed)

    def _open(self) -> Subject:
        asked = self.policy.asked
        subject = Subject.of(self.loaded(), asked.device, self.policy.data.output)
        self.clock.classifier = subject.classifier
        return subject


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """Return a function that calls `make` once, and gives its value or raises its error again."""
    values: list[T] = []
    errors: list[LancetError] = []

    def get() -> T:
        if errors:
            raise errors[0]
        if not values:
            try:
                values.append(make())
            except LancetError as error:
                errors.append(error)
                raise
        return values[0]

    return get
