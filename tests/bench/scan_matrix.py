# SPDX-License-Identifier: Apache-2.0
"""What triggers do to models: own triggers to backdoored ones, foreign triggers to clean ones.

    python tests/bench/scan_matrix.py --cases ../shared/cases ../shared/zoo [--without-data]

Calls the library in one process (a scan each, no location), prints the rises that verdicts rest on,
and how many verdicts are right. With --without-data the images are generated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lancet_onnx import DataOptions, LancetError, TriggerOptions, scan

Case = dict[str, Any]


def read(folders: list[Path]) -> list[Case]:
    """Return the cases of all folders, with absolute paths."""
    cases: list[Case] = []
    for folder in folders:
        for case in json.loads((folder / "cases.json").read_text()):
            for key in ("model", "data", "trigger"):
                case[key] = (folder / case[key]).resolve() if case[key] else None
            cases.append(case)
    return cases


def examine(case: Case, other: Case, *, with_data: bool) -> tuple[str, dict[str, Any]] | None:
    """Scan `case` with the trigger of `other`; None where it does not fit the images."""
    trigger = TriggerOptions(other["trigger"], mode=other["trigger_mode"])
    data = DataOptions(case["data"] if with_data else None, "unit")
    try:
        report = scan(case["model"], trigger, data, device="cpu", locating=False)
    except LancetError as error:
        if "larger than" in str(error):
            return None
        raise
    examined = report.body["examined"]
    assert isinstance(examined, dict)
    return report.verdict, examined


def main() -> int:
    """Print one line a scan and a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, nargs="+", required=True)
    parser.add_argument("--without-data", action="store_true")
    options = parser.parse_args()
    cases = read(options.cases)
    with_data = not options.without_data
    backdoored = [case for case in cases if case["backdoored"]]
    pairs = [(case, case) for case in backdoored]
    pairs += [(case, other) for case in cases if not case["backdoored"] for other in backdoored]
    tally: dict[tuple[bool, str], int] = {}
    for case, other in pairs:
        outcome = examine(case, other, with_data=with_data)
        if outcome is None:
            continue
        verdict, examined = outcome
        own = case is other
        tally[own, verdict] = tally.get((own, verdict), 0) + 1
        if with_data:
            shown = f"rise {examined['rise'][0]:+.3f}"
        else:
            controls = examined["controls"]
            middle = controls[len(controls) // 2]
            shown = f"rise {examined['attack_success']:+.3f} controls {middle:+.3f}"
        kind = "own" if own else "foreign"
        coverage = examined["trigger"]["coverage"]
        target = examined["target"]
        print(
            f"{kind:8} {case['name']:26} {other['name']:26} coverage {coverage:.3f} {shown} "
            f"target {target} {verdict}",
            flush=True,
        )
    for (own, verdict), count in sorted(tally.items()):
        print(f"{'own' if own else 'foreign'} triggers: {verdict} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
