# SPDX-License-Identifier: Apache-2.0
"""`repair`: locate, search, write, and let onnxruntime judge the written file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lancet_onnx.api.committing import (
    Judgement,
    Written,
    closing_words,
    destination,
    open_repairable,
    refuse_switches,
    write_judged,
)
from lancet_onnx.api.describing import (
    data_digest,
    describe_data,
    describe_model,
    describe_trigger,
    located,
    trigger_pictures,
    unreached_weights,
)
from lancet_onnx.api.halves import halved
from lancet_onnx.api.options import DataOptions, RepairOptions, TriggerOptions
from lancet_onnx.api.repair_body import (
    changed_layers,
    describe_edit,
    search_table,
)
from lancet_onnx.api.scanning import find_target, judge_trigger
from lancet_onnx.api.subject import (
    Clock,
    Prepared,
    Subject,
    labels_of,
    prepare,
    read_trigger_for,
)
from lancet_onnx.errors import DataError
from lancet_onnx.locate import locate, locate_as_published
from lancet_onnx.pairs import stamped_material
from lancet_onnx.repair import Choice, Judged, Settings, TuneSettings, choose, to_patch
from lancet_onnx.report import Report
from lancet_onnx.runtime.ort import Device, OrtModel
from lancet_onnx.samples import Material, Samples
from lancet_onnx.scores import Location
from lancet_onnx.trigger import Trigger
from lancet_onnx.types import Digest, Kind, Method, Progress, no_progress
from lancet_onnx.verify.metrics import Labels, Rate, as_numbers, changed_labels, measure
from lancet_onnx.verify.policy import FEWEST_IMAGES, Decision, judge_repair


def repair(
    model: Path,
    trigger: TriggerOptions,
    data: DataOptions,
    options: RepairOptions,
    *,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress = no_progress,
) -> Report:
    """Repair `model` against a trigger and write the repaired file and its patch.

    One half of the data locates, stops and chooses; every figure comes from the other half, run
    by onnxruntime on the written file. Images that repaired this model before are halved as they
    were then, and that seed is taken. Nothing is written unless the verdict is ``repaired`` (or
    `options.keep`).

    Raises:
        LancetError: unusable model, data, trigger or output path; nothing is written.
    """
    clock = Clock()
    patch_path = destination(options, [model, trigger.path, trigger.mask, data.path])
    with clock.stage("load"):
        subject = open_repairable(model, device, data, options, clock)
    with clock.stage("prepare"):
        prepared = prepare(subject, data)
        stamp = read_trigger_for(subject, trigger, data.layout, prepared.samples)
        split = halved(subject.model, prepared, seed).split
        seed = split.seed
        few = prepared.few(split.tool)
        parity = subject.parity(few)
        asleep = refuse_switches(subject, few)
    with clock.stage("measure before", 2 * len(split.figures)):
        target = find_target(subject, prepared, split.tool, stamp, trigger.target)
        original = labels_of(subject.ort, prepared, split.figures, stamp)
        before = measure(original, original, split.figures.labels, target)
        evidence = _Evidence(
            prepared, split.figures, stamp, target, original, before, options.max_accuracy_loss
        )
        if before["attack_success"].n < FEWEST_IMAGES:
            raise DataError(
                f"{prepared.samples.source}: {len(prepared.samples)} images are too few: half of "
                f"them judge the repair, and {before['attack_success'].n} of these are of other "
                f"classes than the target; at least {FEWEST_IMAGES} are needed. Give more images"
            )
    nothing = _nothing_to_repair(evidence)
    if nothing is not None and not options.keep:
        done = _Done(None, None, None, Written(before, nothing, None))
    else:
        done = _edit(
            subject, evidence, split.tool, patch_path, options, device, seed, clock, progress
        )
    choice, written = done.choice, done.written
    body = {
        "method": _method_name(options, choice),
        "layers": changed_layers(subject, written.patch),
        "weights_changed": written.patch.size if written.patch else 0,
        "before": as_numbers(before),
        "after": as_numbers(written.after),
        "changed_labels": changed_labels(original.clean, written.clean, split.figures.labels),
        "output": written.output,
        "patch": written.patch_file,
        "model": describe_model(subject),
        "target": target,
        "trigger": describe_trigger(stamp),
        "located": located(done.location),
        "search": search_table(choice, done.material),
        "unreached": unreached_weights(subject, few),
        "data": describe_data(prepared, split),
        "parity": {"largest": parity.largest, "agreement": parity.agreement},
        "environment": subject.environment(seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    pictures = trigger_pictures(stamp, split.figures, original)
    decision = written.decision
    reasons = closing_words(model, decision, choice, asleep)
    return Report("repair", decision.verdict, reasons, body, pictures)


def _edit(
    subject: Subject,
    evidence: _Evidence,
    tool: Samples,
    patch_path: Path,
    options: RepairOptions,
    device: Device,
    seed: int,
    clock: Clock,
    progress: Progress,
) -> _Done:
    """Locate, choose an edit, write it and have it judged."""
    classifier, method = subject.classifier, _method_of(options)
    compared = method in ("auto", "tune")
    with clock.stage("pairs"):
        material = stamped_material(
            classifier,
            tool,
            evidence.stamp,
            evidence.prepared.preprocess,
            evidence.target,
            options.sizes,
            aside=compared,
        )
    find = locate_as_published if options.as_published else locate
    with clock.stage("locate"):
        location = find(classifier, material, progress)
    settings, tuning = _settings(options), TuneSettings()
    with clock.stage("search"):
        choice = choose(classifier, location, material, method, settings, tuning, seed, progress)
    if choice.chosen is None:
        written = Written(evidence.before, Decision("not_repaired", (choice.why,)), None)
        return _Done(material, location, choice, written)
    with clock.stage("write and verify", 4 * len(evidence.figures)):
        made = settings if choice.chosen.offer.method != "tune" else tuning
        described = " | ".join(
            (
                location.method,
                *describe_edit(made, material, compared=compared),
                _described(evidence),
            )
        )
        patch = to_patch(subject.model, choice.chosen.offer.params, described, seed, {})
        refusal = None if choice.reached else _over_budget(choice.chosen, settings)
        written = write_judged(subject, patch, patch_path, evidence, refusal, options, device)
    return _Done(material, location, choice, written)


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """What a repaired model is judged by: images that nothing else has seen."""

    prepared: Prepared
    figures: Samples
    stamp: Trigger
    target: int
    original: Labels
    before: dict[str, Rate]
    max_loss: float

    def judge(self, model: OrtModel) -> Judgement:
        labels = labels_of(model, self.prepared, self.figures, self.stamp)
        after = measure(labels, self.original, self.figures.labels, self.target)
        return Judgement(after, judge_repair(self.before, after, self.max_loss), labels.clean)


@dataclass(frozen=True, slots=True, eq=False)
class _Done:
    """What came of a repair; None where it was not begun."""

    material: Material | None
    location: Location | None
    choice: Choice | None
    written: Written


def _described(evidence: _Evidence) -> str:
    """Name what a repair was made on, files by their digests."""
    stamp, prepared = evidence.stamp, evidence.prepared
    trigger = Digest.of(stamp.mask.tobytes() + stamp.pattern.tobytes() + stamp.mode.encode())
    return (
        f"on(target={evidence.target}, trigger={str(trigger)[:16]}, "
        f"data={data_digest(prepared.samples)[:16]}, preprocess={prepared.preprocess})"
    )


def _method_of(options: RepairOptions) -> Method:
    """Return what is done to weights; the paper's rules know flips and mutes."""
    if options.as_published and options.method in ("auto", "tune"):
        return "flip"
    return options.method


def _method_name(options: RepairOptions, choice: Choice | None) -> str:
    if options.as_published:
        return "as-published"
    return choice.chosen.offer.method if choice and choice.chosen else options.method


def _settings(options: RepairOptions) -> Settings:
    kind: Kind = "mute" if options.method == "mute" else "flip"
    if options.as_published:
        return Settings(
            kind=kind,
            compensate=False,
            max_loss=options.max_accuracy_loss,
            leaning=0.5,
            tolerance=0.01,
        )
    return Settings(kind=kind, compensate=options.compensate, max_loss=options.max_accuracy_loss)


def _nothing_to_repair(evidence: _Evidence) -> Decision | None:
    """Return why nothing is repaired: the trigger does no more than any patch of its size may."""
    true, target = evidence.figures.labels, evidence.target
    _, found = judge_trigger(evidence.original, true, target, evidence.stamp)
    if found.verdict == "backdoored":
        return None
    why = "nothing was changed: these images show no backdoor that this trigger opens"
    return Decision("not_repaired", (why, *found.reasons))


def _over_budget(chosen: Judged, settings: Settings) -> Decision:
    reason = (
        f"on the tool's own images the best edit ({chosen.offer.method}, "
        f"{chosen.offer.weights} weights) loses {chosen.loss:.1%} on clean images, more than "
        f"the budget of {settings.max_loss:.1%}, or leaves {chosen.excess:.1%} of triggered images "
        "leaning to the target"
    )
    return Decision("not_repaired", (reason,))
