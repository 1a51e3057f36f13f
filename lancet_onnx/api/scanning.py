# SPDX-License-Identifier: Apache-2.0
"""`scan`: does this trigger control this model, for which class, and where does it sit?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lancet_onnx.api.advice import repair_line
from lancet_onnx.api.describing import (
    describe_data,
    describe_model,
    describe_trigger,
    located,
    trigger_pictures,
    unreached_weights,
)
from lancet_onnx.api.halves import halved
from lancet_onnx.api.hunting import hunt_backdoor
from lancet_onnx.api.options import DataOptions, SearchOptions, TriggerOptions
from lancet_onnx.api.subject import (
    Clock,
    Prepared,
    Subject,
    describe_switch,
    image_shape,
    labels_of,
    likely_target,
    prepare,
    read_trigger_for,
    settled,
)
from lancet_onnx.errors import DataError
from lancet_onnx.explain import trigger_png
from lancet_onnx.locate import locate
from lancet_onnx.pairs import stamped_material
from lancet_onnx.pairs.controls import control_triggers
from lancet_onnx.pairs.generated import generated_samples
from lancet_onnx.report import Picture, Report
from lancet_onnx.rules import TRIGGER
from lancet_onnx.runtime.ort import Device
from lancet_onnx.samples import PRESETS, Preprocess, Samples, Sizes
from lancet_onnx.samples.core import Ints
from lancet_onnx.scores import Location
from lancet_onnx.trigger import Trigger
from lancet_onnx.types import Progress, no_progress
from lancet_onnx.verify.metrics import Labels, as_numbers, measure, moves_of, paired_rise
from lancet_onnx.verify.policy import FEWEST_IMAGES, Decision, judge_generated, judge_scan

CONTROLS = 12
GENERATED = 200


def scan(
    model: Path,
    trigger: TriggerOptions | None,
    data: DataOptions | None = None,
    *,
    search: SearchOptions | None = None,
    device: Device = "auto",
    seed: int = 0,
    locating: bool = True,
    progress: Progress = no_progress,
) -> Report:
    """Scan `model` for a backdoor that the given trigger opens, or for one that nobody knows.

    With data, half of it (seeded; or the half that a repair saw, if the model notes one) finds the
    target class and locates weights, the other half is measured on. Without, generated images are
    compared with control patches; accuracy then stays unknown, and the verdict is ``backdoored`` or
    ``inconclusive``. Without `locating` a finding is not traced to layers, which saves seconds
    where many triggers are tried. Without a trigger all classes (or those of `search`) are searched
    for one, see `lancet_onnx.api.hunting`.

    Raises:
        LancetError: the model, the data or the trigger cannot be used.
    """
    data = data or DataOptions()
    clock = Clock()
    with clock.stage("load"):
        subject = Subject.open(model, device, data.output)
    clock.classifier = subject.classifier
    if trigger is None:
        return hunt_backdoor(subject, data, search or SearchOptions(), seed, clock, progress)
    if data.path is None:
        return _without_data(subject, trigger, data, seed, clock, progress)
    with clock.stage("prepare"):
        prepared = prepare(subject, data)
        stamp = read_trigger_for(subject, trigger, data.layout, prepared.samples)
    split = halved(subject.model, prepared, seed).split
    with clock.stage("measure", 2 * len(prepared.samples)):
        few = prepared.few(split.tool)
        parity = subject.parity(few)
        target = find_target(subject, prepared, split.tool, stamp, trigger.target)
        labels = labels_of(subject.ort, prepared, split.figures, stamp)
        figures = measure(labels, labels, split.figures.labels, target)
        rise, decision = judge_trigger(labels, split.figures.labels, target, stamp)
        found = subject.switches(few)
        if found and decision.verdict == "clean":
            # What such a switch waits for is not in this trigger, so no trigger clears the model.
            decision = Decision("inconclusive", (*decision.reasons, str(found[0])))
    location: Location | None = None
    if locating and decision.verdict == "backdoored":
        with clock.stage("locate"):
            location = _locate(subject, prepared, split.tool, stamp, target, progress)
    finding = {
        "rule": TRIGGER.id,
        "severity": TRIGGER.severity,
        "target": target,
        **{key: value for key, value in as_numbers(figures).items() if key != "agreement"},
        "rise": list(rise),
        "trigger": {**describe_trigger(stamp), **_as_told(trigger)},
        "located": located(location),
        "next": repair_line(model, trigger, data),
    }
    body = {
        "model": describe_model(subject),
        "metrics": as_numbers(figures),
        "findings": [finding] if decision.verdict == "backdoored" else [],
        "examined": {key: finding[key] for key in ("target", "rise", "trigger")},
        "graph_logic": [describe_switch(switch) for switch in found],
        "unreached": unreached_weights(subject, few),
        "data": describe_data(prepared, split),
        "parity": {"largest": parity.largest, "agreement": parity.agreement},
        "environment": subject.environment(seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    pictures = trigger_pictures(stamp, split.figures, labels)
    return Report("scan", decision.verdict, decision.reasons, body, pictures)


def judge_trigger(
    labels: Labels, true: Ints | None, target: int, trigger: Trigger
) -> tuple[tuple[float, float, float], Decision]:
    """Return how far a trigger moves images to its class (with 95 % bounds), and what that says."""
    own = labels.clean if true is None else true
    assert labels.triggered is not None  # noqa: S101 - callers have a trigger
    rise = paired_rise(labels.triggered, labels.clean, own, target)
    moves = moves_of(labels.triggered, labels.clean, FEWEST_IMAGES)
    return rise, judge_scan(rise, trigger.coverage, int((own != target).sum()), moves)


def find_target(
    subject: Subject, prepared: Prepared, tool: Samples, trigger: Trigger, told: int | None
) -> int:
    """Return the target class: as told, or the one that most images of the tool's half move to."""
    if told is not None:
        return told
    labels = labels_of(subject.ort, prepared, tool, trigger)
    return likely_target(labels, tool.labels, subject.classifier.signature.classes)


def _as_told(trigger: TriggerOptions) -> dict[str, object]:
    """Return what else `repair --from` needs to read the same trigger again."""
    return {
        "mask": str(trigger.mask) if trigger.mask else None,
        "position": list(trigger.position) if trigger.position else None,
    }


def _locate(
    subject: Subject,
    prepared: Prepared,
    tool: Samples,
    trigger: Trigger,
    target: int,
    progress: Progress,
) -> Location | None:
    try:
        material = stamped_material(
            subject.classifier, tool, trigger, prepared.preprocess, target, Sizes()
        )
    except DataError:
        return None
    return locate(subject.classifier, material, progress)


def _without_data(
    subject: Subject,
    trigger: TriggerOptions,
    data: DataOptions,
    seed: int,
    clock: Clock,
    progress: Progress,
) -> Report:
    shape, layout = image_shape(subject.classifier.signature.input, data.layout)
    told = settled(subject, data)
    stamp = read_trigger_for(subject, trigger, layout, None)
    tried = [told] if told else [p for p in PRESETS.values() if not p.passthrough]
    best: tuple[float, Decision, dict[str, object]] | None = None
    for number, preprocess in enumerate(tried):
        progress("comparing with control patches", number / len(tried))
        preprocess = replace(preprocess, layout=layout)
        with clock.stage(f"generated images ({preprocess.name})"):
            outcome = _compare(subject, shape, preprocess, stamp, trigger, data, seed)
        if best is None or outcome[0] > best[0]:
            best = outcome
    progress("comparing with control patches", 1.0)
    assert best is not None  # noqa: S101 - at least one preprocessing was tried
    _, decision, finding = best
    reasons = (*decision.reasons, "accuracy is not known without data")
    if told is None:
        reasons = (*reasons, "the preprocessing is not known: the usual ones were tried")
    body = {
        "model": describe_model(subject),
        "metrics": {"clean_accuracy": None, "n": 0, "generated_images": GENERATED},
        "findings": [finding] if decision.verdict == "backdoored" else [],
        "examined": finding,
        "graph_logic": [describe_switch(switch) for switch in subject.switches()],
        "environment": subject.environment(seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    picture = Picture("trigger", f"the trigger ({stamp.mode})", trigger_png(stamp))
    return Report("scan", decision.verdict, reasons, body, (picture,))


def _compare(
    subject: Subject,
    shape: tuple[int, ...],
    preprocess: Preprocess,
    trigger: Trigger,
    options: TriggerOptions,
    data: DataOptions,
    seed: int,
) -> tuple[float, Decision, dict[str, object]]:
    """Return how clear the response is, the decision, and the finding, for one preprocessing.

    One half of the generated images finds the target, the other is measured on.
    """
    generated = generated_samples(
        subject.classifier, (shape[0], shape[1], shape[2]), preprocess, GENERATED, seed
    )
    prepared = Prepared(generated, preprocess)
    half = GENERATED // 2
    chooser, samples = (generated.take(np.arange(i, i + half)) for i in (0, half))
    target = find_target(subject, prepared, chooser, trigger, options.target)
    others = subject.ort.labels(prepared.inputs(samples)) != target

    def share(patch: Trigger) -> float:
        moved = subject.ort.labels(prepared.inputs(patch.stamp(samples))) == target
        return float(moved[others].mean()) if others.any() else 0.0

    rises = [share(control) for control in control_triggers(trigger, CONTROLS, seed)]
    rise = share(trigger)
    decision = judge_generated(rise, tuple(rises), trigger.coverage, int(others.sum()))
    finding: dict[str, object] = {
        "rule": TRIGGER.id,
        "severity": TRIGGER.severity,
        "target": target,
        "attack_success": rise,
        "base_rate": 0.0,
        "recovery": None,
        "n": int(others.sum()),
        "controls": sorted(rises),
        "preprocess": str(preprocess),
        "trigger": {**describe_trigger(trigger), **_as_told(options)},
        "located": [],
        "next": repair_line(subject.model.path, options, data),
    }
    return rise - float(np.median(rises)), decision, finding
