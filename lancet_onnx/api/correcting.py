# SPDX-License-Identifier: Apache-2.0
"""`repair --errors`: few weights learn what misclassified images should be called."""

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
from lancet_onnx.api.corrected import correction_body, correction_pictures
from lancet_onnx.api.describing import (
    data_digest,
    describe_data,
    describe_model,
    located,
    unreached_weights,
)
from lancet_onnx.api.given import Given, read_given
from lancet_onnx.api.halves import halved
from lancet_onnx.api.learning import Learning, farthest
from lancet_onnx.api.options import CorrectOptions, DataOptions, RepairOptions
from lancet_onnx.api.repair_body import changed_layers
from lancet_onnx.api.subject import Clock, Prepared, Subject, prepare
from lancet_onnx.api.teaching import Taught, teach
from lancet_onnx.errors import DataError, UsageError
from lancet_onnx.pairs.canvas import check_gradients
from lancet_onnx.repair import to_patch
from lancet_onnx.repair.correct import moved
from lancet_onnx.repair.moving import weights_of
from lancet_onnx.report import Report
from lancet_onnx.runtime.ort import Device, OrtModel
from lancet_onnx.samples import Samples
from lancet_onnx.samples.core import Ints
from lancet_onnx.types import Progress, no_progress
from lancet_onnx.verify.correcting import judge_correction
from lancet_onnx.verify.metrics import (
    Labels,
    Rate,
    as_numbers,
    changed_labels,
    corrections,
    measure,
)
from lancet_onnx.verify.policy import FEWEST_IMAGES, Decision

GIVEN = "given_corrected"
"""The figure of held-out errors of those that were given."""


def repair_errors(
    model: Path,
    data: DataOptions,
    options: RepairOptions,
    correct: CorrectOptions | None = None,
    *,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress = no_progress,
) -> Report:
    """Repair the images that `model` gets wrong, those of the data or others with their labels.

    One half of the data (and of the errors, if they are given apart) is learnt from and chooses;
    every figure comes from the other half, run by onnxruntime on the written file. Images that
    repaired this model before are halved as they were then, and that seed is taken. Nothing is
    written unless more of those images got better than worse (or `options.keep`).

    Raises:
        LancetError: unusable model, data, errors or output path; nothing is written.
    """
    correct = correct or CorrectOptions()
    if options.method not in ("auto", "tune"):
        raise UsageError(
            f"--method {options.method} silences triggers; errors on honest images are repaired by "
            "tuning. Leave --method away"
        )
    clock = Clock()
    patch_path = destination(options, [model, data.path, correct.errors])
    with clock.stage("load"):
        subject = open_repairable(model, device, data, options, clock)
        check_gradients(subject.classifier)
    with clock.stage("prepare"):
        prepared = prepare(subject, data)
        if prepared.samples.labels is None:
            raise DataError(
                f"{prepared.samples.source}: no labels; which images the model gets wrong, and "
                "what a repair breaks, show true labels only. Give class folders, an .npz with x "
                "and y, or a CSV of path,label"
            )
        split = halved(subject.model, prepared, seed).split
        seed = split.seed
        given = None
        if correct.errors is not None:
            given = read_given(subject, prepared, data, correct.errors, split)
        few = prepared.few(split.tool)
        parity = subject.parity(few)
        asleep = refuse_switches(subject, few)
    with clock.stage("measure before", len(split.figures)):
        evidence = _Evidence.of(subject, prepared, split.figures, given, correct.max_regression)
        learnt = given.learnt if given is not None else None
        learning = Learning.of(subject.classifier, prepared, split.tool, learnt, seed)
        errors = int(learning.wrong.sum())
        nothing = _nothing_to_repair(evidence, errors)
    taught, parts, part = None, [], None
    if nothing is not None:
        written = Written(evidence.before, nothing, None)
    else:
        with clock.stage("learn"):
            taught = teach(
                learning.canvas, learning.true, seed,
                published=options.as_published, progress=progress,
            )  # fmt: skip
            parts = learning.parts(taught.deltas)
            part = farthest(parts, correct.max_regression)
        with clock.stage("write and verify", 2 * evidence.images):
            params = moved(subject.classifier, taught.deltas, part)
            described = (
                f"{taught.how} | part {part} of the way | on(errors={errors}, "
                f"images={len(learning.true)}, data={data_digest(prepared.samples)[:16]}, "
                f"preprocess={prepared.preprocess})"
            )
            patch = to_patch(subject.model, params, described, seed, {})
            if patch.size:
                written = write_judged(subject, patch, patch_path, evidence, None, options, device)
            else:
                why = (
                    "no weight that the file stores changed: what was learnt is lost in rounding. "
                    "Repair the model before it is quantised"
                )
                written = Written(evidence.before, Decision("not_repaired", (why,)), None)
    now = evidence.original if written.clean is None else written.clean
    body = {
        "method": "as-published" if options.as_published else "tune",
        "layers": changed_layers(subject, written.patch),
        "weights_changed": written.patch.size if written.patch else 0,
        "weights": weights_of(subject.classifier),
        "before": as_numbers(evidence.before),
        "after": as_numbers(written.after),
        "changed_labels": changed_labels(evidence.original, now, evidence.true),
        "output": written.output,
        "patch": written.patch_file,
        "model": describe_model(subject),
        "corrections": correction_body(
            evidence.original, now, evidence.true, split.figures.classes
        ),
        "errors": _describe_errors(given, errors, written.after.get(GIVEN), taught),
        "located": located(taught.location if taught else None),
        "parts": [{**one, "chosen": one["part"] == part} for one in parts],
        "unreached": unreached_weights(subject, few),
        "data": describe_data(prepared, split),
        "parity": {"largest": parity.largest, "agreement": parity.agreement},
        "environment": subject.environment(seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    pictures = correction_pictures(split.figures, evidence.original, now)
    words = _said(given)
    reasons = (*closing_words(model, written.decision, None, asleep), *words)
    return Report("repair", written.decision.verdict, reasons, body, pictures)


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """What a repaired model is judged by: images that nothing else has seen."""

    prepared: Prepared
    figures: Samples
    held_out: Given | None
    original: Ints
    before: dict[str, Rate]
    max_regression: float

    @classmethod
    def of(
        cls,
        subject: Subject,
        prepared: Prepared,
        figures: Samples,
        given: Given | None,
        max_regression: float,
    ) -> _Evidence:
        original = subject.ort.labels(prepared.inputs(figures))
        labels = Labels(original, None)
        before = measure(labels, labels, figures.labels, None)
        right = before["clean_accuracy"].count
        if right < FEWEST_IMAGES:
            raise DataError(
                f"{figures.source}: {right} of {len(figures)} images that a repair is judged by "
                f"are right now; at least {FEWEST_IMAGES} are needed to see what it breaks. Give "
                "more images"
            )
        held = given if given is not None and len(given.held_out) else None
        return cls(prepared, figures, held, original, before, max_regression)

    @property
    def images(self) -> int:
        """How many images judge a model."""
        return len(self.figures) + (len(self.held_out.held_out) if self.held_out else 0)

    @property
    def true(self) -> Ints:
        assert self.figures.labels is not None  # noqa: S101 - unlabelled data was refused
        return self.figures.labels

    def judge(self, model: OrtModel) -> Judgement:
        now = model.labels(self.prepared.inputs(self.figures))
        after, apart = corrections(now, self.original, self.true), 0
        if self.held_out is not None:
            held = self.held_out.held_out
            hits = model.labels(self.prepared.inputs(held)) == held.labels
            after[GIVEN], apart = Rate.of(hits), int(hits[: self.held_out.apart].sum())
        decision = judge_correction(after, after.get(GIVEN), apart, self.max_regression)
        return Judgement(after, decision, now)


def _nothing_to_repair(evidence: _Evidence, errors: int) -> Decision | None:
    wrong = int((evidence.original != evidence.true).sum())
    if errors and (wrong or evidence.held_out is not None):
        return None
    return Decision(
        "not_repaired",
        (
            f"nothing was changed: of the images that are learnt from {errors} are wrong, of those "
            f"that judge a repair {wrong}; both need some. Give more images, or errors with "
            "--errors",
        ),
    )


def _describe_errors(
    given: Given | None, errors: int, corrected: Rate | None, taught: Taught | None
) -> dict[str, object]:
    """Return how many errors served for what."""
    return {
        "learnt_from": errors,
        "given": given.count if given else None,
        "no_errors": given.no_errors if given else None,
        "also_in_data": given.known if given else None,
        "held_out": len(given.held_out) if given else None,
        "held_out_corrected": corrected.count if corrected is not None else None,
        "without_companion": taught.unsolved if taught and taught.location else None,
    }


def _said(given: Given | None) -> tuple[str, ...]:
    if given is None:
        return ()
    words = []
    if given.no_errors:
        words.append(
            f"{given.no_errors} of the {given.count} images that were given as errors are right "
            "already and were left out"
        )
    if given.known:
        words.append(
            f"{given.known} of the errors are among the data as well; they stay in their half of "
            "it, so that none is learnt from and reported"
        )
    return tuple(words)
