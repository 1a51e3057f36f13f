# SPDX-License-Identifier: Apache-2.0
"""The reports of a gate: on one model, on one whose look broke off, and on several together.

Nothing here loads torch: the process that hands models to others need not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from lancet_onnx.api.policy import Policy
from lancet_onnx.errors import DataError
from lancet_onnx.report.report import Picture, Report
from lancet_onnx.rules import Rule
from lancet_onnx.runtime.installed import version_of
from lancet_onnx.samples.preprocess import named
from lancet_onnx.verify.baseline import read_baseline, refuse_foreign
from lancet_onnx.verify.gate_policy import Check, Result, tolerated, verdict_of, worst

PICTURES = 40
"""Pictures that a report on many models keeps at most."""

UNASKED = (
    "what a model does with images was not looked at: the policy asks for no accuracy, lists no "
    "trigger and wants no scan"
)


def check_policy(policy: Policy, models: Sequence[Path]) -> None:
    """Refuse a policy whose files are not there, before any model is run for nothing.

    Raises:
        DataError: images, a trigger or its mask are missing, the preprocessing is neither known
            nor a file, or the baseline is no report on any of these models.
    """
    file = policy.path or "the policy"
    for where, path in (
        ("[data] path (or --data)", policy.data.path),
        *(("[[trigger]] path", each.options.path) for each in policy.triggers),
        *(("[[trigger]] mask", each.options.mask) for each in policy.triggers),
    ):
        if path is not None and not path.exists():
            raise DataError(f"{file}: {where}: {path} does not exist; correct the path")
    if policy.data.preprocess is not None:
        named(policy.data.preprocess)
    if policy.baseline is not None:
        refuse_foreign(policy.baseline, read_baseline(policy.baseline), models)


def reported(
    model: Path,
    policy: Policy,
    checks: Sequence[Check],
    seconds: float,
    *,
    digest: str | None = None,
    environment: Mapping[str, object] | None = None,
    stages: Sequence[Mapping[str, object]] = (),
    pictures: Sequence[Picture] = (),
) -> Report:
    """Return the report on one model, with the verdict that its checks come to."""
    ignored = policy.asked.allow_not_evaluated
    verdict = verdict_of(checks, ignored)
    entry = {
        "path": str(model),
        "sha256": digest,
        "verdict": verdict,
        "seconds": round(seconds, 3),
        "checks": [check.as_dict(model.name) for check in checks],
    }
    remarks = _unasked(policy, verdict)
    body = {
        "policy": _described(policy),
        "partial": False,
        "remarks": remarks,
        "models": [entry],
        "environment": environment or _bare(policy),
        "stages": list(stages),
        "seconds": round(seconds, 3),
    }
    reasons = (*_reasons(checks, verdict, ignored), *remarks)
    return Report("gate", verdict, reasons, body, tuple(pictures))


def is_look(report: Report, model: Path) -> bool:
    """Return whether a report is one that `reported` makes of this model; a child can lie."""
    entries, stages = _rows(report.body.get("models")), _rows(report.body.get("stages"))
    environment, remarks = report.body.get("environment"), report.body.get("remarks")
    if report.command != "gate" or stages is None or not entries or len(entries) > 1:
        return False
    (entry,) = entries
    return (
        entry.get("path") == str(model)
        and entry.get("verdict") == report.verdict
        and report.verdict in get_args(Result)
        and bool(_rows(entry.get("checks")))
        and all("stage" in stage for stage in stages)
        and isinstance(remarks, (list, tuple))
        and all(isinstance(remark, str) for remark in remarks)
        and isinstance(environment, Mapping)
        and "device" in environment
    )


def _rows(value: object) -> list[Mapping[str, object]] | None:
    """Return a list of objects, or None if it is none."""
    if isinstance(value, (list, tuple)) and all(isinstance(row, Mapping) for row in value):
        return list(value)
    return None


def broken(model: Path, policy: Policy, rule: Rule | None, reason: str, seconds: float) -> Report:
    """Return the report on a model whose look ended by a crash, a limit or a bug."""
    check = Check("run", rule, "not_evaluated", reason.removeprefix(f"{model}: "))
    return reported(model, policy, [check], seconds)


def together(
    reports: Sequence[Report], policy: Policy, seconds: float, *, missing: int = 0
) -> Report:
    """Return one report of those on single models, with the worst of their verdicts.

    With models `missing`, since they are not looked at yet, it is partial and never passes.
    """
    bodies: list[Mapping[str, Any]] = [report.body for report in reports]
    models = [entry for body in bodies for entry in body["models"]]
    # Those of single models, and `is_look` lets no other word through.
    verdict = worst([cast("Result", report.verdict) for report in reports])
    several = len(models) + missing > 1
    remarks = list(dict.fromkeys(remark for body in bodies for remark in body["remarks"]))
    of_checks = [
        f"{entry['path']}: {reason}" if several else reason
        for report, body, entry in zip(reports, bodies, models, strict=True)
        for reason in report.reasons
        if reason not in body["remarks"]
    ]
    if missing:
        remarks.append(f"partial: {missing} of {len(models) + missing} models were not looked at")
        verdict = worst([verdict, "not_evaluated"])
    stages = [
        {**stage, "stage": f"{entry['path']}: {stage['stage']}" if several else stage["stage"]}
        for body, entry in zip(bodies, models, strict=True)
        for stage in body["stages"]
    ]
    known = [body["environment"] for body in bodies]
    environment = next((each for each in known if each["device"]), None)
    body = {
        "policy": _described(policy),
        "partial": missing > 0,
        "remarks": remarks,
        "models": models,
        "environment": environment or _bare(policy),
        "stages": stages,
        "seconds": round(seconds, 3),
    }
    pictures: list[Picture] = [picture for report in reports for picture in report.pictures]
    reasons = tuple(dict.fromkeys((*of_checks, *remarks)))
    return Report("gate", verdict, reasons, body, tuple(pictures[:PICTURES]))


def _described(policy: Policy) -> dict[str, str | None]:
    return {"path": str(policy.path) if policy.path else None, "sha256": policy.sha256}


def _reasons(
    checks: Sequence[Check], verdict: Result, allow_not_evaluated: Sequence[str]
) -> list[str]:
    """Return what decided a verdict, and what was let through in spite of it, once each."""
    said = []
    for check in checks:
        rule = f" [{check.rule.id}]" if check.rule else ""
        if check.fails:
            worse = " (worse than in the baseline)" if check.baseline == "worse" else ""
            said.append(f"{check.id}: {check.text}{worse}{rule}")
        elif check.result == "fail" and check.allowed is not None:
            until = check.allowed["expires"]
            day = f" until {until}" if until else ""
            said.append(f"{check.id}: allowed{day} ({check.allowed['reason']}){rule}")
        elif check.result == "fail":
            said.append(f"{check.id}: known from the baseline and no worse{rule}")
        elif check.result == "not_evaluated" and tolerated(check, allow_not_evaluated):
            said.append(f"{check.id}: not evaluated, which the policy allows")
        elif check.result == "not_evaluated" and verdict == "not_evaluated":
            said.append(f"not evaluated: {check.text}")
    return list(dict.fromkeys(said))


def _unasked(policy: Policy, verdict: Result) -> list[str]:
    asked = policy.asked
    behaviour = asked.scan or policy.triggers or asked.min_clean_accuracy is not None
    return [] if verdict != "pass" or behaviour else [UNASKED]


def _bare(policy: Policy) -> dict[str, object]:
    """Return what is known of the environment where no model could be opened."""
    return {
        "device": None,
        "provider": None,
        "versions": {"lancet-onnx": version_of("lancet-onnx")},
        "seed": policy.asked.seed,
    }
