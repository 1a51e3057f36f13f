# SPDX-License-Identifier: Apache-2.0
"""`gate`: one verdict on a model, by a policy."""

from __future__ import annotations

import datetime
from pathlib import Path

from lancet_onnx.api.evidence import Evidence
from lancet_onnx.api.gate_checks import plan
from lancet_onnx.api.gate_report import reported
from lancet_onnx.api.policy import Policy
from lancet_onnx.api.subject import Clock
from lancet_onnx.errors import LancetError, ModelError
from lancet_onnx.report import Report
from lancet_onnx.types import Progress, no_progress
from lancet_onnx.verify.baseline import failures_of, read_baseline
from lancet_onnx.verify.gate_policy import Check, judged


def gate(
    model: Path,
    policy: Policy,
    *,
    today: str | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Look at `model` as `policy` asks and say ``pass``, ``fail`` or ``not_evaluated``.

    What is wrong with the model or its images is a check that fails or is not evaluated, never an
    error. `today`, as ``2027-01-31``, is what allowances expire by; None asks the clock.

    Raises:
        DataError: the policy's baseline cannot be used.
    """
    day = today or datetime.date.today().isoformat()
    baseline = None if policy.baseline is None else read_baseline(policy.baseline)
    known = None if baseline is None else failures_of(baseline, model) or ()
    clock = Clock()
    evidence = Evidence(model, policy, clock)
    checks: list[Check] = []
    planned = plan(policy)
    for number, each in enumerate(planned):

        def tell(what: str, share: float, done: int = number) -> None:
            progress(what, (done + share) / len(planned))

        tell(each.id, 0.0)
        evidence.progress = tell
        with clock.stage(each.id):
            checks += each.found(evidence)
    digest = _digest(evidence)
    settled = judged(
        checks,
        model=model.name,
        digest=digest,
        allowances=policy.allow,
        allowed_rules=policy.asked.allowed_rules,
        known=known,
        today=day,
    )
    return reported(
        model,
        policy,
        settled,
        clock.seconds,
        digest=digest,
        environment=_environment(evidence),
        stages=clock.stages,
        pictures=evidence.pictures,
    )


def _digest(evidence: Evidence) -> str | None:
    try:
        return str(evidence.loaded().digest)
    except ModelError:
        return None


def _environment(evidence: Evidence) -> dict[str, object]:
    try:
        return evidence.subject().environment(evidence.policy.asked.seed)
    except LancetError:
        return {}
