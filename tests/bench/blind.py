# SPDX-License-Identifier: Apache-2.0
"""Scan without a trigger, repair from the scan, then bring in the real trigger, which neither saw.

    python tests/bench/blind.py --cases ZOO ../shared/zoo ../shared/cases --results FILE.jsonl
        [--detections FILE.jsonl] [--only NAME ...] [--half tune|report] [--force] [--jobs N]
        [--budget SECONDS] [--table]

Models that the scan flags are repaired from it. With ``--force`` clean models that it does not flag
are repaired as well, from their most suspect class: forced false alarms. ``--detections`` gets the
scans' lines, as `detect.py` writes and reads them. Resumable; ``--table`` only prints.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx import RepairOptions, SuspectOptions, TriggerOptions, scan, verify
from lancet_onnx.api.blind import repair_blind
from lancet_onnx.errors import LancetError
from lancet_onnx.report import Report
from tests.bench.compare_runs import Case, case_options
from tests.bench.compare_table import Line, read_lines
from tests.bench.detect import SEED, Opened, about, figures_of, find_cases, part_of
from tests.bench.detect_table import APART, TOOL


@dataclass(frozen=True)
class Job:
    """What one process does."""

    case: Case
    results: Path
    detections: Path | None
    force: bool
    deadline: float


def scanned(case: Case, report: Report, seconds: float) -> Line:
    """Return a scan as a line of `detect.py`."""
    line = {"method": TOOL, "steps": None, **about(case, Opened(case))}
    return {**line, **figures_of(report, seconds)}


def repaired(case: Case, suspect: int, report: Report) -> Line:
    """Repair from a scan, and measure the real trigger on images that neither has seen."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        triggers = []
        for attachment in report.attachments:
            (folder / attachment.name).write_bytes(attachment.png)
            triggers.append(TriggerOptions(folder / attachment.name, mode="blend"))
        fixed = folder / "fixed.onnx"
        suspects = SuspectOptions(suspect, tuple(triggers))
        made = repair_blind(
            case.model, suspects, case.data, RepairOptions(fixed), device="cpu", seed=SEED
        )
        body: Any = made.body
        line: Line = {
            "verdict": made.verdict,
            "why": made.reasons[0],
            "weights": body["weights_changed"],
            "seconds": round(time.perf_counter() - started, 1),
            "image_forwards": sum(int(s["image_forwards"]) for s in body["stages"]),
            "residual": body["residual_risk"].get("strengths"),
            "recall": body["residual_risk"].get("recall"),
        }
        if made.verdict != "repaired" or not case.entry["backdoored"]:
            return line
        stamp = None
        if case.entry["target"] is not None:
            stamp = replace(case.trigger, target=int(case.entry["target"]))
        told = verify(case.model, fixed, case.unseen or case.data, stamp, device="cpu")
        figures: Any = told.body
        for name in ("attack_success", "base_rate", "clean_accuracy", "recovery"):
            line[name] = [figures[side].get(name) for side in ("before", "after")]
        return line


def run_job(job: Job) -> None:
    """Scan and repair one model; append a line."""
    torch.set_num_threads(1)
    if time.time() > job.deadline:
        return
    case = job.case
    line: Line = {
        "model": case.name,
        "split": part_of(case),
        "backdoored": case.entry["backdoored"],
        "attack": case.entry.get("attack"),
        "target": case.entry["target"],
    }
    try:
        started = time.perf_counter()
        report = scan(case.model, None, case.data, device="cpu", seed=SEED)
        found = scanned(case, report, time.perf_counter() - started)
        if job.detections is not None:
            _append(job.detections, found)
        line |= {"flagged": found["flagged"], "suspect": found["suspect"]}
        line |= {"score": found["score"], "forced": False}
        forced = job.force and not found["flagged"] and not case.entry["backdoored"]
        if (found["flagged"] or forced) and time.time() < job.deadline:
            line |= {"forced": forced, **repaired(case, int(found["suspect"]), report)}
    except (LancetError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        line["error"] = f"{type(error).__name__}: {error}"
    _append(job.results, line)
    told = line.get("error") or f"{line['score']:.2f} {line.get('verdict', 'not asked')}"
    real = f" real {line['attack_success']}" if "attack_success" in line else ""
    print(f"{case.name}: {told}{real}", file=sys.stderr, flush=True)


def _append(path: Path, line: Line) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def tables(lines: list[Line]) -> str:
    """Return the tables, by part of the models and for all."""
    parts = sorted({str(line["split"]) for line in lines})
    rows = [
        "| models | flagged, backdoored | repaired of them | real trigger - base rate, points: "
        "mean / worst | at most 3 points | accuracy change, points: mean / worst | recovery |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(part, [x for x in lines if x["split"] == part]) for part in parts),
        _row("all", lines),
        "",
        "| models | clean | flagged | asked to repair | written |",
        "| --- | --- | --- | --- | --- |",
        *(_clean(part, [x for x in lines if x["split"] == part]) for part in parts),
        _clean("all", lines),
    ]
    missed = [
        f"- `{x['model']}`: real trigger {x['attack_success'][1]:.1%} after the repair, suspect "
        f"{x['suspect']}, target {x['target']}"
        for x in lines
        if _excess(x) is not None and float(_excess(x) or 0) > 0.03
    ]
    declined = [
        f"- `{x['model']}`: {x['why']}"
        for x in lines
        if x["backdoored"] and x.get("verdict") == "not_repaired" and not x["forced"]
    ]
    rows += ["", "Repaired, and the real trigger is over 3 points:", *missed]
    return "\n".join([*rows, "", "Flagged, and declined:", *declined])


def _excess(line: Line) -> float | None:
    if "attack_success" not in line or line["attack"] in APART:
        return None
    return float(line["attack_success"][1] - line["base_rate"][0])


def _row(name: str, lines: list[Line]) -> str:
    bad = [x for x in lines if x["backdoored"] and x["attack"] not in APART]
    flagged = [x for x in bad if x.get("flagged")]
    done = [x for x in flagged if x.get("verdict") == "repaired" and "attack_success" in x]
    if not done:
        return f"| {name} | {len(flagged)} of {len(bad)} | 0 | | | | |"
    left = np.array([float(_excess(x) or 0.0) for x in done]) * 100
    lost = np.array([x["clean_accuracy"][1] - x["clean_accuracy"][0] for x in done]) * 100
    back = np.array([x["recovery"][1] for x in done]) * 100
    return (
        f"| {name} | {len(flagged)} of {len(bad)} | {len(done)} | {left.mean():+.1f} / "
        f"{left.max():+.1f} | {int((left <= 3).sum())} of {len(done)} | {lost.mean():+.2f} / "
        f"{lost.min():+.1f} | {back.mean():.1f} % |"
    )


def _clean(name: str, lines: list[Line]) -> str:
    clean = [x for x in lines if not x["backdoored"]]
    flagged = [x for x in clean if x.get("flagged")]
    asked = [x for x in clean if "verdict" in x]
    written = [x for x in asked if x["verdict"] == "repaired"]
    return f"| {name} | {len(clean)} | {len(flagged)} | {len(asked)} | {len(written)} |"


def main() -> int:
    """Run what is missing and print the tables."""
    parser = case_options(__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--detections", type=Path)
    parser.add_argument("--half", choices=("tune", "report"))
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    if not options.table:
        done = {x["model"] for x in read_lines(options.results) if "error" not in x}
        deadline = time.time() + options.budget
        jobs = [
            Job(case, options.results, options.detections, options.force, deadline)
            for case in find_cases(options.cases, options.only, [], options.half)
            if case.name not in done
        ]
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
            list(pool.map(run_job, jobs))
    lines = {x["model"]: x for x in read_lines(options.results) if "error" not in x}
    print(tables(list(lines.values())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
