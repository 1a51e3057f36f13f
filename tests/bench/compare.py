# SPDX-License-Identifier: Apache-2.0
"""Compare repair methods on the same models, images, seeds and budget.

    python tests/bench/compare.py --cases ../shared/zoo ../shared/cases --results FILE.jsonl
        [--only NAME ...] [--without NAME ...] [--methods METHOD ...] [--jobs N] [--budget N]
        [--svg FILE.svg] [--per-model METHOD] [--table]

Each backdoored model is repaired by each method that has no line in the results yet; then the table
of these models and methods is printed. Every method gets the tool's half of the images and is
judged as the tool is: the patched file is written and run by onnxruntime on the other half, or on
further images where the folder has them. What failed leaves a line with an ``error``; delete the
line to try again.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.errors import LancetError
from tests.bench.baselines import trainable
from tests.bench.compare_plot import plot
from tests.bench.compare_runs import Bench, Case, by_tool, case_options, read_cases
from tests.bench.compare_table import BASELINES, TOOL, Line, per_model, read_lines, tables


@dataclass(frozen=True)
class Job:
    """What one process does: one model, and the methods that are missing, in order."""

    case: Case
    methods: tuple[str, ...]
    results: Path
    budget: float
    seed: int


def run_job(job: Job) -> None:
    """Run the methods of one model and append a line for each."""
    torch.set_num_threads(1)
    case, bench = job.case, None
    for method in job.methods:
        line: Line = {"model": case.name, "method": method, **case.about}
        try:
            bench = bench or Bench.open(case, job.seed)
            if line["trigger_share"] is None:
                line["trigger_share"] = round(bench.stamp.coverage, 6)
            leaves = trainable(bench.subject.classifier)
            line["weights_total"] = sum(leaf.numel() for leaf in leaves.values())
            if method in TOOL:
                line |= by_tool(bench, case, method, job.seed)
            else:
                count = _count_of_auto(job.results, case.name)
                if count is None and method.startswith("random-"):
                    print(f"{case.name}: {method} waits for the line of auto", file=sys.stderr)
                    continue
                line |= bench.run(method, job.budget, job.seed, count or 0)
        except (LancetError, ValueError, RuntimeError) as error:
            line["error"] = f"{type(error).__name__}: {error}"
        # One write, so that lines of several processes do not mix.
        with job.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        told = line.get("error") or f"{line['excess']:+.1%} {line['accuracy_change']:+.1%}"
        print(f"{case.name} {method}: {told}", file=sys.stderr, flush=True)


def _count_of_auto(results: Path, model: str) -> int | None:
    for line in read_lines(results):
        if line["model"] == model and line["method"] == "auto" and "weights_changed" in line:
            return int(line["weights_changed"])
    return None


def find_cases(
    folders: Iterable[Path], only: Sequence[str], without: Sequence[str] = ()
) -> list[Case]:
    """Return the backdoored models whose trigger moves images to one class."""
    return [case for case in read_cases(folders, only, without) if case.one_target]


def main() -> int:
    """Run what is missing and print the tables."""
    parser = case_options(__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--methods", nargs="*", choices=(*TOOL, *BASELINES), default=[])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--budget", type=float, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-model", metavar="METHOD")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    chosen = [m for m in (*TOOL, *BASELINES) if not options.methods or m in options.methods]
    cases = find_cases(options.cases, options.only, options.without)
    if not options.table:
        done = {(line["model"], line["method"]) for line in read_lines(options.results)}
        jobs = []
        for case in cases:
            missing = tuple(m for m in chosen if (case.name, m) not in done)
            if missing:
                jobs.append(Job(case, missing, options.results, options.budget, options.seed))
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
            list(pool.map(run_job, jobs))
    names = {case.name for case in cases}
    lines = [
        line
        for line in read_lines(options.results)
        if line["model"] in names and line["method"] in chosen
    ]
    print(tables(lines))
    if options.per_model:
        print(per_model(lines, options.per_model))
    if options.svg:
        options.svg.write_text(plot(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
