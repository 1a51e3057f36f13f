# SPDX-License-Identifier: Apache-2.0
"""Fresh reconstructions: what judges a repair that knows no trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.api.committing import Judgement
from lancet_onnx.api.subject import Prepared, Subject
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.union import KINDS, PLAUSIBLE, Stamp
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.samples import Samples
from lancet_onnx.samples.core import Ints
from lancet_onnx.trigger import Trigger
from lancet_onnx.verify.metrics import Labels, Rate, measure
from lancet_onnx.verify.searching import judge_blind


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Fresh reconstructions on images that nothing else has seen, and what a model makes of them.

    Attributes:
        prepared: all images.
        figures: those that judge.
        canvas: what triggers are drawn on.
        triggers: fresh ones of all kinds.
        target: the class they lead to.
        original: labels of the unrepaired model, plausible triggers in turn.
        each: the same for each trigger by itself.
        before: figures of `original`.
        max_loss: budget on clean images, 0 to 1.
        risk: what is told of a repair; filled as it is judged.
        again: score of the class by a new search of the repaired model.
    """

    prepared: Prepared
    figures: Samples
    canvas: Canvas
    triggers: list[Trigger]
    target: int
    original: Labels
    each: list[Labels]
    before: dict[str, Rate]
    max_loss: float
    risk: dict[str, object]
    again: float = 0.0

    @classmethod
    def of(
        cls,
        subject: Subject,
        prepared: Prepared,
        figures: Samples,
        canvas: Canvas,
        fresh: Sequence[Sequence[Stamp]],
        target: int,
        max_loss: float,
    ) -> Evidence:
        """Ask the unrepaired model."""
        triggers = [
            canvas.trigger(stamp.mask, stamp.pattern, "blend", stamp.kind)
            for group in fresh
            for stamp in group
        ]
        each = _asked(subject.ort, prepared, figures, triggers)
        original = _pooled(triggers, each)
        before = measure(original, original, figures.labels, target)
        return cls(
            prepared, figures, canvas, triggers, target, original, each, before, max_loss, {}
        )

    def judge(self, model: OrtModel) -> Judgement:
        """Ask a repaired model and judge it by plausible triggers; tell what the loud ones do."""
        each = _asked(model, self.prepared, self.figures, self.triggers)
        labels, true = _pooled(self.triggers, each), self.figures.labels
        after = measure(labels, self.original, true, self.target)
        own = self.original.clean if true is None else true
        mine = own == self.target
        recall = (
            Rate.of(self.original.clean[mine] == self.target),
            Rate.of(labels.clean[mine] == self.target),
        )
        self._tell(each, own, recall)
        decision = judge_blind(self.before, after, recall, self.again, self.max_loss)
        return Judgement(after, decision, labels.clean)

    def _tell(self, each: Sequence[Labels], own: Ints, recall: tuple[Rate, Rate]) -> None:
        others = own != self.target
        strengths: list[dict[str, object]] = []
        left = []
        for kind in KINDS:
            at = [i for i, t in enumerate(self.triggers) if t.source == kind.name]
            old, new = (
                Rate.of(np.concatenate([_hit(labels[i], self.target)[others] for i in at]))
                for labels in (self.each, each)
            )
            left.append(new.value)
            strengths.append(
                {
                    "kind": kind.name,
                    "strength": kind.asked,
                    "before": round(old.value, 6),
                    "after": round(new.value, 6),
                    "n": new.n,
                }
            )
        old, new = recall
        named = [int((labels.clean == self.target).sum()) for labels in (self.original, each[0])]
        signs = [
            f"the class is answered {named[1]} times on clean images, {named[0]} times before",
            f"fresh triggers of {len(KINDS)} kinds leave between "
            f"{min(left):.1%} and {max(left):.1%}",
        ]
        self.risk.update(
            strengths=strengths,
            recall={
                "before": round(old.value, 6) if old.n else None,
                "after": round(new.value, 6) if new.n else None,
                "ratio": round(new.value / old.value, 6) if old.count else None,
            },
            signs=signs,
        )


def _hit(labels: Labels, target: int) -> NDArray[np.bool_]:
    assert labels.triggered is not None  # noqa: S101 - made with triggers
    return np.asarray(labels.triggered == target)


def _asked(
    model: OrtModel, prepared: Prepared, figures: Samples, triggers: Sequence[Trigger]
) -> list[Labels]:
    clean = model.labels(prepared.inputs(figures))
    return [
        Labels(clean, model.labels(prepared.inputs(trigger.stamp(figures)))) for trigger in triggers
    ]


def _pooled(triggers: Sequence[Trigger], each: Sequence[Labels]) -> Labels:
    """Return labels under the plausible triggers in turn: image i bears the one i modulo theirs."""
    stacked = np.stack(
        [
            labels.triggered
            for trigger, labels in zip(triggers, each, strict=True)
            if trigger.source in PLAUSIBLE and labels.triggered is not None
        ]
    )
    index = np.arange(stacked.shape[1])
    return Labels(each[0].clean, stacked[index % len(stacked), index])
