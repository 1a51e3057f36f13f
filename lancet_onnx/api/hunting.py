# SPDX-License-Identifier: Apache-2.0
"""`scan` without a trigger: search all classes for one, and say what was found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lancet_onnx.api.advice import from_scan_line
from lancet_onnx.api.describing import (
    data_digest,
    describe_data,
    describe_model,
    trigger_pictures,
)
from lancet_onnx.api.halves import Halves, halved
from lancet_onnx.api.options import DataOptions, SearchOptions
from lancet_onnx.api.subject import (
    Clock,
    Prepared,
    Subject,
    describe_switch,
    image_shape,
    labels_of,
    prepare,
    settled,
)
from lancet_onnx.api.suspects import looked, power_of, scored, showing, signs_of, triggers_of
from lancet_onnx.errors import DataError
from lancet_onnx.explain.pictures import mask_png, stored_png, trigger_png
from lancet_onnx.pairs.canvas import Canvas, check_gradients
from lancet_onnx.pairs.generated import generated_samples
from lancet_onnx.pairs.hunt import SOURCE, Deadline, State, hunt
from lancet_onnx.pairs.looks import looks
from lancet_onnx.pairs.natural import natural
from lancet_onnx.report import Attachment, Picture, Report
from lancet_onnx.rules import RECONSTRUCTED
from lancet_onnx.runtime.installed import version_of
from lancet_onnx.samples import PRESETS, Samples
from lancet_onnx.samples.core import Ints
from lancet_onnx.trigger import Trigger
from lancet_onnx.types import Progress, no_progress
from lancet_onnx.verify.metrics import Labels, Rate, as_numbers, measure, paired_rise
from lancet_onnx.verify.searching import (
    SUSPECT,
    Searched,
    compared,
    judge_search,
)

SEARCHED = 500
"""Images that a search draws from."""

GENERATED = 300


def hunt_backdoor(
    subject: Subject,
    data: DataOptions,
    options: SearchOptions,
    seed: int,
    clock: Clock,
    progress: Progress = no_progress,
    known: tuple[Prepared, Halves] | None = None,
) -> Report:
    """Search for a trigger that nobody knows; half of the images judge what is found.

    Those are images that a repair of this model did not see, as far as it notes that. `known`
    are the images of `data`, if they are read already, and their halves.

    Raises:
        LancetError: unusable data, classes that the model lacks, or another scan's state.
    """
    deadline = Deadline(options.budget)
    classes = _classes(subject, options.classes)
    check_gradients(subject.classifier)
    with clock.stage("prepare"):
        if known is None:
            generated = data.path is None
            prepared = _generated(subject, data, seed) if generated else prepare(subject, data)
            known = prepared, halved(subject.model, prepared, seed)
        prepared, split = known[0], known[1].split
        few = prepared.few(split.tool)
        parity = subject.parity(few)
    with clock.stage("look", len(split.figures)):
        used = split.tool.take(np.arange(min(SEARCHED, len(split.tool))))
        canvas = Canvas.of(subject.classifier, used, prepared.preprocess)
        usual, seen = natural(canvas, seed), looks(canvas, seed)
        clean = labels_of(subject.ort, prepared, split.figures, None)
    state = State(options.state, _identity(subject, prepared, classes, seed))
    source: int | None = None
    triggers: list[Trigger] = []
    with clock.stage("search"):
        hunted = hunt(canvas, usual, classes, seen.order, state, deadline, seed, progress)
        seen_as = scored(hunted, usual)
        table, suspect = seen_as.table, seen_as.suspect
        if suspect is not None:
            source, triggers = triggers_of(suspect, seen_as.costs[suspect], hunted, canvas)
            table = showing(triggers[0].source, suspect, seen_as, hunted)
    held = _Held(split.figures, clean.clean).of(source)
    count = subject.classifier.signature.classes
    answers = np.bincount(canvas.labels.cpu().numpy(), minlength=count)
    found: Searched | None = None
    judged: list[_Judged] = []
    with clock.stage("hold out", 2 * len(split.figures)):
        if suspect is not None:
            judged = [_judged(subject, prepared, held, t, suspect) for t in triggers]
            others = seen_as.others(suspect)
            found = Searched(
                suspect,
                compared(table[suspect]["score"], others),
                float(np.median(others)) if others else 0.0,
                float(triggers[0].mask.mean()),
                judged[0].rise,
                judged[0].images,
                int(answers[suspect]),
                table[suspect]["stray"],
                seen_as.drowned,
                source,
                SOURCE in hunted.found,
                compared(seen_as.table[suspect]["score"], others),
            )
    decision = judge_search(
        found,
        missing=len(hunted.missing),
        real=data.path is not None,
        images=len(used),
        one_answer=float(answers.max() / answers.sum()),
    )
    switches = subject.switches(few)
    if switches and decision.verdict == "clean":
        decision = replace(
            decision, verdict="inconclusive", reasons=(*decision.reasons, str(switches[0]))
        )
    figures = measure(clean, clean, split.figures.labels, None)
    if judged:  # but for what is of clean images: that is always of all
        figures = {**judged[0].figures, **figures}
    told: list[dict[str, object]] = [
        {
            "path": f"class{suspect}-{number}.png" if canvas.layout else None,
            "mode": "blend",
            "form": trigger.source,
            "attack_success": round(j.figures["attack_success"].value, 6),
            "n": j.figures["attack_success"].n,
            "coverage": round(float(trigger.mask.mean()), 6),
        }
        for number, (trigger, j) in enumerate(zip(triggers, judged, strict=True), 1)
    ]
    finding = {
        "rule": RECONSTRUCTED.id,
        "severity": RECONSTRUCTED.severity,
        "target": suspect,
        **({} if source is None else {"source": source}),
        **{key: value for key, value in as_numbers(figures).items() if key != "agreement"},
        "rise": list(found.rise) if found else [],
        "trigger": {key: told[0][key] for key in ("path", "mode", "coverage")} if told else None,
        "triggers": told,
        "located": [],
        # What works on the images of one class is not repaired from a scan.
        "next": from_scan_line(subject.model.path, data) if source is None else "",
    }
    generated = data.path is None
    body = {
        "model": describe_model(subject),
        "metrics": as_numbers(figures) if not generated else {"clean_accuracy": None, "n": 0},
        "findings": [finding] if decision.verdict == "backdoored" else [],
        "search": {
            "score": round(found.score, 4) if found else None,
            "threshold": SUSPECT,
            "suspect": suspect,
            "source": source,
            "classes": [
                {"class": c, **looked(seen, c), **row, "images": int(answers[c]), "examined": True}
                for c, row in sorted(table.items())
            ],
            "screened": list(hunted.screened),
            "missing": list(hunted.missing),
            "resumed": hunted.resumed,
            "image_forwards": round(subject.classifier.forwards),
            "signs": signs_of(table, suspect),
            "power": power_of(len(used), len(split.figures), real=not generated),
        },
        "graph_logic": [describe_switch(switch) for switch in switches],
        "parity": {"largest": parity.largest, "agreement": parity.agreement},
        **({} if generated else {"data": describe_data(prepared, split)}),
        "environment": subject.environment(seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    pictures, files = _shown(triggers, told, source, held.samples, judged, canvas)
    return Report("scan", decision.verdict, decision.reasons, body, pictures, files)


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """Held-out images that judge a trigger, and what the model says of them: all, or one class."""

    samples: Samples
    clean: Ints

    def of(self, source: int | None) -> _Held:
        if source is None:
            return self
        own = self.clean if self.samples.labels is None else self.samples.labels
        index = np.flatnonzero(own == source)
        return _Held(self.samples.take(index), self.clean[index])


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """A reconstructed trigger on held-out images."""

    labels: Labels
    figures: dict[str, Rate]
    rise: tuple[float, float, float]
    images: int


def _judged(
    subject: Subject,
    prepared: Prepared,
    held: _Held,
    trigger: Trigger,
    target: int,
) -> _Judged:
    stamped = held.clean  # where no held-out image is of the source
    if len(held.samples):
        stamped = subject.ort.labels(prepared.inputs(trigger.stamp(held.samples)))
    labels = Labels(held.clean, stamped)
    true = held.samples.labels
    own = labels.clean if true is None else true
    return _Judged(
        labels,
        measure(labels, labels, true, target),
        paired_rise(stamped, labels.clean, own, target),
        int((own != target).sum()),
    )


def _classes(subject: Subject, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    count = subject.classifier.signature.classes
    if count < 2:
        raise DataError(f"{subject.model.path}: one score only; a search needs two classes")
    for c in wanted or ():
        if not 0 <= c < count:
            raise DataError(f"class {c}: the model has the classes 0 to {count - 1}")
    return tuple(sorted(set(wanted))) if wanted else tuple(range(count))


def _generated(subject: Subject, data: DataOptions, seed: int) -> Prepared:
    shape, layout = image_shape(subject.classifier.signature.input, data.layout)
    preprocess = replace(settled(subject, data) or PRESETS["unit"], layout=layout)
    samples = generated_samples(
        subject.classifier, (shape[0], shape[1], shape[2]), preprocess, GENERATED, seed
    )
    return Prepared(samples, preprocess)


def _identity(
    subject: Subject, prepared: Prepared, classes: tuple[int, ...], seed: int
) -> dict[str, object]:
    return {
        "model": str(subject.model.digest),
        "data": data_digest(prepared.samples),
        "preprocess": repr(prepared.preprocess),
        "classes": list(classes),
        "seed": seed,
        "version": version_of("lancet-onnx"),
    }


def _shown(
    triggers: list[Trigger],
    told: list[dict[str, object]],
    source: int | None,
    held: Samples,
    judged: list[_Judged],
    canvas: Canvas,
) -> tuple[tuple[Picture, ...], tuple[Attachment, ...]]:
    if not judged or not canvas.layout:
        return (), ()
    pictures, files = [], []
    for trigger, entry in zip(triggers, told, strict=True):
        form = f"{trigger.source} mask" if source is None else f"for images of class {source}"
        what = f"{form}, {float(trigger.mask.mean()):.1%} of the image"
        pictures.append(Picture("reconstructed", f"trigger ({what})", trigger_png(trigger)))
        pictures.append(Picture("reconstructed", f"mask ({what})", mask_png(trigger)))
        files.append(Attachment(str(entry["path"]), stored_png(trigger)))
    pairs = trigger_pictures(triggers[0], held, judged[0].labels)[1:]
    return (*pictures, *pairs), tuple(files)
