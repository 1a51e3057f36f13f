# SPDX-License-Identifier: Apache-2.0
"""`explain`: where errors come from in the image, and what the weights behind them look for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from lancet_onnx.api.blamed import Blamed, by_pairs, by_patch
from lancet_onnx.api.describing import data_digest, describe_model
from lancet_onnx.api.misread import Misread, misread
from lancet_onnx.api.options import DataOptions
from lancet_onnx.api.showing import Shown, show_classes, show_errors
from lancet_onnx.api.subject import Clock, Prepared, Subject, prepare
from lancet_onnx.errors import DataError
from lancet_onnx.explain import AMOUNTS, Chosen, choose, in_turn, visualise
from lancet_onnx.model.digests import file_digest
from lancet_onnx.model.files import temporary_folder
from lancet_onnx.model.write import applied
from lancet_onnx.pairs.canvas import Canvas, check_gradients
from lancet_onnx.pairs.companions import Companions, as_pairs, companions
from lancet_onnx.patch import Patch, opened_patch
from lancet_onnx.report import Report
from lancet_onnx.runtime.ort import Device, OrtModel
from lancet_onnx.samples import Samples
from lancet_onnx.types import Progress, no_progress

SHOWN = 8
"""Errors that are shown, at most."""

_ORDINARY = 200
"""Images of the data that give feature visualisations their colours."""
_FEW = 8


def explain(
    model: Path,
    data: DataOptions,
    *,
    errors: Path | None = None,
    patch: Path | None = None,
    shown: int = SHOWN,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress = no_progress,
) -> Report:
    """Show where some errors of `model` come from, and what the weights behind them look for.

    The errors are those of `errors` (images with their true labels), or those that the model makes
    on `data`; up to `shown` of them are shown, of the most frequent confusions. The weights are
    those that `patch` changes, or those located on <error, companion> pairs. Verdict ``done``;
    ``inconclusive`` where no error could be traced to a region.

    Raises:
        LancetError: the model, the data, the errors or the patch cannot be used, or the model gets
            all images right.
    """
    clock = Clock()
    with ExitStack() as stack:
        with clock.stage("load"):
            subject = Subject.open(model, device, data.output)
            check_gradients(subject.classifier)
            change = None if patch is None else stack.enter_context(opened_patch(patch))
            fixed = None
            if change is not None:
                fixed = stack.enter_context(_patched(subject, change, device))
        clock.classifier = subject.classifier
        with clock.stage("prepare"):
            prepared = _pictures_of(subject, data)
        with clock.stage("measure", len(prepared.samples)):
            wrong = misread(subject, prepared, data, errors)
            chosen = choose(wrong.true, wrong.read, wrong.shares.max(1))
        with clock.stage("companions"):
            images = wrong.samples.take(chosen.positions)
            canvas = Canvas.of(subject.classifier, images, prepared.preprocess)
            found = companions(canvas, wrong.true[chosen.positions], seed=seed, progress=progress)
        with clock.stage("locate"):
            blamed = _blame(prepared, canvas, found, change, seed, progress)
        few = found.take(
            in_turn(list(zip(found.true.tolist(), found.wrong.tolist(), strict=True)), shown)
        )
        at = few.positions.cpu().numpy()
        numbers = chosen.positions[at]
        with clock.stage("fade", len(AMOUNTS) * len(few)):
            told = show_errors(
                subject, canvas, few, numbers, chosen.group[at], wrong, blamed, fixed, seed
            )
        with clock.stage("draw"):
            of = numbers if len(numbers) else chosen.positions
            classes = list(dict.fromkeys(np.stack([wrong.true[of], wrong.read[of]], 1).flatten()))
            drawn = _draw(subject, prepared, [int(c) for c in classes], blamed, seed, progress)
    body = {
        "model": describe_model(subject),
        "errors": told.rows,
        "classes": drawn.rows,
        "located": [] if blamed is None else list(blamed.rows),
        "located_by": None if blamed is None else blamed.source,
        "counts": {
            "images": len(wrong.samples),
            "errors": wrong.errors,
            "not_errors": len(wrong.samples) - wrong.errors if wrong.given else 0,
            "looked_at": len(chosen),
            "unsolved": len(chosen) - len(found),
        },
        "data": {
            "path": prepared.samples.source,
            "sha256": data_digest(prepared.samples),
            "images": len(prepared.samples),
            "preprocess": str(prepared.preprocess),
        },
        "errors_from": {"path": wrong.samples.source, "sha256": data_digest(wrong.samples)},
        "patch": patch and {"path": str(patch), "sha256": str(file_digest(patch))},
        "environment": subject.environment(seed),
        "stages": clock.stages,
        "seconds": clock.seconds,
    }
    return Report(
        "explain",
        "done" if told.rows else "inconclusive",
        _in_words(wrong, chosen, found, blamed, change, told),
        body,
        told.embedded() + drawn.embedded(),
        told.attachments() + drawn.attachments(),
    )


@contextmanager
def _patched(subject: Subject, change: Patch, device: Device) -> Iterator[OrtModel]:
    """Yield the patched model, from a file that goes away again.

    Raises:
        PatchError: the patch is for another model.
    """
    contents, digest = subject.model.contents, subject.model.digest
    with temporary_folder() as folder:
        output = Path(folder) / subject.model.path.name
        with applied(contents, change, output, digest=digest) as (_, stage):
            yield subject.patched(stage.model, device)


def _pictures_of(subject: Subject, data: DataOptions) -> Prepared:
    """Prepare the data.

    Raises:
        DataError: it cannot be used, or holds no pictures.
    """
    prepared = prepare(subject, data)
    if prepared.samples.raw:
        raise DataError(
            "the inputs are no pictures (--preprocess none): what a region or a class looks like "
            "cannot be shown. Give images of pixels and how they are prepared"
        )
    subject.parity(prepared.few(prepared.samples))
    return prepared


def _blame(
    prepared: Prepared,
    canvas: Canvas,
    found: Companions,
    change: Patch | None,
    seed: int,
    progress: Progress,
) -> Blamed | None:
    if change is not None:
        return by_patch(canvas.classifier, change)
    clean = prepared.inputs(_ordinary(prepared, seed, _FEW))
    return by_pairs(canvas.classifier, as_pairs(canvas, found), clean, progress)


def _ordinary(prepared: Prepared, seed: int, most: int) -> Samples:
    """Return some of the data at random: files are often sorted by class."""
    order = np.random.default_rng(seed).permutation(len(prepared.samples))
    return prepared.samples.take(order[:most].astype(np.int64))


def _draw(
    subject: Subject,
    prepared: Prepared,
    classes: Sequence[int],
    blamed: Blamed | None,
    seed: int,
    progress: Progress,
) -> Shown:
    samples = _ordinary(prepared, seed, _ORDINARY)
    canvas = Canvas.of(subject.classifier, samples, prepared.preprocess)
    without = None if blamed is None else blamed.without
    whole, part = visualise(canvas, classes, without, seed=seed, progress=progress)
    return show_classes(subject, canvas, classes, whole, part, prepared.samples.classes)


def _in_words(
    wrong: Misread,
    chosen: Chosen,
    found: Companions,
    blamed: Blamed | None,
    change: Patch | None,
    told: Shown,
) -> tuple[str, ...]:
    """Return what a reader must know beside the pictures."""
    total, unsolved = len(wrong.samples), len(chosen) - len(found)
    said = [f"the model gets {wrong.errors} of {total} images wrong; {len(told.rows)} are shown"]
    if wrong.given and wrong.errors < total:
        said.append(
            f"{total - wrong.errors} of the images given as errors are none: the model gets them "
            "right, and they are left out"
        )
    if unsolved:
        said.append(
            f"for {unsolved} of {len(chosen)} errors that were looked at no region was found that "
            "explains them; they are left out"
        )
    if blamed is None and change is not None:
        said.append("the patch changes no weight of a layer, so none is shown at work")
    elif blamed is None:
        said.append("no few weights were found that explain these errors")
    fixed = [row["patched"] for row in told.rows if isinstance(row["patched"], dict)]
    if fixed:
        right = sum(
            row["label"] == each["true"] for row, each in zip(fixed, told.rows, strict=True)
        )
        said.append(f"the patched model gets {right} of the {len(fixed)} shown errors right")
    return tuple(said)
