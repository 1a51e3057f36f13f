# SPDX-License-Identifier: Apache-2.0
"""What `repair` does to the honest errors of models, as it says itself; and as the paper does it.

    python tests/bench/corrected.py --cases DIR [DIR ...] [--only NAME ...] [--seeds N ...]
                                    [--as-published] [--jobs N] [--device cuda]

Half of the images (by the seed) are learnt from, the other half is reported on. Where nothing is
written the figures are those of what was tried.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.api import RepairOptions, repair_errors
from lancet_onnx.runtime.ort import Device
from lancet_onnx.verify.metrics import Rate
from tests.bench.compare_runs import Case, case_options, read_cases
from tests.bench.compare_table import markdown

HEADING = ["model", "seed", "verdict", "clean accuracy", "errors corrected [95 %]",
           "right ones broken", "net, points", "McNemar's p", "weights changed", "part",
           "seconds"]  # fmt: skip


def row(run: tuple[Case, int], *, published: bool, device: Device) -> list[str]:
    """Repair one model and return its cells."""
    case, seed = run
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        options = RepairOptions(Path(folder) / "fixed.onnx", as_published=published)
        report = repair_errors(case.model, case.data, options, device=device, seed=seed)
    body = cast("dict[str, Any]", report.to_dict())
    before, after, found = body["before"], body["after"], body["corrections"]
    cells = [case.name, str(seed), report.verdict]
    if "repair_rate" not in after:
        return [*cells, f"{before['clean_accuracy']:.1%}", *[""] * 7]
    fixed, broken = (Rate(*after["counts"][name]) for name in ("repair_rate", "regression_rate"))
    share = sum(layer["weights_changed"] for layer in body["layers"]) / body["weights"]
    return [
        *cells,
        f"{before['clean_accuracy']:.2%} -> {after['clean_accuracy']:.2%} of {found['n']}",
        f"{fixed.value:.1%} [{fixed.low:.0%}, {fixed.high:.0%}] of {fixed.n}",
        f"{broken.value:.2%} of {broken.n}",
        f"{100 * found['net'] / found['n']:+.2f}",
        f"{found['mcnemar_p']:.2g}",
        f"{body['weights_changed']} ({share:.2%})",
        next((str(part["part"]) for part in body["parts"] if part["chosen"]), ""),
        f"{report.body['seconds']:.0f}",
    ]


def main() -> int:
    """Print a row for each model and seed."""
    parser = case_options(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--as-published", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    cases = read_cases(options.cases, options.only)
    runs = [(case, seed) for case in cases for seed in options.seeds]
    one = partial(row, published=options.as_published, device=options.device)
    rows = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for cells in pool.map(one, runs):
            print(" | ".join(cells), file=sys.stderr, flush=True)
            rows.append(cells)
    print(markdown(HEADING, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
