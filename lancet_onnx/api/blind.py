# SPDX-License-Identifier: Apache-2.0
"""`repair --from` a scan without a trigger: silence a trigger that nobody has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lancet_onnx.api.committing import (
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
    trigger_pictures,
    unreached_weights,
)
from lancet_onnx.api.fresh import Evidence
from lancet_onnx.api.halves import halved
from lancet_onnx.api.options import DataOptions, RepairOptions, SuspectOptions
from lancet_onnx.api.repair_body import changed_layers, describe_edit, search_table
from lancet_onnx.api.subject import Clock, Subject, prepare, read_trigger_for
from lancet_onnx.errors import DataError, UsageError
from lancet_onnx.explain.pictures import trigger_png
from lancet_onnx.pairs.canvas import Canvas, check_gradients
from lancet_onnx.pairs.hunt import BATCH, FORMS, STEPS
from lancet_onnx.pairs.natural import Natural, natural, strays
from lancet_onnx.pairs.reconstruct import reconstruct
from lancet_onnx.pairs.union import LESSONS, Stamp, stamped_pairs, union
from lancet_onnx.repair import Choice, Settings, TuneSettings, choose, to_patch
from lancet_onnx.report import Picture, Report
from lancet_onnx.runtime.executor import Params
from lancet_onnx.runtime.ort import Device
from lancet_onnx.samples import Material, Samples
from lancet_onnx.trigger import Trigger
from lancet_onnx.types import Progress, no_progress
from lancet_onnx.verify.metrics import as_numbers, changed_labels
from lancet_onnx.verify.policy import FEWEST_IMAGES, Decision
from lancet_onnx.verify.searching import CLOSE, SUSPECT, compared, score_of

STARTS, ROUNDS = 3, 2
"""Sets of triggers: all but the last are learnt from, the last compares edits. At most so many
rounds of repair and new search."""

FRESH = 1
"""Sets of triggers that judge the written file; nothing else has seen them."""

COMPARED = 4
"""Other classes that the suspect is compared with before anything is changed."""

TUNING = TuneSettings(warm=(1.0,), ladder=(0.2, 0.1), steps=60)
"""Wide edits: narrow ones silence as much and cost more accuracy than few images show."""

PUSHES = (20.0, TuneSettings().push)
"""How hard the class is kept under the others, the hardest first: what silences more of what was
never seen costs more accuracy. Gentler ones are tried where that is over the budget."""


def repair_blind(
    model: Path,
    suspects: SuspectOptions,
    data: DataOptions,
    options: RepairOptions,
    *,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress = no_progress,
) -> Report:
    """Silence all that can be reconstructed of a backdoor to the suspect class.

    What is found by a search only tunes: nothing is located, so flips and mutes, the paper's rules,
    compensation and `options.sizes` have no part in it.

    Half of the images (seeded) reconstructs, tunes and chooses; the other half judges the written
    file under fresh reconstructions. Images that repaired this model before are halved as they were
    then, and that seed is taken.

    Raises:
        UsageError: another method than tuning was asked for.
        LancetError: unusable model, data, trigger or output path; nothing is written.
    """
    clock, target = Clock(), suspects.target
    if options.as_published or options.method not in ("auto", "tune"):
        asked = "the paper's rules" if options.as_published else f"the method {options.method}"
        raise UsageError(
            f"{asked} needs a given trigger: what a search found is silenced by tuning only. "
            "Leave --method and --as-published out, or give --trigger instead of --from"
        )
    patch_path = destination(options, [model, data.path, *(t.path for t in suspects.triggers)])
    with clock.stage("load"):
        subject = open_repairable(model, device, data, options, clock)
        if not 0 <= target < subject.classifier.signature.classes:
            raise DataError(f"class {target}: the model has no such class")
        check_gradients(subject.classifier)
    with clock.stage("prepare"):
        prepared = prepare(subject, data)
        split = halved(subject.model, prepared, seed).split
        seed = split.seed
        few = prepared.few(split.tool)
        parity = subject.parity(few)
        asleep = refuse_switches(subject, few)
        given = [
            _as_stamp(read_trigger_for(subject, t, data.layout, prepared.samples))
            for t in suspects.triggers
            if not prepared.samples.raw
        ]
        canvas = Canvas.of(subject.classifier, split.tool, prepared.preprocess)
        usual = natural(canvas, seed)
    with clock.stage("reconstruct"):
        others = _others(subject, target, seed)
        score = _score(canvas, usual, target, seed + 50, others=others)
        fresh = union(canvas, usual, target, FRESH, seed + 100, progress=progress)
        budget = options.max_accuracy_loss
        evidence = Evidence.of(subject, prepared, split.figures, canvas, fresh, target, budget)
    if evidence.before["attack_success"].n < FEWEST_IMAGES:
        raise DataError(
            f"{prepared.samples.source}: too few images of other classes to judge a repair by; "
            "give more"
        )
    if score < SUSPECT and not options.keep:
        why = (
            f"nothing was changed: a search of its own finds no suspect trigger to class {target} "
            f"(score {score:.2f}, suspect from {SUSPECT:.2f} on)"
        )
        written = Written(evidence.before, Decision("not_repaired", (why,)), None)
        learnt = None
    else:
        learnt = _rounds(
            subject, canvas, usual, target, given, split.tool, options, seed, clock, progress
        )
        written = _commit(
            subject, evidence, learnt, patch_path, options, device, seed, clock, usual
        )
    choice = learnt.choice if learnt else None
    body = {
        "method": "tune" if choice and choice.chosen else options.method,
        "layers": changed_layers(subject, written.patch),
        "weights_changed": written.patch.size if written.patch else 0,
        "before": as_numbers(evidence.before),
        "after": as_numbers(written.after),
        "changed_labels": changed_labels(
            evidence.original.clean, written.clean, split.figures.labels
        ),
        "output": written.output,
        "patch": written.patch_file,
        "model": describe_model(subject),
        "target": target,
        "residual_risk": evidence.risk,
        "located": [],
        "search": search_table(choice, learnt.material if learnt else None),
        "unreached": unreached_weights(subject, few),
        "data": describe_data(prepared, split),
        "parity": {"largest": parity.largest, "agreement": parity.agreement},
        "environment": subject.environment(seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    shown = evidence.triggers[:4]
    pictures = (
        *(Picture("reconstructed", t.source, trigger_png(t)) for t in shown if canvas.layout),
        *(trigger_pictures(shown[0], split.figures, evidence.each[0])[1:] if shown else ()),
    )
    reasons = closing_words(model, written.decision, choice, asleep)
    return Report("repair", written.decision.verdict, reasons, body, pictures)


@dataclass(frozen=True, slots=True, eq=False)
class _Learnt:
    """What rounds of tuning came to, from what, and how the last one was tuned."""

    choice: Choice
    material: Material
    tuning: TuneSettings


def _rounds(
    subject: Subject,
    canvas: Canvas,
    usual: Natural,
    target: int,
    given: Sequence[Stamp],
    tool: Samples,
    options: RepairOptions,
    seed: int,
    clock: Clock,
    progress: Progress,
) -> _Learnt:
    """Tune on a union of triggers; search the result anew and learn from what is found as well."""
    with clock.stage("triggers"):
        sets = union(canvas, usual, target, STARTS, seed + 200, kinds=LESSONS, progress=progress)
    lessons = [*given, *(s for group in sets[:-1] for s in group)]
    aside = len(tool) // 4
    settings = Settings(max_loss=options.max_accuracy_loss)
    true = tool.labels
    pushes: Sequence[float] = PUSHES
    for number in range(ROUNDS):
        with clock.stage(f"tune, round {number + 1}"):
            held = stamped_pairs(
                canvas.take(slice(aside)),
                sets[-1],
                target,
                None if true is None else true[:aside],
                2,
                seed + 1,
            )
            work = canvas.take(slice(aside, None))
            learnt = stamped_pairs(
                work, lessons, target, None if true is None else true[aside:], 2, seed + 2
            )
            guard = work.inputs(work.pixels).cpu().numpy().astype(np.float32)
            material = Material(
                held,
                held,
                learnt,
                held,
                guard,
                None if true is None else true[aside:],
            )
            for push in pushes:
                tuning = replace(TUNING, push=push)
                choice = choose(
                    subject.classifier, None, material, "tune", settings, tuning, seed, progress
                )
                if choice.chosen is not None and choice.chosen.loss <= settings.max_loss:
                    break
            # What cost too much here costs no less where there is more to learn.
            pushes = pushes[pushes.index(push) :]
        if choice.chosen is None or number + 1 == ROUNDS:
            break
        with clock.stage(f"search again, round {number + 1}"):
            params = choice.chosen.offer.params
            if _score(canvas, usual, target, seed + 300 + number, params) < CLOSE:
                break
            start = seed + 400 + number
            more = union(canvas, usual, target, 2, start, params, kinds=LESSONS, progress=progress)
            lessons += more[0]
            sets[-1] = [*sets[-1], *more[1]]
    return _Learnt(choice, material, tuning)


def _others(subject: Subject, target: int, seed: int) -> list[int]:
    """Return a few classes to compare the suspect with."""
    rest = [c for c in range(subject.classifier.signature.classes) if c != target]
    chosen = np.random.default_rng(seed).permutation(len(rest))[:COMPARED]
    return [rest[i] for i in chosen]


def _score(
    canvas: Canvas,
    usual: Natural,
    target: int,
    seed: int,
    params: Params | None = None,
    others: Sequence[int] = (),
) -> float:
    """Return the score of the class by a search of its own, as `scan` would give it."""
    classes = [target, target, *others]
    rows: list[dict[str, float]] = [{} for _ in classes]
    for form in FORMS:
        found = reconstruct(
            canvas, usual, classes, steps=STEPS, batch=BATCH, form=form, seed=seed, params=params
        )
        assert found is not None  # noqa: S101 - nothing broke it off
        for row, cost in zip(rows, found.cost.tolist(), strict=True):
            row[form.name] = cost
    # Junk leads elsewhere once a model is repaired.
    stray = usual.stray if params is None else strays(canvas, seed, params)
    scores = [
        score_of(row, share) for row, share in zip(rows, stray[classes].tolist(), strict=True)
    ]
    return compared(max(scores[:2]), scores[2:])


def _commit(
    subject: Subject,
    evidence: Evidence,
    learnt: _Learnt,
    patch_path: Path,
    options: RepairOptions,
    device: Device,
    seed: int,
    clock: Clock,
    usual: Natural,
) -> Written:
    choice = learnt.choice
    if choice.chosen is None:
        return Written(evidence.before, Decision("not_repaired", (choice.why,)), None)
    with clock.stage("search again, at last"):
        again = _score(
            evidence.canvas, usual, evidence.target, seed + 500, choice.chosen.offer.params
        )
        evidence.risk["search_again"] = {"score": round(again, 4)}
        evidence = replace(evidence, again=again)
    with clock.stage("write and verify", 4 * len(evidence.figures)):
        made = " | ".join(
            (
                f"blind(union={len(LESSONS)} kinds, starts={STARTS}, rounds={ROUNDS})",
                *describe_edit(learnt.tuning, learnt.material, compared=True),
                f"on(target={evidence.target}, data={data_digest(evidence.prepared.samples)[:16]}, "
                f"preprocess={evidence.prepared.preprocess})",
            )
        )
        patch = to_patch(subject.model, choice.chosen.offer.params, made, seed, {})
        return write_judged(subject, patch, patch_path, evidence, None, options, device)


def _as_stamp(trigger: Trigger) -> Stamp:
    mask, pattern = (
        torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))
        for part in (trigger.mask, trigger.pattern)
    )
    return Stamp("scan", mask[:1], pattern)
