# SPDX-License-Identifier: Apache-2.0
"""`repair`: locate, search, write, and let onnxruntime judge the written file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from lancet_onnx.api.options import DataOptions, RepairOptions, TriggerOptions
from lancet_onnx.api.scanning import (
    data_digest,
    describe_data,
    describe_model,
    describe_trigger,
    find_target,
    located,
    trigger_pictures,
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
from lancet_onnx.errors import OutputError, UnsupportedError
from lancet_onnx.locate import locate, locate_as_published
from lancet_onnx.model import load
from lancet_onnx.model.logic import logic_on_input
from lancet_onnx.model.write import check_output, save, seal, writable
from lancet_onnx.pairs import stamped_material
from lancet_onnx.patch import Patch, to_bytes
from lancet_onnx.repair import Candidate, Outcome, Settings, search, to_patch
from lancet_onnx.report import Report
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.ort import Device, OrtModel
from lancet_onnx.samples import Material, Split
from lancet_onnx.trigger import Trigger
from lancet_onnx.types import Digest, Progress, no_progress
from lancet_onnx.verify.metrics import Labels, Rate, as_numbers, measure
from lancet_onnx.verify.policy import Decision, judge_repair


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
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: is no regular file; give the path of a file to write")
    if patch_path.absolute() == options.output.absolute():
        raise OutputError(f"{patch_path}: is the output as well; give another path for the patch")
    with clock.stage("load"):
        subject = Subject.open(model, device)
        clock.classifier = subject.classifier
        _refuse_unrepairable(subject)
    with clock.stage("prepare"):
        prepared = prepare(subject, data)
        stamp = read_trigger_for(subject, trigger, data.layout, prepared.samples)
        split = Split.of(prepared.samples, seed)
        parity = subject.parity(prepared.inputs(split.tool))
    with clock.stage("measure before", 2 * len(split.figures)):
        target = find_target(subject, prepared, split.tool, stamp, trigger.target)
        original = labels_of(subject.ort, prepared, split.figures, stamp)
        before = measure(original, original, split.figures.labels, target)
    with clock.stage("pairs"):
        material = stamped_material(
            subject.classifier, split.tool, stamp, prepared.preprocess, target, options.sizes
        )
    find = locate_as_published if options.as_published else locate
    with clock.stage("locate"):
        location = find(subject.classifier, material, progress)
    settings = _settings(options)
    with clock.stage("search"):
        outcome = search(subject.classifier, location, material, settings, progress)
    after, decision, patch = before, _nothing_found(), None
    written: dict[str, object] = {"output": None, "patch": None}
    if outcome.chosen is not None:
        with clock.stage("write and verify", 2 * len(split.figures)):
            method = f"{location.method} | {settings} | K={len(material.pairs)}"
            patch, content = _patch(subject, outcome.chosen, method, options, seed, prepared)
            after, decision = _judge(
                OrtModel(content, subject.classifier.signature.input, device),
                prepared, split, stamp, target, original, before, options,
            )  # fmt: skip
            if not outcome.reached and decision.verdict == "repaired":
                decision = Decision("not_repaired", _over_budget(outcome.chosen, settings))
            if decision.verdict == "repaired" or options.keep:
                patch = replace(patch, metrics=_flat(before, after))
                save(to_bytes(patch), patch_path)
                try:
                    save(content, options.output, mode_of=model)
                except BaseException:
                    # Also when interrupted: a patch without its model is half a result.
                    patch_path.unlink(missing_ok=True)
                    raise
                after, decision = _final(
                    options, subject, device, prepared, split, stamp, target, original, before,
                    decision,
                )  # fmt: skip
                written = {
                    "output": {
                        "path": str(options.output),
                        "sha256": str(load(options.output).digest),
                    },
                    "patch": {
                        "path": str(patch_path),
                        "sha256": str(Digest.of(patch_path.read_bytes())),
                    },
                }
    body = {
        "method": "as-published" if options.as_published else options.kind,
        "layers": _layers(subject, outcome, patch),
        "weights_changed": patch.size if patch else 0,
        "before": as_numbers(before),
        "after": as_numbers(after),
        **written,
        "model": describe_model(subject),
        "target": target,
        "trigger": describe_trigger(stamp),
        "located": located(location),
        "search": _search_table(outcome, material, settings),
        "data": describe_data(prepared, split),
        "parity": {"largest": parity.largest, "agreement": parity.agreement},
        "environment": subject.environment(seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    pictures = trigger_pictures(stamp, split.figures, original)
    return Report("repair", decision.verdict, decision.reasons, body, pictures)


def _refuse_unrepairable(subject: Subject) -> None:
    branches = logic_on_input(subject.model.graph)
    if branches:
        raise UnsupportedError(f"{subject.model.path}: {branches[0]} {LOGIC}")
    layers = find_layers(subject.classifier)
    if not layers:
        raise UnsupportedError(
            f"{subject.model.path}: no editable weight (a float32 initializer of its own that "
            "feeds Conv, ConvTranspose, Gemm or MatMul); nothing could be repaired"
        )
    writable(subject.model, [layer.param for layer in layers])


def _settings(options: RepairOptions) -> Settings:
    if options.as_published:
        return Settings(
            kind=options.kind,
            compensate=False,
            max_loss=options.max_accuracy_loss,
            leaning=0.5,
            tolerance=0.01,
        )
    return Settings(
        kind=options.kind, compensate=options.compensate, max_loss=options.max_accuracy_loss
    )


def _patch(
    subject: Subject,
    chosen: Candidate,
    method: str,
    options: RepairOptions,
    seed: int,
    prepared: Prepared,
) -> tuple[Patch, bytes]:
    patch = to_patch(subject.model, chosen, method, seed, {})
    if options.metadata:
        note = {
            "base": str(patch.base),
            "change": str(patch.identity),
            "data": data_digest(prepared.samples),
            "seed": seed,
        }
        patch = replace(patch, metadata=json.dumps(note, sort_keys=True))
    return seal(subject.model, patch)


def _judge(
    model: OrtModel,
    prepared: Prepared,
    split: Split,
    stamp: Trigger,
    target: int,
    original: Labels,
    before: dict[str, Rate],
    options: RepairOptions,
) -> tuple[dict[str, Rate], Decision]:
    labels = labels_of(model, prepared, split.figures, stamp)
    after = measure(labels, original, split.figures.labels, target)
    return after, judge_repair(before, after, options.max_accuracy_loss)


def _final(
    options: RepairOptions,
    subject: Subject,
    device: Device,
    prepared: Prepared,
    split: Split,
    stamp: Trigger,
    target: int,
    original: Labels,
    before: dict[str, Rate],
    decision: Decision,
) -> tuple[dict[str, Rate], Decision]:
    """Measure again on the file at its final path: only these figures are reported."""
    model = OrtModel(options.output, subject.classifier.signature.input, device)
    after, again = _judge(model, prepared, split, stamp, target, original, before, options)
    return after, decision if decision.verdict != "repaired" else again


def _nothing_found() -> Decision:
    return Decision(
        "not_repaired",
        ("no number of changed weights in any one layer silences the trigger within the limits",),
    )


def _over_budget(chosen: Candidate, settings: Settings) -> tuple[str, ...]:
    return (
        f"on the tool's own images the best edit (node '{chosen.edit.layer.node.name}', "
        f"{len(chosen.edit.index)} weights) loses {chosen.loss:.1%} on clean images, more than "
        f"the budget of {settings.max_loss:.1%}, or leaves {chosen.excess:.1%} of triggered images "
        "leaning to the target",
    )


def _layers(subject: Subject, outcome: Outcome, patch: Patch | None) -> list[dict[str, object]]:
    if outcome.chosen is None or patch is None:
        return []
    layer = outcome.chosen.edit.layer
    return [
        {
            "node": layer.node.name,
            "initializer": delta.param,
            "weights_changed": len(delta.index),
            "share": round(
                len(delta.index) / subject.classifier.module.leaves[delta.param].numel(), 6
            ),
        }
        for delta in patch.deltas
    ]


def _search_table(outcome: Outcome, material: Material, settings: Settings) -> dict[str, object]:
    return {
        "settings": str(settings),
        "pairs": len(material.pairs),
        "stop_pairs": len(material.stop),
        "guard_images": len(material.guard),
        "loss_measured_as": "agreement" if material.guard_labels is None else "accuracy",
        "reached": outcome.reached,
        "candidates": [
            {
                "node": c.edit.layer.node.name,
                "order": c.order.method,
                "weights": len(c.edit.index),
                "share": round(c.share, 6),
                "excess": round(c.excess, 6),
                "guard_loss": round(c.loss, 6),
                "guard_agreement": round(c.agreement, 6),
                "recovery": round(c.recovery, 6),
                "chosen": c is outcome.chosen,
            }
            for c in outcome.candidates
        ],
    }


def _flat(before: dict[str, Rate], after: dict[str, Rate]) -> dict[str, float]:
    return {
        f"{when}.{name}": rate.value
        for when, figures in (("before", before), ("after", after))
        for name, rate in figures.items()
        if rate.n
    }
