# SPDX-License-Identifier: Apache-2.0
"""`verify`: the same figures for two given files, by onnxruntime."""

from __future__ import annotations

from pathlib import Path

from lancet_onnx.api.describing import describe_trigger, trigger_pictures
from lancet_onnx.api.halves import halved
from lancet_onnx.api.options import DataOptions, TriggerOptions
from lancet_onnx.api.scanning import find_target
from lancet_onnx.api.subject import (
    Clock,
    Subject,
    labels_of,
    prepare,
    read_trigger_for,
)
from lancet_onnx.errors import ModelError
from lancet_onnx.report import Report
from lancet_onnx.runtime.ort import Device
from lancet_onnx.types import Progress, no_progress
from lancet_onnx.verify.metrics import as_numbers, changed_labels, measure
from lancet_onnx.verify.policy import FEWEST_IMAGES, Decision, accuracy_loss, judge_repair


def verify(
    model: Path,
    fixed: Path,
    data: DataOptions,
    trigger: TriggerOptions | None = None,
    *,
    max_accuracy_loss: float = 0.01,
    device: Device = "auto",
    progress: Progress = no_progress,
) -> Report:
    """Compare `fixed` with `model` on clean and, with a trigger, on triggered images.

    If `fixed` says that it was repaired with these very images, only the half that the repair did
    not see is used. Where the target is not told, images that are not measured on find it: the
    other half.

    Raises:
        LancetError: a file or the data cannot be used, or the two models are of different kinds.
    """
    clock = Clock()
    with clock.stage("load"):
        subject = Subject.open(model, device, data.output)
        other = Subject.open(fixed, device, data.output)
        clock.classifier = subject.classifier
        mine, theirs = subject.classifier.signature, other.classifier.signature
        if mine.classes != theirs.classes or mine.input.shape != theirs.input.shape:
            raise ModelError(
                f"{fixed}: takes {theirs.input.shape} and knows {theirs.classes} classes, but "
                f"{model} takes {mine.input.shape} and knows {mine.classes}; "
                "give two versions of one model"
            )
    progress("reading images", 0.2)
    with clock.stage("prepare"):
        prepared = prepare(subject, data)
        stamp = (
            read_trigger_for(subject, trigger, data.layout, prepared.samples) if trigger else None
        )
        finding = trigger is not None and trigger.target is None
        halves = halved(other.model, prepared, 0)
        samples = halves.measured(finding=finding)
    with clock.stage("measure", len(samples) * (4 if stamp else 2)):
        inputs = prepared.inputs(samples)
        progress("comparing engines", 0.4)
        parity, parity_fixed = subject.parity(inputs), other.parity(inputs)
        target = (
            find_target(subject, prepared, halves.split.tool, stamp, trigger.target)
            if stamp and trigger
            else None
        )
        progress("measuring both models", 0.6)
        original = labels_of(subject.ort, prepared, samples, stamp)
        progress("measuring both models", 0.8)
        repaired = labels_of(other.ort, prepared, samples, stamp)
        before = measure(original, original, samples.labels, target)
        after = measure(repaired, original, samples.labels, target)
    if stamp is not None:
        decision = judge_repair(before, after, max_accuracy_loss)
    elif len(samples) < FEWEST_IMAGES:
        decision = Decision("not_evaluated", (f"only {len(samples)} images to compare on",))
    else:
        lost = accuracy_loss(before, after)
        decision = Decision(
            "fail" if lost > max_accuracy_loss else "pass",
            (
                f"clean images: {0.0 - lost:+.1%} after the repair; the budget is a loss of "
                f"{max_accuracy_loss:.1%}",
            ),
        )
    body = {
        "before": as_numbers(before),
        "after": as_numbers(after),
        "changed_labels": changed_labels(original.clean, repaired.clean, samples.labels),
        "agreement": after["agreement"].value,
        "target": target,
        "trigger": describe_trigger(stamp) if stamp else None,
        "models": [
            {"path": str(s.model.path), "sha256": str(s.model.digest)} for s in (subject, other)
        ],
        "data": {
            "path": prepared.samples.source,
            "images": len(samples),
            "labelled": samples.labels is not None,
            "preprocess": str(prepared.preprocess),
            "used": halves.used(finding=finding),
        },
        "parity": {
            name: {"largest": p.largest, "agreement": p.agreement, "tolerance": p.tolerance}
            for name, p in (("before", parity), ("after", parity_fixed))
        },
        "environment": other.environment(halves.split.seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    pictures = trigger_pictures(stamp, samples, original) if stamp else ()
    return Report("verify", decision.verdict, decision.reasons, body, pictures)
