# SPDX-License-Identifier: Apache-2.0
"""Compare detectors that know no trigger on the same models, images and seed.

    python tests/bench/detect.py --cases ZOO ../shared/zoo ../shared/cases --results FILE.jsonl
        [--methods METHOD ...] [--only NAME ...] [--without NAME ...] [--half tune|report]
        [--steps N] [--jobs N] [--budget SECONDS] [--table]

Each model is examined by each method that has no line in the results yet; then the tables are
printed. Every method gets the tool's half of the images. ``--half`` leaves out the zoo's other half
(of shared folders all models are taken); ``--steps`` caps the baselines' steps a class for quick
runs, whose lines are kept apart; after ``--budget`` seconds nothing more is begun: run it again to
go on. What failed leaves a line with an ``error`` and is tried again. ``--table`` only prints.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.api import scan
from lancet_onnx.api.subject import Prepared, Subject, prepare, read_trigger_for
from lancet_onnx.errors import LancetError
from lancet_onnx.report import Report
from lancet_onnx.samples import Split
from lancet_onnx.verify.searching import SUSPECT, compared, counted, score_of
from tests.bench.compare_runs import Case, case_options, read_cases
from tests.bench.compare_table import Line, read_lines
from tests.bench.detect_baselines import DETECTORS, STEPS
from tests.bench.detect_setting import Setting
from tests.bench.detect_table import METHODS, TOOL, group_of, in_matrix, split_of, tables

SEED = 0


@dataclass(frozen=True)
class Job:
    """What one process does: one model, and the methods that are missing, in order."""

    case: Case
    methods: tuple[str, ...]
    results: Path
    steps: int | None
    deadline: float


def part_of(case: Case) -> str:
    """Return which part of the figures a model belongs to."""
    return split_of(case.entry, case.folder.resolve().name)


class Opened:
    """A model and its images, opened when first needed and once for all baselines."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.seconds = 0.0

    @cached_property
    def parts(self) -> tuple[Subject, Prepared]:
        start = time.perf_counter()
        subject = Subject.open(self._case.model, "cpu")
        prepared = prepare(subject, self._case.data)
        self.seconds = time.perf_counter() - start
        return subject, prepared

    def share(self) -> float:
        """Return which share of the image the trigger covers."""
        known = self._case.entry.get("trigger_share")
        if known is not None:
            return float(known)
        subject, prepared = self.parts
        return read_trigger_for(subject, self._case.trigger, None, prepared.samples).coverage


def about(case: Case, opened: Opened) -> Line:
    """Return what every line says of a model."""
    entry = case.entry
    kind = entry.get("kind") or case.name.partition("-")[2].split("-")[0] or None
    line: Line = {
        "model": case.name,
        "split": part_of(case),
        "dataset": entry.get("dataset") or Path(str(entry["data"])).name.split("_")[0],
        "architecture": case.about["architecture"],
        "backdoored": entry["backdoored"],
        "attack": None,
        "kind": None,
        "group": None,
        "trigger_share": None,
        "source": None,
        "target": entry["target"],
    }
    if entry["backdoored"]:
        attack, share = entry.get("attack") or "badnets", opened.share()
        line |= {
            "attack": attack,
            "kind": kind,
            "group": group_of(attack, kind, entry["trigger_mode"], share),
            "trigger_share": round(share, 6),
            # elsewhere `source` says where the file is from
            "source": entry["source"] if in_matrix(entry) else None,
        }
    return line


def by_tool(case: Case) -> Line:
    """Scan as a user would who knows no trigger."""
    start = time.perf_counter()
    report = scan(case.model, None, case.data, device="cpu", seed=SEED)
    return figures_of(report, time.perf_counter() - start)


def figures_of(report: Report, seconds: float) -> Line:
    """Return what a scan found and what it took."""
    body: Any = report.body
    search = body["search"]
    return {
        "score": float(search["score"]),
        "threshold": search["threshold"],
        "suspect": search["suspect"],
        "flagged": report.verdict == "backdoored",
        "verdict": report.verdict,
        "anomalies": [found["score"] for found in search["classes"]],
        "costs": [
            {key.removeprefix("cost_"): found[key] for key in found if key.startswith("cost_")}
            for found in search["classes"]
        ],
        "strays": [found["stray"] for found in search["classes"]],
        "searched": [found["class"] for found in search["classes"]],
        "image_forwards": search["image_forwards"],
        "seconds": round(seconds, 2),
    }


def by_baseline(opened: Opened, method: str, steps: int | None) -> Line:
    """Run a baseline on the tool's half of the images."""
    subject, prepared = opened.parts
    tool = Split.of(prepared.samples, SEED).tool
    setting = Setting.of(subject.classifier, tool, prepared.preprocess, SEED, steps)
    found = DETECTORS[method](setting)
    return {
        "score": found.score,
        "threshold": found.threshold,
        "suspect": found.suspect,
        "flagged": found.flagged,
        "verdict": "backdoored" if found.flagged else "clean",
        "anomalies": [round(v, 6) for v in found.anomalies],
        "values": [round(v, 6) for v in found.values],
        "image_forwards": found.forwards,
        "seconds": round(opened.seconds + found.seconds, 2),
    }


def run_job(job: Job) -> None:
    """Run the methods of one model and append a line for each."""
    torch.set_num_threads(1)
    opened = Opened(job.case)
    for method in job.methods:
        if time.time() > job.deadline:
            return
        line: Line = {"method": method, "steps": None if method == TOOL else job.steps}
        try:
            line |= about(job.case, opened)
            tool = method == TOOL
            line |= by_tool(job.case) if tool else by_baseline(opened, method, job.steps)
        except (LancetError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
            line |= {"model": job.case.name, "split": part_of(job.case)}
            line["error"] = f"{type(error).__name__}: {error}"
        # One write, so that lines of several processes do not mix.
        with job.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        told = line.get("error") or f"{line['score']:.2f} {line['verdict']}"
        print(f"{job.case.name} {method}: {told}", file=sys.stderr, flush=True)


def find_cases(
    folders: Sequence[Path], only: Sequence[str], without: Sequence[str], half: str | None
) -> list[Case]:
    """Return the models that are asked for, clean and backdoored."""
    return [
        case
        for case in read_cases(folders, only, without)
        if half in (None, part_of(case)) or part_of(case).startswith("shared")
    ]


def judged_anew(line: Line) -> Line:
    """Return a scan's line with score and flag by today's rule, from the costs of its classes.

    A search takes long, the rule that judges its costs does not. Images are not looked at again:
    what was no finding stays none, and a score only falls, since a class's cheapest trigger may be
    one that did not work on the search's images. The verdict stays that of the scan, as do lines of
    a search that kept no costs.
    """
    if line["method"] != TOOL or "error" in line or not line.get("costs"):
        return line
    costs = counted(line["costs"], line["strays"])
    scores = [score_of(*both) for both in zip(costs, line["strays"], strict=True)]
    first = max(range(len(scores)), key=scores.__getitem__)
    score = min(line["score"], compared(scores[first], scores[:first] + scores[first + 1 :]))
    flagged = line["flagged"] and score >= SUSPECT
    return {**line, "score": score, "suspect": line["searched"][first], "flagged": flagged}


def latest(lines: Sequence[Line], steps: int | None) -> dict[tuple[str, str, str], Line]:
    """Return the last line of each part, model and method, of runs with so many steps."""
    return {
        (line["split"], line["model"], line["method"]): line
        for line in lines
        if line["method"] == TOOL or line["steps"] == steps
    }


def main() -> int:
    """Run what is missing and print the tables."""
    parser = case_options(__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--half", choices=("tune", "report"))
    parser.add_argument("--steps", type=int, help="at most so many steps a class")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    chosen = [method for method in METHODS if method in options.methods]
    cases = find_cases(options.cases, options.only, options.without, options.half)
    keys = {(part_of(case), case.name): case for case in cases}
    if not options.table:
        known = latest(read_lines(options.results), options.steps)
        done = {key for key, line in known.items() if "error" not in line}
        deadline, jobs = time.time() + options.budget, []
        for key, case in keys.items():
            missing = tuple(m for m in chosen if (*key, m) not in done)
            if missing:
                jobs.append(Job(case, missing, options.results, options.steps, deadline))
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
            list(pool.map(run_job, jobs))
    found = latest([judged_anew(x) for x in read_lines(options.results)], options.steps)
    if options.steps:
        told = f"The baselines were cut short: at most {options.steps} steps a class instead of "
        print(told + ", ".join(f"{STEPS[m]} ({m})" for m in chosen if m in STEPS) + ".\n")
    print(tables([v for k, v in found.items() if k[:2] in keys and k[2] in chosen]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
