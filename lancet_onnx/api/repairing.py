# SPDX-License-Identifier: Apache-2.0
"""`repair`: locate, search, write, and let onnxruntime judge the written file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from lancet_onnx.api.options import DataOptions, RepairOptions, TriggerOptions
from lancet_onnx.api.patching import by_this_tool, save_patch, signatures_beside
from lancet_onnx.api.scanning import (
    data_digest,
    describe_data,
    describe_model,
    describe_trigger,
    find_target,
    located,
    trigger_pictures,
    unreached_weights,
)
from lancet_onnx.api.subject import (
    LOGIC,
    Clock,
    Prepared,
    Subject,
    labels_of,
    prepare,
    read_trigger_for,
)
from lancet_onnx.errors import DataError, OutputError, UnsupportedError
from lancet_onnx.locate import locate, locate_as_published
from lancet_onnx.model.files import check_data_files, check_output
from lancet_onnx.model.logic import Switch
from lancet_onnx.model.placing import writable
from lancet_onnx.model.write import applied, next_key
from lancet_onnx.pairs import stamped_material
from lancet_onnx.patch import Patch
from lancet_onnx.repair import SEARCH, Choice, Judged, Settings, TuneSettings, choose, to_patch
from lancet_onnx.report import Report
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.ort import Device, OrtModel
from lancet_onnx.samples import Material, Samples, Split
from lancet_onnx.samples.core import Floats
from lancet_onnx.trigger import Trigger
from lancet_onnx.types import Digest, Kind, Method, Progress, no_progress
from lancet_onnx.verify.metrics import Labels, Rate, as_numbers, measure
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
    by onnxruntime on the written file. Nothing is written unless the verdict is ``repaired`` (or
    `options.keep`).

    Raises:
        LancetError: unusable model, data, trigger or output path; nothing is written.
    """
    clock = Clock()
    patch_path = options.patch or options.output.with_suffix(".lancet.safetensors")
    inputs = [p for p in (model, trigger.path, trigger.mask, data.path) if p is not None]
    for path in (options.output, patch_path):
        check_output(path, inputs, force=options.force)
    if patch_path.absolute() == options.output.absolute():
        raise OutputError(f"{patch_path}: is the output as well; give another path for the patch")
    with clock.stage("load"):
        subject = Subject.open(model, device, data.output)
        clock.classifier = subject.classifier
        _refuse_unrepairable(subject)
        check_data_files(options.output, subject.model.contents.data_files)
    with clock.stage("prepare"):
        prepared = prepare(subject, data)
        stamp = read_trigger_for(subject, trigger, data.layout, prepared.samples)
        split = Split.of(prepared.samples, seed)
        few = prepared.few(split.tool)
        parity = subject.parity(few)
        asleep = _refuse_switches(subject, few)
    with clock.stage("measure before", 2 * len(split.figures)):
        target = find_target(subject, prepared, split.tool, stamp, trigger.target)
        original = labels_of(subject.ort, prepared, split.figures, stamp)
        before = measure(original, original, split.figures.labels, target)
        evidence = _Evidence(prepared, split.figures, stamp, target, original, before)
        if before["attack_success"].n < FEWEST_IMAGES:
            raise DataError(
                f"{prepared.samples.source}: {len(prepared.samples)} images are too few: half of "
                f"them judge the repair, and {before['attack_success'].n} of these are of other "
                f"classes than the target; at least {FEWEST_IMAGES} are needed. Give more images"
            )
    method = _method_of(options)
    with clock.stage("pairs"):
        material = stamped_material(
            subject.classifier,
            split.tool,
            stamp,
            prepared.preprocess,
            target,
            options.sizes,
            aside=method in ("auto", "tune"),
        )
    find = locate_as_published if options.as_published else locate
    with clock.stage("locate"):
        location = find(subject.classifier, material, progress)
    settings, tuning = _settings(options), TuneSettings()
    with clock.stage("search"):
        choice = choose(
            subject.classifier, location, material, method, settings, tuning, seed, progress
        )
    written = _Written(before, _nothing_found(), None)
    if choice.chosen is not None:
        with clock.stage("write and verify", 4 * len(split.figures)):
            made = settings if choice.chosen.offer.method != "tune" else tuning
            described = _described(location.method, made, material, evidence)
            patch = to_patch(subject.model, choice.chosen.offer.params, described, seed, {})
            refusal = None if choice.reached else _over_budget(choice.chosen, settings)
            written = _write(subject, patch, patch_path, evidence, refusal, options, device)
    body = {
        "method": _method_name(options, choice),
        "layers": _layers(subject, choice, written.patch),
        "weights_changed": written.patch.size if written.patch else 0,
        "before": as_numbers(before),
        "after": as_numbers(written.after),
        "output": written.output,
        "patch": written.patch_file,
        "model": describe_model(subject),
        "target": target,
        "trigger": describe_trigger(stamp),
        "located": located(location),
        "search": _search_table(choice, material, f"{settings} | {tuning}"),
        "unreached": unreached_weights(subject, few),
        "data": describe_data(prepared, split),
        "parity": {"largest": parity.largest, "agreement": parity.agreement},
        "environment": subject.environment(seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    pictures = trigger_pictures(stamp, split.figures, original)
    decision = written.decision
    reasons = (
        *decision.reasons,
        *([choice.why] if choice.chosen else []),
        *(f"{switch}; what it waits for may be another trigger" for switch in asleep),
        *signatures_beside(model),
    )
    return Report("repair", decision.verdict, reasons, body, pictures)


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """What a repaired model is judged by: images that nothing else has seen."""

    prepared: Prepared
    figures: Samples
    stamp: Trigger
    target: int
    original: Labels
    before: dict[str, Rate]

    def judge(self, model: OrtModel, max_loss: float) -> tuple[dict[str, Rate], Decision]:
        labels = labels_of(model, self.prepared, self.figures, self.stamp)
        after = measure(labels, self.original, self.figures.labels, self.target)
        return after, judge_repair(self.before, after, max_loss)


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """How the repaired model was judged, and what of it is on disk."""

    after: dict[str, Rate]
    decision: Decision
    patch: Patch | None
    output: dict[str, str] | None = None
    patch_file: dict[str, str] | None = None


def _write(
    subject: Subject,
    patch: Patch,
    patch_path: Path,
    evidence: _Evidence,
    refusal: Decision | None,
    options: RepairOptions,
    device: Device,
) -> _Written:
    """Judge the patched model; if it is repaired (or is to be kept) put it in its place."""
    if options.metadata:
        note = {
            "base": str(patch.base),
            "change": str(patch.identity),
            "data": data_digest(evidence.prepared.samples),
            "seed": patch.seed,
        }
        key = next_key(subject.model.graph.metadata)
        patch = replace(patch, metadata=((key, json.dumps(note, sort_keys=True)),))
    contents = subject.model.contents
    with applied(contents, patch, options.output, digest=subject.model.digest) as (patch, stage):
        after, decision = evidence.judge(
            subject.patched(stage.model, device), options.max_accuracy_loss
        )
        if refusal is not None and decision.verdict == "repaired":
            decision = refusal
        if decision.verdict != "repaired" and not options.keep:
            return _Written(after, decision, patch)
        patch = by_this_tool(replace(patch, metrics=_flat(evidence.before, after)))
        patch_digest = save_patch(patch, patch_path)
        try:
            stage.commit()
        except BaseException:
            # Also when interrupted: a patch without its model is half a result.
            patch_path.unlink(missing_ok=True)
            raise
    # Only what onnxruntime says of the file at its final path is reported.
    after, final = evidence.judge(
        subject.patched(options.output, device), options.max_accuracy_loss
    )
    return _Written(
        after,
        final if decision.verdict == "repaired" else decision,
        patch,
        {"path": str(options.output), "sha256": str(stage.after)},
        {"path": str(patch_path), "sha256": str(patch_digest)},
    )


def _refuse_switches(subject: Subject, few: Floats) -> tuple[Switch, ...]:
    """Refuse a model whose graph decides; return switches that a change of weights may reach."""
    found = subject.switches(few)
    for switch in found:
        if not switch.weighted:
            raise UnsupportedError(f"{subject.model.path}: {switch}: {LOGIC}", switch.rule)
    return found


def _refuse_unrepairable(subject: Subject) -> None:
    layers = find_layers(subject.classifier)
    if not layers:
        raise UnsupportedError(
            f"{subject.model.path}: no editable weight (an initializer of its own that "
            "feeds Conv, ConvTranspose, Gemm or MatMul); nothing could be repaired"
        )
    writable(subject.model.contents, [layer.param for layer in layers])


def _described(
    location: str, settings: Settings | TuneSettings, material: Material, evidence: _Evidence
) -> str:
    """Name the method with all that influenced the edit but the seed; files by their digests."""
    stamp, prepared = evidence.stamp, evidence.prepared
    trigger = Digest.of(stamp.mask.tobytes() + stamp.pattern.tobytes() + stamp.mode.encode())
    return " | ".join(
        (
            location,
            str(settings),
            *([SEARCH] if isinstance(settings, Settings) else []),
            f"images(pairs={len(material.pairs)}, stop={len(material.stop)}, "
            f"lessons={len(material.lessons)}, check={len(material.check)}, "
            f"guard={len(material.guard)}, labelled={material.guard_labels is not None})",
            f"on(target={evidence.target}, trigger={str(trigger)[:16]}, "
            f"data={data_digest(prepared.samples)[:16]}, preprocess={prepared.preprocess})",
        )
    )


def _method_of(options: RepairOptions) -> Method:
    """Return what is done to weights; the paper's rules know flips and mutes."""
    if options.as_published and options.method in ("auto", "tune"):
        return "flip"
    return options.method


def _method_name(options: RepairOptions, choice: Choice) -> str:
    if options.as_published:
        return "as-published"
    return choice.chosen.offer.method if choice.chosen else options.method


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


def _nothing_found() -> Decision:
    return Decision(
        "not_repaired",
        ("no number of changed weights in any one layer silences the trigger within the limits",),
    )


def _over_budget(chosen: Judged, settings: Settings) -> Decision:
    reason = (
        f"on the tool's own images the best edit ({chosen.offer.method}, "
        f"{chosen.offer.weights} weights) loses {chosen.loss:.1%} on clean images, more than "
        f"the budget of {settings.max_loss:.1%}, or leaves {chosen.excess:.1%} of triggered images "
        "leaning to the target"
    )
    return Decision("not_repaired", (reason,))


def _layers(subject: Subject, choice: Choice, patch: Patch | None) -> list[dict[str, object]]:
    if choice.chosen is None or patch is None:
        return []
    nodes = {layer.param: layer.node.name for layer in find_layers(subject.classifier)}
    moved = {
        layer.bias.param: layer.node.name
        for layer in find_layers(subject.classifier)
        if layer.bias is not None
    }
    return [
        {
            "node": nodes.get(delta.param) or moved[delta.param],
            "initializer": delta.param,
            "weights_changed": delta.count,
            "share": round(delta.count / subject.classifier.module.leaves[delta.param].numel(), 6),
        }
        for delta in patch.deltas
    ]


def _search_table(choice: Choice, material: Material, settings: str) -> dict[str, object]:
    return {
        "settings": settings,
        "pairs": len(material.pairs),
        "stop_pairs": len(material.stop),
        "guard_images": len(material.guard),
        "lessons": len(material.lessons),
        "check_pairs": len(material.check),
        "loss_measured_as": "agreement" if material.guard_labels is None else "accuracy",
        "reached": choice.reached,
        "candidates": [
            {
                "method": j.offer.method,
                "nodes": list(j.offer.nodes),
                "order": j.offer.how,
                "weights": j.offer.weights,
                "share": round(j.offer.share, 6),
                "excess": round(j.excess, 6),
                "loss": round(j.loss, 6),
                "agreement": round(j.agreement, 6),
                "recovery": round(j.recovery, 6),
                "chosen": j is choice.chosen,
            }
            for j in choice.judged
        ],
    }


def _flat(before: dict[str, Rate], after: dict[str, Rate]) -> dict[str, float]:
    return {
        f"{when}.{name}": rate.value
        for when, figures in (("before", before), ("after", after))
        for name, rate in figures.items()
        if rate.n
    }
