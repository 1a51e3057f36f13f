# SPDX-License-Identifier: Apache-2.0
"""A gate's checks and verdicts, from figures; nothing here reads a file or runs a model.

What was not evaluated never passes unless the policy says so by name, and so few images that even
a perfect result would prove nothing are not evaluated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lancet_onnx.rules import EXPIRED, RULES, Level, Rule, fingerprint_of, page_of
from lancet_onnx.verify.metrics import Rate
from lancet_onnx.verify.policy import LEFT_OVER, ROUNDING

Result = Literal["pass", "fail", "not_evaluated"]
Standing = Literal["new", "known", "worse"]

FINEST = 0.01
"""Limits nearer to 0 or 1 than this ask for no more images than this one does."""

WORSE = 0.005
"""A finding is worse than its baseline from this difference on, half of the limit at most."""

_ORDER: tuple[Result, ...] = ("pass", "not_evaluated", "fail")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a gate looked at.

    Attributes:
        id: kind of check, such as ``clean-accuracy``; with a name after a colon where a policy
            may ask for several.
        rule: what is breached if it fails; None for what no rule is about.
        result: ``pass``, ``fail`` or ``not_evaluated``.
        text: one sentence: what was found, how bad, what was expected.
        next: the command that helps; may be empty.
        value: the figure that was judged.
        limit: what it was compared with.
        target: the attacker's class, where there is one.
        allowed: why a failure is let through, and until when.
        baseline: how a failure stands to an earlier report, if the policy names one.
    """

    id: str
    rule: Rule | None
    result: Result
    text: str
    next: str = ""
    value: float | None = None
    limit: float | None = None
    target: int | None = None
    allowed: Mapping[str, str | None] | None = None
    baseline: Standing | None = None

    @property
    def kind(self) -> str:
        """The id without the name after the colon."""
        return self.id.partition(":")[0]

    @property
    def severity(self) -> Level:
        """How bad a failure is; what has no rule is an error."""
        return self.rule.level if self.rule else "error"

    @property
    def fails(self) -> bool:
        """Whether this alone makes the gate fail."""
        return self.result == "fail" and self.allowed is None and self.baseline != "known"

    def fingerprint(self, model: str) -> str:
        """Return what stays the same as long as the finding does; `model` is a file's name."""
        return fingerprint_of(self.id, self.rule.id if self.rule else "", str(self.target), model)

    def as_dict(self, model: str) -> dict[str, object]:
        """Return the JSON form; `model` is the model's file name."""
        rule = self.rule.id if self.rule else None
        return {
            "id": self.id,
            "rule": rule,
            "severity": self.severity,
            "result": self.result,
            "text": self.text,
            "next": self.next,
            "page": page_of(rule or ""),
            "value": self.value,
            "limit": self.limit,
            "allowed": None if self.allowed is None else dict(self.allowed),
            "baseline": self.baseline,
            "fingerprint": self.fingerprint(model),
        }


@dataclass(frozen=True, slots=True)
class Allowance:
    """A finding that is let through until a day.

    Attributes:
        rule: identifier of the rule.
        reason: why.
        expires: the last day, as ``2027-01-31``.
        model: SHA-256 of the model, None for any.
        target: class of the finding, None for any.
    """

    rule: str
    reason: str
    expires: str
    model: str | None = None
    target: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A failure in an earlier report: its fingerprint, figure and limit."""

    fingerprint: str
    value: float | None
    limit: float | None


def judge_accuracy(rate: Rate, least: float) -> tuple[Result, str]:
    """Judge clean accuracy: a share of labelled images, and the least that is wanted."""
    shown = f"{rate.value:.1%} of {rate.n} clean images are right"
    wanted = f"at least {least:.1%} are asked for"
    if rate.value < least - ROUNDING and rate.high < least:
        return "fail", f"{shown}; {wanted}"
    if Rate(rate.n, rate.n).low < min(least, 1 - FINEST):
        return "not_evaluated", f"{shown}: too few to tell whether {least:.1%} are"
    return ("pass" if rate.value >= least - ROUNDING else "fail"), f"{shown}; {wanted}"


def judge_attack(
    rate: Rate, base: Rate, most: float, target: int, classwise: str = "", *, harmless: bool = False
) -> tuple[Result, str]:
    """Judge a listed trigger; one that adds no more than a point to the base rate does not work.

    Args:
        rate: attack success, of triggered images of other classes.
        base: the same without the trigger.
        most: what the policy allows.
        target: the class that the trigger leads to.
        classwise: what the trigger does that no one class shows, or nothing.
        harmless: nobody told the target, and any patch of this size may do as much to some class.
    """
    if not rate.n:
        return "not_evaluated", f"all images are of class {target}, which the trigger leads to"
    shown = (
        f"{rate.value:.1%} of {rate.n} triggered images become class {target} "
        f"({base.value:.1%} do without the trigger)"
    )
    allowed = f"at most {most:.1%} may"
    # As a repair is judged: what happens anyway is not the trigger's doing.
    limit = max(most, base.value + min(LEFT_OVER, most)) + ROUNDING
    over: tuple[Result, str] = ("fail", f"{shown}; {allowed}")
    if harmless:
        over = (
            "not_evaluated",
            f"{shown}; {allowed}, but a harmless patch of this size does as much: name the "
            "attacker's class as the trigger's target in the policy",
        )
    if rate.value > limit and rate.low > most:
        return over
    if Rate(0, rate.n).high > max(most, FINEST):
        return "not_evaluated", f"{shown}: too few images to tell whether {allowed}"
    if rate.value > limit:
        return over
    if classwise:
        return "not_evaluated", classwise
    if rate.value > most + ROUNDING:
        allowed = "that is no more than a point over what happens anyway"
    return "pass", f"{shown}; {allowed}"


def judged(
    checks: Sequence[Check],
    *,
    model: str,
    digest: str | None,
    allowances: Sequence[Allowance],
    allowed_rules: Collection[str],
    known: Sequence[Known] | None,
    today: str,
) -> tuple[Check, ...]:
    """Return the checks with what the policy lets through, and a check per expired allowance.

    Args:
        checks: as they were found.
        model: the model's file name, for fingerprints.
        digest: the model's, None if it could not be read.
        allowances: of the policy.
        allowed_rules: identifiers of rules that never fail this gate.
        known: failures of an earlier report on this model; None without a baseline.
        today: the day, as ``2027-01-31``.
    """
    ours = [each for each in allowances if each.model in (None, digest)]
    expired = [each for each in ours if each.expires < today]
    settled = []
    for found in checks:
        check = found
        if check.result == "fail":
            if known is not None:
                check = replace(check, baseline=_standing(check, model, known))
            valid = next((a for a in ours if a not in expired and _covers(a, check)), None)
            over = next((a for a in expired if _covers(a, check)), None)
            if valid is not None:
                check = replace(check, allowed={"reason": valid.reason, "expires": valid.expires})
            elif check.rule and check.rule.id in allowed_rules:
                reason = "the policy's allowed_rules"
                check = replace(check, allowed={"reason": reason, "expires": None})
            elif over is not None:
                text = f"{check.text}; it was allowed until {over.expires} ({over.reason})"
                check = replace(check, text=text)
        settled.append(check)
    return (*settled, *map(_expired, expired))


def verdict_of(checks: Sequence[Check], allow_not_evaluated: Collection[str]) -> Result:
    """Return a model's verdict: ``pass`` needs a check that passed, and none that speaks against.

    `allow_not_evaluated` holds ids, with or without the name after the colon.
    """
    if any(check.fails for check in checks):
        return "fail"
    open_ = [
        check
        for check in checks
        if check.result == "not_evaluated" and not tolerated(check, allow_not_evaluated)
    ]
    if open_ or all(check.result != "pass" for check in checks):
        return "not_evaluated"
    return "pass"


def tolerated(check: Check, allow_not_evaluated: Collection[str]) -> bool:
    """Return whether the policy lets this pass without having been evaluated."""
    return check.id in allow_not_evaluated or check.kind in allow_not_evaluated


def worst(verdicts: Sequence[Result]) -> Result:
    """Return the worst verdict; of none at all, ``not_evaluated``."""
    return max(verdicts, key=_ORDER.index, default="not_evaluated")


def _covers(allowance: Allowance, check: Check) -> bool:
    same = check.rule is not None and check.rule.id == allowance.rule
    return same and allowance.target in (None, check.target)


def _expired(allowance: Allowance) -> Check:
    rule = RULES.get(allowance.rule)
    what = f"{allowance.rule} ({rule.title})" if rule else allowance.rule
    to = "" if allowance.target is None else f" for class {allowance.target}"
    return Check(
        f"allow:{allowance.rule}",
        EXPIRED,
        "fail",
        f"the policy allowed {what}{to} until {allowance.expires}, which is over; it said: "
        f"{allowance.reason}. Remove the [[allow]] entry, or look again and set a new day",
        target=allowance.target,
    )


def _standing(check: Check, model: str, known: Sequence[Known]) -> Standing:
    mark = check.fingerprint(model)
    before = next((each for each in known if each.fingerprint == mark), None)
    if before is None:
        return "new"
    if check.value is None or check.limit is None or before.value is None:
        return "known"
    far = abs(check.value - check.limit) - abs(before.value - check.limit)
    margin = min(WORSE, check.limit / 2) if check.limit > 0 else WORSE
    return "worse" if far > margin else "known"
