# SPDX-License-Identifier: Apache-2.0
"""The model under examination, opened for both engines, and the data prepared for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lancet_onnx.api.options import DataOptions, TriggerOptions
from lancet_onnx.errors import DataError, ModelError, UnsupportedError
from lancet_onnx.model import OnnxModel, load
from lancet_onnx.model.logic import Switch, logic_on_input
from lancet_onnx.rules import NOT_FINITE
from lancet_onnx.runtime.classifier import Classifier, compute_device
from lancet_onnx.runtime.dormant import switches
from lancet_onnx.runtime.ort import Device, OrtModel, environment
from lancet_onnx.runtime.parity import Parity, compare
from lancet_onnx.runtime.signature import Signature
from lancet_onnx.samples import PRESETS, Preprocess, Samples, read_samples
from lancet_onnx.samples.core import Floats
from lancet_onnx.samples.preprocess import named
from lancet_onnx.trigger import Trigger, read_trigger
from lancet_onnx.types import TensorSpec
from lancet_onnx.verify.metrics import Labels
from lancet_onnx.verify.policy import FEWEST_IMAGES
from lancet_onnx.verify.preprocessing import recorded, resolve

LOGIC = (
    "a backdoor in the graph's logic cannot be repaired by weights. Remove the branch, or export "
    "the model again from a trusted source"
)
"""What is said of a switch that the graph shows."""


FEW = 64
"""Inputs on which torch and onnxruntime are compared."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One model with its torch and its onnxruntime form."""

    model: OnnxModel
    classifier: Classifier
    ort: OrtModel

    @classmethod
    def open(cls, path: Path, device: Device, output: str | None = None) -> Subject:
        """Load `path` for both engines; `output` names the output that holds the scores.

        Raises:
            ModelError: not a usable classifier, or NaN in its weights.
        """
        return cls.of(load(path), device, output)

    @classmethod
    def of(cls, model: OnnxModel, device: Device, output: str | None = None) -> Subject:
        """Take a loaded model for both engines.

        Raises:
            ModelError: not a usable classifier, or NaN in its weights.
        """
        path = model.path
        if model.non_finite:
            raise ModelError(
                f"{path}: initializer '{model.non_finite[0]}' holds NaN or infinity; a model with "
                "damaged weights cannot be judged. Export it again",
                NOT_FINITE,
            )
        try:
            classifier = Classifier(model.graph, compute_device(device), output)
        except ModelError as error:
            # Only here the file's name is known; a branch on the input is worth telling even if
            # the operator that branches is not computed.
            logic = "".join(f". {switch}: {LOGIC}" for switch in logic_on_input(model.graph)[:1])
            raise type(error)(f"{path}: {error.text}{logic}", error.rule) from error
        return cls(model, classifier, _in_onnxruntime(path, classifier.signature, device))

    def switches(self, inputs: Floats | None = None) -> tuple[Switch, ...]:
        """Return the switches in the graph's logic; `inputs` are ordinary images, if there are."""
        return switches(self.model.graph, self.classifier, inputs)

    def patched(self, path: Path, device: Device) -> OrtModel:
        """Return another file of the same form, such as the repaired model, in onnxruntime."""
        return _in_onnxruntime(path, self.classifier.signature, device)

    def environment(self, seed: int) -> dict[str, object]:
        """Return device, provider, versions and seed for a report."""
        return {**environment(self.ort.placement), "seed": seed}

    def parity(self, inputs: Floats) -> Parity:
        """Compare torch and onnxruntime on some inputs.

        Raises:
            UnsupportedError: they disagree: our graph is not the file's, so nothing is concluded.
        """
        found = compare(self.classifier, self.ort, inputs[:FEW])
        if not found.holds:
            raise UnsupportedError(
                f"{self.model.path}: lancet-onnx computes other scores than onnxruntime (largest "
                f"difference {found.largest:.1e} of the largest score). Either is wrong here: "
                "lancet-onnx, or an optimisation of onnxruntime. Nothing was concluded; please "
                "report it with the model"
            )
        return found


def _in_onnxruntime(path: Path, signature: Signature, device: Device) -> OrtModel:
    return OrtModel(path, signature.input, device, signature.head, signature.parts)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Samples and the preprocessing that turns them into inputs."""

    samples: Samples
    preprocess: Preprocess

    def inputs(self, samples: Samples) -> Floats:
        """Return model inputs for some of the samples, or for stamped ones."""
        return self.preprocess.apply(samples.pixels)

    def few(self, samples: Samples) -> Floats:
        """Return model inputs for the first of the samples, enough to compare two engines."""
        return self.inputs(samples.take(np.arange(min(FEW, len(samples)))))


@dataclass(slots=True)
class Clock:
    """Seconds and image-forward equivalents per stage, for the JSON's `stages`."""

    classifier: Classifier | None = None
    stages: list[dict[str, object]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def stage(self, name: str, forwards: int = 0) -> Iterator[None]:
        """Time a block; `forwards` are those that onnxruntime does, torch's are counted."""
        begin = time.perf_counter()
        before = self.classifier.forwards if self.classifier else 0.0
        yield
        done = (self.classifier.forwards if self.classifier else 0.0) - before + forwards
        seconds = round(time.perf_counter() - begin, 3)
        self.stages.append({"stage": name, "seconds": seconds, "image_forwards": round(done)})

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return round(time.perf_counter() - self.started, 3)


def image_shape(spec: TensorSpec, layout: str | None) -> tuple[tuple[int, ...], str]:
    """Return (H, W, C) and layout of the model's images, from its input shape.

    Raises:
        DataError: the input is no picture, or its size is free.
    """
    shape = spec.shape or ()
    if len(shape) != 4:
        raise DataError(
            f"the input '{spec.name}' has the shape {shape}, which is no picture; give an .npz in "
            "the model's own form with --preprocess none"
        )
    sizes = tuple(d if isinstance(d, int) and d > 0 else 0 for d in shape)
    if layout is None:
        layout = "nhwc" if sizes[3] in (1, 3) and sizes[1] not in (1, 3) else "nchw"
    height, width, channels = (
        (sizes[2], sizes[3], sizes[1]) if layout == "nchw" else (sizes[1], sizes[2], sizes[3])
    )
    if not (height and width and channels in (1, 3)):
        raise DataError(
            f"the input '{spec.name}' has the shape {shape}; expected a fixed height and width "
            "and 1 or 3 channels. Export the model for one image size"
        )
    return (height, width, channels), layout


def prepare(subject: Subject, options: DataOptions) -> Prepared:
    """Read the data and settle the preprocessing, checked on the labels if there are any.

    Raises:
        DataError: unusable data, labels outside the classes, or a wrong preprocessing.
    """
    samples, layout = read_images(subject, options)
    if len(samples) < FEWEST_IMAGES:
        raise DataError(
            f"{options.path}: only {len(samples)} images, too few to say anything; give at least "
            f"{4 * FEWEST_IMAGES}, of several classes"
        )
    check_labels(samples, subject.classifier.signature.classes)
    if samples.labels is not None and len(np.unique(samples.labels)) < 2:
        raise DataError(
            f"{samples.source}: all images are of class {samples.labels[0]}; images of at least "
            "two classes are needed"
        )
    told = settled(subject, options)
    preprocess = resolve(subject.ort, samples, told, layout, str(subject.model.path))
    return Prepared(samples, preprocess)


def read_images(subject: Subject, options: DataOptions) -> tuple[Samples, str]:
    """Read images of the model's size, and say in which axis order it takes them.

    Raises:
        DataError: no path, unusable images, or raw inputs of another shape.
    """
    if options.path is None:
        raise DataError(
            f"{subject.model.path}: no images to run it on; give a folder of class folders, an "
            ".npz or a .csv with --data, or as [data] path of the policy"
        )
    spec = subject.classifier.signature.input
    if options.preprocess != "none":
        shape, layout = image_shape(spec, options.layout)
        return read_samples(options.path, shape, crop=options.resize == "shortest"), layout
    names = tuple(part.name for part in subject.classifier.signature.parts)
    samples = read_samples(options.path, (0, 0, 0), raw=True, names=names)
    wanted = tuple(d for d in (spec.shape or ())[1:])
    found = samples.images.shape[1:]
    if len(found) != len(wanted) or any(
        isinstance(d, int) and d != n for d, n in zip(wanted, found, strict=True)
    ):
        raise DataError(f"{options.path}: inputs of shape {found}; the model takes {wanted}")
    return samples, "nchw"


def settled(subject: Subject, options: DataOptions) -> Preprocess | None:
    """Return the preprocessing that was asked for or recorded, with the overrides; or None."""
    chosen = (
        named(options.preprocess)
        if options.preprocess
        else recorded(subject.model.path, subject.model.graph.metadata)
    )
    if chosen is None and (options.mean or options.std):
        chosen = PRESETS["unit"]
    if chosen is None:
        return None
    changes = {
        key: value
        for key, value in (
            ("mean", options.mean),
            ("std", options.std),
            ("color", options.color),
        )
        if value
    }
    if changes:
        name = ", ".join([chosen.name, *(f"{key} {value}" for key, value in changes.items())])
        chosen = replace(chosen, name=name, **changes)  # type: ignore[arg-type]
    if 0 in chosen.std or not np.isfinite([*chosen.mean, *chosen.std, chosen.scale]).all():
        raise DataError(
            f"preprocessing '{chosen.name}': means must be finite, deviations finite and not 0"
        )
    return chosen


def read_trigger_for(
    subject: Subject, options: TriggerOptions, layout: str | None, samples: Samples | None
) -> Trigger:
    """Read the trigger for the model's images (or for raw samples)."""
    if samples is not None and samples.raw:
        shape, raw = samples.images.shape[1:], True
    else:
        shape, raw = image_shape(subject.classifier.signature.input, layout)[0], False
    classes = subject.classifier.signature.classes
    if options.target is not None and not 0 <= options.target < classes:
        raise DataError(
            f"target class {options.target}: the model has the classes 0 to {classes - 1}"
        )
    return read_trigger(
        options.path,
        shape,
        raw=raw,
        mask=options.mask,
        mode=options.mode,
        position=options.position,
    )


def labels_of(
    model: OrtModel, prepared: Prepared, samples: Samples, trigger: Trigger | None
) -> Labels:
    """Ask onnxruntime for the labels of clean and, with a trigger, of stamped samples."""
    clean = model.labels(prepared.inputs(samples))
    if trigger is None:
        return Labels(clean, None)
    return Labels(clean, model.labels(prepared.inputs(trigger.stamp(samples))))


def likely_target(labels: Labels, true: np.ndarray | None, classes: int) -> int:
    """Return the class that the trigger moves most images of other classes to."""
    assert labels.triggered is not None  # noqa: S101 - callers have a trigger
    own = labels.clean if true is None else true
    gains = np.zeros(classes)
    for target in range(classes):
        others = own != target
        if others.any():
            gains[target] = (labels.triggered[others] == target).mean() - (
                labels.clean[others] == target
            ).mean()
    return int(gains.argmax())


def check_labels(samples: Samples, classes: int) -> None:
    """Refuse labels that the model does not have.

    Raises:
        DataError: one of them is outside of its classes.
    """
    if samples.labels is None:
        return
    outside = np.flatnonzero((samples.labels < 0) | (samples.labels >= classes))
    if len(outside):
        raise DataError(
            f"{samples.source}: image {outside[0]} has the label {samples.labels[outside[0]]}, but "
            f"the model has {classes} classes (0 to {classes - 1}); are these images for it?"
        )


def describe_switch(switch: Switch) -> dict[str, object]:
    """Return what is reported of a switch in the graph's logic."""
    return {
        "rule": switch.rule.id,
        "severity": switch.rule.severity,
        "node": switch.node.name,
        "path": list(switch.path),
        "text": str(switch),
    }
