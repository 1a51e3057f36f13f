# SPDX-License-Identifier: Apache-2.0
"""What all repairs begin and end with: refuse what cannot be repaired, write what was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from lancet_onnx.api.describing import data_digest
from lancet_onnx.api.options import DataOptions, RepairOptions
from lancet_onnx.api.patching import by_this_tool, save_patch, signatures_beside
from lancet_onnx.api.repair_body import flat_metrics
from lancet_onnx.api.subject import LOGIC, Clock, Prepared, Subject
from lancet_onnx.errors import OutputError, UnsupportedError
from lancet_onnx.model.files import check_data_files, check_output
from lancet_onnx.model.logic import Switch
from lancet_onnx.model.placing import writable
from lancet_onnx.model.write import applied, next_key
from lancet_onnx.patch import Patch, usual_path
from lancet_onnx.repair import Choice
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.ort import Device, OrtModel
from lancet_onnx.samples.core import Floats, Ints
from lancet_onnx.verify.metrics import Rate
from lancet_onnx.verify.policy import Decision


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What a repaired model comes to.

    Attributes:
        after: its figures.
        decision: what they say.
        clean: (N,) int64, what it says of the clean images that it is judged by.
    """

    after: dict[str, Rate]
    decision: Decision
    clean: Ints


class Evidence(Protocol):
    """What a repaired model is judged by: images that nothing else has seen."""

    @property
    def prepared(self) -> Prepared:
        """The data."""

    @property
    def before(self) -> Mapping[str, Rate]:
        """The unrepaired model's figures."""

    def judge(self, model: OrtModel) -> Judgement:
        """Return a model's figures and what they say."""


def destination(options: RepairOptions, inputs: Sequence[Path | None]) -> Path:
    """Return where the patch goes, once nothing speaks against it and the model's path.

    Raises:
        OutputError: a path that cannot be written, or that would replace something.
    """
    patch_path = options.patch or usual_path(options.output)
    given = [path for path in inputs if path is not None]
    for path in (options.output, patch_path):
        check_output(path, given, force=options.force)
    if patch_path.absolute() == options.output.absolute():
        raise OutputError(f"{patch_path}: is the output as well; give another path for the patch")
    return patch_path


def open_repairable(
    model: Path, device: Device, data: DataOptions, options: RepairOptions, clock: Clock
) -> Subject:
    """Open a model, which `clock` times from then on, if its weights can be changed and written."""
    subject = Subject.open(model, device, data.output)
    clock.classifier = subject.classifier
    _refuse_unrepairable(subject)
    check_data_files(options.output, subject.model.contents.data_files)
    return subject


def closing_words(
    model: Path, decision: Decision, choice: Choice | None, asleep: Sequence[Switch]
) -> tuple[str, ...]:
    """Return all that a repair says in words: verdict, choice, switches left, signatures."""
    return (
        *decision.reasons,
        *([choice.why] if choice and choice.chosen else []),
        *(f"{switch}; what it waits for may be another trigger" for switch in asleep),
        *signatures_beside(model),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """How the repaired model was judged, and what of it is on disk; `clean` as in `Judgement`."""

    after: dict[str, Rate]
    decision: Decision
    patch: Patch | None
    output: dict[str, str] | None = None
    patch_file: dict[str, str] | None = None
    clean: Ints | None = None


def write_judged(
    subject: Subject,
    patch: Patch,
    patch_path: Path,
    evidence: Evidence,
    refusal: Decision | None,
    options: RepairOptions,
    device: Device,
) -> Written:
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
        found = evidence.judge(subject.patched(stage.model, device))
        decision = found.decision
        if refusal is not None and decision.verdict == "repaired":
            decision = refusal
        if decision.verdict != "repaired" and not options.keep:
            return Written(found.after, decision, patch, clean=found.clean)
        patch = by_this_tool(replace(patch, metrics=flat_metrics(evidence.before, found.after)))
        patch_digest = save_patch(patch, patch_path)
        try:
            stage.commit()
        except BaseException:
            # Also when interrupted: a patch without its model is half a result.
            patch_path.unlink(missing_ok=True)
            raise
    # Only what onnxruntime says of the file at its final path is reported.
    found = evidence.judge(subject.patched(options.output, device))
    return Written(
        found.after,
        found.decision if decision.verdict == "repaired" else decision,
        patch,
        {"path": str(options.output), "sha256": str(stage.after)},
        {"path": str(patch_path), "sha256": str(patch_digest)},
        found.clean,
    )


def refuse_switches(subject: Subject, few: Floats) -> tuple[Switch, ...]:
    """Refuse a model whose graph decides; return switches that a change of weights may reach."""
    found = subject.switches(few)
    for switch in found:
        if not switch.weighted:
            raise UnsupportedError(f"{subject.model.path}: {switch}: {LOGIC}", switch.rule)
    return found


def _refuse_unrepairable(subject: Subject) -> None:
    """Refuse a model without editable weights, or whose weights cannot be written in place."""
    layers = find_layers(subject.classifier)
    if not layers:
        raise UnsupportedError(
            f"{subject.model.path}: no editable weight (an initializer of its own that "
            "feeds Conv, ConvTranspose, Gemm or MatMul); nothing could be repaired"
        )
    writable(subject.model.contents, [layer.param for layer in layers])
