# SPDX-License-Identifier: Apache-2.0
"""The checks of a gate, a function each: evidence -> what was found.

A `LancetError` that leaves one means that it could not be evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from lancet_onnx.api.advice import inspect_line, repair_line, search_lines
from lancet_onnx.api.describing import trigger_pictures
from lancet_onnx.api.evidence import Evidence
from lancet_onnx.api.hunting import hunt_backdoor
from lancet_onnx.api.options import SearchOptions
from lancet_onnx.api.policy import Listed, Policy
from lancet_onnx.api.provenance import provenance
from lancet_onnx.api.scanning import judge_trigger
from lancet_onnx.api.subject import Clock, likely_target, read_trigger_for
from lancet_onnx.errors import DataError, DeviceError, LancetError, ModelError
from lancet_onnx.model.logic import logic_on_input
from lancet_onnx.rules import (
    ACCURACY,
    DEAD,
    LISTED,
    NOT_FINITE,
    PARITY,
    PROVENANCE,
    RECONSTRUCTED,
    Rule,
)
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.parity import Parity, between, compare
from lancet_onnx.verify.gate_policy import Check, Result, judge_accuracy, judge_attack
from lancet_onnx.verify.metrics import Rate, measure, moves_of
from lancet_onnx.verify.policy import FEWEST_IMAGES, classwise

_MEANS: dict[str, Result] = {"backdoored": "fail", "clean": "pass"}


@dataclass(frozen=True, slots=True)
class Planned:
    """A check that a policy asks for: its id, what it breaches if it fails, and how it looks."""

    id: str
    rule: Rule | None
    look: Callable[[Evidence], list[Check]]

    def found(self, evidence: Evidence) -> list[Check]:
        """Look; what cannot be looked at is ``not_evaluated``, with the reason."""
        try:
            return self.look(evidence)
        except LancetError as error:
            return [Check(self.id, self.rule, "not_evaluated", _said(error, evidence))]


def plan(policy: Policy) -> list[Planned]:
    """Return the checks that a policy asks for, quick ones first."""
    asked = policy.asked
    return [
        Planned("precheck", None, _precheck),
        Planned("weights", None, _weights),
        Planned("graph-logic", None, _graph_logic),
        Planned("provenance", PROVENANCE, _provenance),
        Planned("parity", PARITY, _parity),
        *([Planned("parity-gpu", PARITY, _parity_gpu)] if asked.parity_gpu else []),
        *(
            [Planned("clean-accuracy", ACCURACY, _clean_accuracy)]
            if asked.min_clean_accuracy is not None
            else []
        ),
        *(Planned(f"trigger:{each.name}", LISTED, _listed(each)) for each in policy.triggers),
        *([Planned("scan", RECONSTRUCTED, _scan)] if asked.scan else []),
    ]


def _said(error: LancetError, evidence: Evidence) -> str:
    """Return what an error says, without rule and model, which a check has beside."""
    text = error.text if isinstance(error, ModelError) else str(error)
    return text.removeprefix(f"{evidence.path}: ")


def _precheck(evidence: Evidence) -> list[Check]:
    try:
        model = evidence.loaded()
        with suppress(DataError, DeviceError):
            evidence.subject()  # some files show only there that they ask for too much
    except ModelError as error:
        if error.rule is not None and error.rule is not NOT_FINITE:
            inspect = inspect_line(evidence.path)
            return [Check("precheck", error.rule, "fail", _said(error, evidence), inspect)]
        model = evidence.loaded()  # otherwise the file itself is in order, if this raises nothing
    text = f"{len(model.graph.nodes)} nodes, {len(model.contents.source)} bytes, all in order"
    return [Check("precheck", None, "pass", text)]


def _weights(evidence: Evidence) -> list[Check]:
    model, inspect = evidence.loaded(), inspect_line(evidence.path)
    if model.non_finite:
        count = len(model.non_finite)
        more = f" and {count - 1} more" if count > 1 else ""
        text = f"'{model.non_finite[0]}'{more} hold NaN or infinity; export the model again"
        return [Check("weights", NOT_FINITE, "fail", text, inspect)]
    layers = find_layers(evidence.subject().classifier)
    dead = [layer for layer in layers if not model.graph.constants[layer.param].any()]
    if dead:
        names = ", ".join(f"'{layer.param}'" for layer in dead[:3])
        more = f" and {len(dead) - 3} more" if len(dead) > 3 else ""
        text = f"all weights are zero in {names}{more}, of {len(layers)} layers"
        return [Check("weights", DEAD, "fail", text, inspect)]
    return [Check("weights", None, "pass", f"finite, and none of {len(layers)} layers is dead")]


def _graph_logic(evidence: Evidence) -> list[Check]:
    graph = evidence.loaded().graph
    try:
        found = evidence.subject().switches(evidence.few())
    except LancetError:
        found = logic_on_input(graph)
        if not found:  # it was only looked at, not run
            raise
    if not found:
        text = "no switch on the raw input, and none that sleeps"
        return [Check("graph-logic", None, "pass", text)]
    inspect = inspect_line(evidence.path)
    checks = []
    for rule in dict.fromkeys(switch.rule for switch in found):
        of_rule = [switch for switch in found if switch.rule is rule]
        more = f" ({len(of_rule) - 1} more of the kind)" if len(of_rule) > 1 else ""
        checks.append(Check("graph-logic", rule, "fail", f"{of_rule[0]}{more}", inspect))
    return checks


def _provenance(evidence: Evidence) -> list[Check]:
    result, text = provenance(evidence.loaded())
    return [Check("provenance", PROVENANCE, result, text)]


def _parity(evidence: Evidence) -> list[Check]:
    subject = evidence.subject()
    inputs, what = evidence.inputs()
    found = compare(subject.classifier, subject.ort, inputs)
    return [_compared(evidence, "parity", found, what, "torch and onnxruntime")]


def _parity_gpu(evidence: Evidence) -> list[Check]:
    subject, path = evidence.subject(), evidence.path
    inputs, what = evidence.inputs()
    if subject.ort.placement.device == "cuda":
        cpu, gpu = subject.patched(path, "cpu"), subject.ort
    else:
        cpu, gpu = subject.ort, subject.patched(path, "cuda")
    found = between(subject.classifier, cpu, gpu, inputs)
    return [_compared(evidence, "parity-gpu", found, what, "CPU and GPU")]


def _compared(evidence: Evidence, name: str, found: Parity, what: str, places: str) -> Check:
    limit = evidence.policy.asked.parity_tolerance or found.tolerance
    holds = found.largest <= limit  # NaN holds nothing
    text = (
        f"{places} differ by {found.largest:.1e} of the largest score on {found.images} {what} "
        f"({found.agreement:.0%} of the answers agree); {limit:.1e} may be"
    )
    result: Result = "pass" if holds else "fail"
    line = "" if holds else "lancet-onnx doctor"
    return Check(name, PARITY, result, text, line, round(found.largest, 9), limit)


def _clean_accuracy(evidence: Evidence) -> list[Check]:
    least = evidence.policy.asked.min_clean_accuracy
    assert least is not None  # noqa: S101 - planned only where it is asked for
    samples = evidence.halves().measured(finding=False)
    if samples.labels is None:
        raise DataError(
            f"{samples.source}: the images have no labels, so the accuracy is not known. Give "
            "labelled images in [data] path, or take min_clean_accuracy out"
        )
    rate = Rate.of(evidence.clean(samples) == samples.labels)
    result, text = judge_accuracy(rate, least)
    figure = round(rate.value, 6)
    return [Check("clean-accuracy", ACCURACY, result, text, value=figure, limit=least)]


def _listed(listed: Listed) -> Callable[[Evidence], list[Check]]:
    def look(evidence: Evidence) -> list[Check]:
        policy, options = evidence.policy, listed.options
        subject, prepared = evidence.subject(), evidence.prepared()
        finding = options.target is None
        stamp = read_trigger_for(subject, options, policy.data.layout, prepared.samples)
        halves = evidence.halves()
        samples, chooser = halves.measured(finding=finding), halves.split.tool
        target = options.target
        if target is None:
            seen = evidence.labels(chooser, stamp)
            target = likely_target(seen, chooser.labels, subject.classifier.signature.classes)
        labels = evidence.labels(samples, stamp)
        clean, triggered = labels.clean, labels.triggered
        assert triggered is not None  # noqa: S101 - asked with a trigger
        figures = measure(labels, labels, samples.labels, target)
        rate, base = figures["attack_success"], figures["base_rate"]
        # What goes to the target is judged by the policy; a trigger may send the rest elsewhere.
        rest = triggered != target
        moves = moves_of(triggered[rest], clean[rest], FEWEST_IMAGES)
        most = policy.asked.max_attack_success
        _, decision = judge_trigger(labels, samples.labels, target, stamp)
        result, text = judge_attack(
            rate,
            base,
            most,
            target,
            classwise(moves, stamp.coverage),
            harmless=finding and decision.verdict == "clean",
        )
        line = ""
        if result == "fail":
            line = repair_line(evidence.path, options, policy.data)
            evidence.pictures += trigger_pictures(stamp, samples, labels)
        figure = round(rate.value, 6) if rate.n else None
        name = f"trigger:{listed.name}"
        return [Check(name, LISTED, result, text, line, figure, most, target)]

    return look


def _scan(evidence: Evidence) -> list[Check]:
    asked, data = evidence.policy.asked, evidence.policy.data
    subject = evidence.subject()
    search = SearchOptions(budget=asked.scan_budget)
    clock = Clock(subject.classifier)
    known = None if data.path is None else (evidence.prepared(), evidence.halves())
    report = hunt_backdoor(subject, data, search, asked.seed, clock, evidence.progress, known)
    result = _MEANS.get(report.verdict, "not_evaluated")
    found = report.to_dict()["search"]
    assert isinstance(found, dict)  # noqa: S101 - what a search reports
    target = found["suspect"] if result == "fail" else None
    line = ""
    if result == "fail":
        # What works on the images of one class is not repaired from a scan.
        line = search_lines(evidence.path, data) if found["source"] is None else ""
        evidence.pictures += report.pictures
    text = report.reasons[0] if result == "fail" else "; ".join(report.reasons)
    score, limit = found["score"], found["threshold"]
    return [Check("scan", RECONSTRUCTED, result, text, line, score, limit, target)]
