# SPDX-License-Identifier: Apache-2.0
"""Ask for repairs that nobody needs: clean models, with triggers of other models.

    python tests/bench/foreign.py --cases DIR [DIR ...] [--every N] [--only NAME ...]

Each clean model is to be repaired against every N-th trigger that has its input's size, of any of
the folders. Asked for in every case: exit code 1, and nothing written.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx import RepairOptions, repair
from lancet_onnx.errors import LancetError
from tests.bench.cases import input_size
from tests.bench.compare_runs import Case, case_options, read_cases


def picture_size(path: Path) -> tuple[int, int]:
    """Return width and height of a picture."""
    with Image.open(path) as picture:
        return picture.size


def read(folders: Sequence[Path]) -> tuple[list[Case], list[Case]]:
    """Return the clean models and the backdoored ones."""
    cases = read_cases(folders)
    clean = [case for case in cases if not case.entry["backdoored"]]
    return clean, [case for case in cases if case.entry["backdoored"]]


def ask(model: Case, other: Case) -> tuple[bool, str]:
    """Ask for a repair; return whether nothing was written and the exit code is 1, and words."""
    with tempfile.TemporaryDirectory() as scratch:
        options = RepairOptions(Path(scratch) / "fixed.onnx")
        try:
            report = repair(model.model, other.trigger, model.data, options, device="cpu")
        except LancetError as error:
            return False, f"{type(error).__name__}: {error}"
        written = len(list(Path(scratch).iterdir()))
    said = f"{report.verdict}, exit {report.exit_code}, {written} files: {report.reasons[-1]}"
    return report.exit_code == 1 and not written, said


def main() -> int:
    """Ask for all; print what went wrong and a line for each model."""
    parser = case_options(__doc__)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clean, others = read(options.cases)
    sizes = {other.name: picture_size(other.trigger.path) for other in others}
    total = failed = 0
    for model in clean:
        if options.only and not any(part in model.name for part in options.only):
            continue
        wanted = input_size(model.model)
        triggers = [other for other in others if sizes[other.name] == wanted][:: options.every]
        results = {other.name: ask(model, other) for other in triggers}
        bad = {name: said for name, (good, said) in results.items() if not good}
        print(f"{model.name}: {len(results) - len(bad)} of {len(results)} declined", flush=True)
        for name, said in bad.items():
            print(f"    {name}: {said}", flush=True)
        total, failed = total + len(results), failed + len(bad)
    print(f"{total - failed} of {total} declined with exit code 1, nothing written")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
