# SPDX-License-Identifier: Apache-2.0
"""Honest errors corrected in many ways, side by side; a line of JSON for each.

    python tests/bench/correct.py --cases DIR [DIR ...] [--only NAME ...] --lines FILE
                                  [--device cuda] [--jobs N] [--methods NAME ...] [--seconds S]
                                  [--share S]
    python tests/bench/correct_table.py FILE [FILE ...]

Each method gets the same images, steps and budget, and five learning rates of its own. Runs whose
line is in FILE are not repeated. With --share all methods get a part of the usual steps: lines of
such runs belong in a file of their own. The second command prints the tables.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.api.learning import Probe
from lancet_onnx.repair.correct import PARTS, moved
from lancet_onnx.repair.moving import weights_of
from lancet_onnx.runtime.executor import Params
from tests.bench.compare_runs import Case, case_options, read_cases
from tests.bench.correct_methods import METHODS
from tests.bench.correct_study import Study

SEED = 1
Line = dict[str, Any]


def counted(study: Study, probe: Probe, params: Params) -> Line:
    """Return what got better and worse."""
    better, worse = probe.better_and_worse(study.classifier, params)
    line: Line = {
        "n": len(probe.true),
        "wrong": int(probe.wrong.sum()),
        "better": int(better.sum()),
        "worse": int(worse.sum()),
    }
    if probe is study.figures:
        for name, similar in (("like_paper", study.like_paper), ("named", study.named)):
            line[name] = [int((better & similar).sum()), int((probe.wrong & similar).sum())]
    return line


def line_of(study: Study, method: str, rate: float) -> Line:
    """Run one method at one rate."""
    start = time.perf_counter()
    deltas = METHODS[method].deltas(study, rate)
    parts: Line = {}
    for part in PARTS:
        params = moved(study.classifier, deltas, part)
        parts[str(part)] = {
            name: counted(study, probe, params)
            for name, probe in (("aside", study.learning.aside), ("figures", study.figures))
        }
    return {
        "case": study.case.name,
        "method": method,
        "rate": rate,
        "changed": sum(int(delta.count_nonzero()) for delta in deltas.values()),
        "weights": weights_of(study.classifier),
        "parts": parts,
        "seconds": round(time.perf_counter() - start, 1),
    }


def work(case: Case, wanted: Any, lines: Any, device: str, share: float) -> None:
    """Do runs of one model until none is left."""
    torch.set_num_threads(1)
    study = Study.open(case, SEED, device, share)
    while (run := wanted.get()) is not None:
        try:
            lines.put(line_of(study, *run))
        except Exception as error:  # one method's failure must not cost the others' lines
            lines.put(f"{case.name} {run}: {error!r}")


def main() -> int:
    """Write the lines."""
    parser = case_options(__doc__)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--jobs", type=int, default=1, help="processes for each model")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=1e6, help="when to stop")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual steps")
    options = parser.parse_args()
    start = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    known = (
        [json.loads(line) for line in options.lines.read_text().splitlines()]
        if options.lines.is_file()
        else []
    )
    done = {(line["case"], line["method"], line["rate"]) for line in known}
    lines, queues, workers, total = spawn.Queue(), [], [], 0
    for case in read_cases(options.cases, options.only):
        wanted = spawn.Queue()
        queues.append(wanted)  # a queue that is forgotten here is gone there
        runs = [(name, rate) for name in options.methods for rate in METHODS[name].rates]
        runs = [run for run in runs if (case.name, *run) not in done]
        for run in [*runs, *[None] * options.jobs]:
            wanted.put(run)
        total += len(runs)
        arguments = (case, wanted, lines, options.device, options.share)
        workers += [
            spawn.Process(target=work, args=arguments, daemon=True)
            for _ in range(min(options.jobs, len(runs)))
        ]
    for worker in workers:
        worker.start()
    with options.lines.open("a", encoding="utf-8") as file:
        for number in range(total):
            left = options.seconds - (time.monotonic() - start)
            try:
                line = lines.get(timeout=max(left, 0.1))
            except Exception:
                print(f"stopped after {number} of {total} runs", file=sys.stderr)
                break
            if isinstance(line, str):
                print(line, file=sys.stderr)
                continue
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(f"{number + 1}/{total} {line['case']} {line['method']} {line['rate']}: "
                  f"{line['seconds']} s", file=sys.stderr)  # fmt: skip
    for worker in workers:
        worker.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
