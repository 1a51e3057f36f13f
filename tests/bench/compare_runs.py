# SPDX-License-Identifier: Apache-2.0
"""One model repaired by one method, and judged as the tool judges itself."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from lancet_onnx.api.options import DataOptions, RepairOptions, TriggerOptions
from lancet_onnx.api.repairing import repair
from lancet_onnx.api.scanning import find_target
from lancet_onnx.api.subject import Prepared, Subject, labels_of, prepare, read_trigger_for
from lancet_onnx.model.write import applied
from lancet_onnx.patch import Patch
from lancet_onnx.repair import to_patch
from lancet_onnx.samples import Split
from lancet_onnx.trigger import Trigger
from lancet_onnx.types import Method
from lancet_onnx.verify.metrics import Labels, Rate, as_numbers, measure
from lancet_onnx.verify.policy import judge_repair
from tests.bench.baselines import KNOWING, Baseline, Setting
from tests.bench.baselines_blind import BLIND
from tests.bench.compare_table import Line

MAX_LOSS = 0.01
ONE_TARGET = ("badnets", "important-neurons", "spread")
"""Attacks whose trigger leads all images to one class."""
FUNCTIONS: Mapping[str, Baseline] = {**KNOWING, **BLIND}


@dataclass(frozen=True)
class Case:
    """One model of a folder's cases.json."""

    folder: Path
    entry: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.entry["name"])

    @property
    def model(self) -> Path:
        return self.folder / str(self.entry["model"])

    @property
    def trigger(self) -> TriggerOptions:
        return TriggerOptions(
            self.folder / str(self.entry["trigger"]), mode=self.entry["trigger_mode"]
        )

    @property
    def data(self) -> DataOptions:
        return DataOptions(self.folder / str(self.entry["data"]), preprocess="unit")

    @property
    def unseen(self) -> DataOptions | None:
        """Images beyond those of `data`, if the folder has some: only reported on."""
        name = self.entry.get("unseen")
        return DataOptions(self.folder / str(name), preprocess="unit") if name else None

    @property
    def one_target(self) -> bool:
        """Whether the model has a backdoor that leads all images to one class."""
        known = bool(self.entry["backdoored"]) and self.entry["target"] is not None
        return known and (self.entry.get("attack") or "badnets") in ONE_TARGET

    @property
    def about(self) -> Line:
        """What every line says of the model."""
        name = self.name.split("-")[0]
        share = self.entry.get("trigger_share")
        return {"architecture": self.entry.get("architecture") or name, "trigger_share": share}


def case_options(about: str | None) -> argparse.ArgumentParser:
    """Return a parser of which models a benchmark runs on; `about` is the benchmark's docstring."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0] if about else None)
    parser.add_argument("--cases", type=Path, nargs="+", required=True)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="parts of names")
    return parser


def read_cases(
    folders: Iterable[Path], only: Sequence[str] = (), without: Sequence[str] = ()
) -> list[Case]:
    """Return the models of all folders by parts of their names."""
    cases = [
        Case(folder, entry)
        for folder in folders
        for entry in json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    ]
    return [
        case
        for case in cases
        if (not only or any(part in case.name for part in only))
        and not any(part in case.name for part in without)
    ]


@dataclass(frozen=True, eq=False)
class Bench:
    """A model opened as `repair` does it, and measured on images that no method gets.

    These are the half that `repair` keeps for its own figures or, where there are, many more.
    """

    subject: Subject
    prepared: Prepared
    stamp: Trigger
    split: Split
    target: int
    original: Labels
    before: Mapping[str, Rate]
    seconds: float

    @classmethod
    def open(cls, case: Case, seed: int) -> Bench:
        """Read model, images and trigger, and find the target class."""
        start = time.perf_counter()
        subject = Subject.open(case.model, "cpu")
        prepared = prepare(subject, case.data)
        stamp = read_trigger_for(subject, case.trigger, None, prepared.samples)
        split = Split.of(prepared.samples, seed)
        if case.unseen is not None:
            split = replace(split, figures=prepare(subject, case.unseen).samples)
        target = find_target(subject, prepared, split.tool, stamp, None)
        original = labels_of(subject.ort, prepared, split.figures, stamp)
        before = measure(original, original, split.figures.labels, target)
        seconds = time.perf_counter() - start
        return cls(subject, prepared, stamp, split, target, original, before, seconds)

    @cached_property
    def images(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tool's half, clean and stamped, as the model takes it, and its labels."""
        tool = self.split.tool
        assert tool.labels is not None, "the baselines need labels"
        to_tensor = self.subject.classifier.tensor
        stamped = self.prepared.inputs(self.stamp.stamp(tool))
        return (
            to_tensor(self.prepared.inputs(tool)),
            to_tensor(stamped),
            torch.from_numpy(tool.labels),
        )

    def run(self, method: str, budget: float, seed: int, count: int) -> Line:
        """Run a baseline, write the model that it gives, and measure the file."""
        start = time.perf_counter()
        classifier = self.subject.classifier
        torch.manual_seed(seed)
        setting = Setting(
            classifier, *self.images, self.target, seed, budget, count, classifier.forwards
        )
        patch = to_patch(self.subject.model, FUNCTIONS[method](setting), method, seed, {})
        spent = setting.spent
        after = self.measured(patch) if patch.deltas else self.before
        seconds = self.seconds + time.perf_counter() - start
        return {
            "verdict": judge_repair(self.before, after, MAX_LOSS).verdict,
            **figures(as_numbers(self.before), as_numbers(after)),
            "weights_changed": patch.size,
            "seconds": round(seconds, 2),
            "image_forwards": round(spent) + 4 * len(self.split.figures),
        }

    def measured(self, patch: Patch) -> dict[str, Rate]:
        """Write the patched model and measure it."""
        model = self.subject.model
        with (
            tempfile.TemporaryDirectory() as scratch,
            applied(
                model.contents, patch, Path(scratch) / "fixed.onnx", digest=model.digest
            ) as staged,
        ):
            return self.measured_file(staged[1].model)

    def measured_file(self, path: Path) -> dict[str, Rate]:
        """Let onnxruntime run a repaired model on the figures' images."""
        fixed = self.subject.patched(path, "cpu")
        labels = labels_of(fixed, self.prepared, self.split.figures, self.stamp)
        return measure(labels, self.original, self.split.figures.labels, self.target)


def figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> Line:
    """Return the figures of a line from those of the two models."""
    excess = after["attack_success"] - before["base_rate"]
    change = after["clean_accuracy"] - before["clean_accuracy"]
    return {
        "attack_before": before["attack_success"],
        "attack_success": after["attack_success"],
        "base_rate": before["base_rate"],
        "excess": round(excess, 6),
        "accuracy_before": before["clean_accuracy"],
        "accuracy_after": after["clean_accuracy"],
        "accuracy_change": round(change, 6),
        "recovery": after["recovery"],
        "counts": after["counts"],
        "intervals": after["intervals"],
    }


def tool_options(method: str, output: Path) -> RepairOptions:
    """Return what asks `repair` for one of the tool's methods."""
    if method == "as-published":
        return RepairOptions(output, keep=True, as_published=True)
    return RepairOptions(output, keep=True, method=cast(Method, method))


def by_tool(bench: Bench, case: Case, method: str, seed: int) -> Line:
    """Run one of the tool's methods as its user would, without its verdict's veto."""
    with tempfile.TemporaryDirectory() as scratch:
        options = tool_options(method, Path(scratch) / "fixed.onnx")
        report = repair(case.model, case.trigger, case.data, options, device="cpu", seed=seed)
        written = options.output.exists()
        after = bench.measured_file(options.output) if written else bench.before
    body: Any = report.body
    return {
        "verdict": report.verdict,
        **figures(as_numbers(bench.before), as_numbers(after)),
        "weights_changed": body["weights_changed"],
        "seconds": round(body["seconds"], 2),
        "image_forwards": sum(stage["image_forwards"] for stage in body["stages"]),
        "edited": str(body.get("method", "")),
        "layers": [layer["initializer"] for layer in body["layers"]],
    }
