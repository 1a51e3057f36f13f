# SPDX-License-Identifier: Apache-2.0
"""Run a folder of models with a cases.json through the command line and print the table.

    python tests/bench/cases.py --cases ../shared/cases [--only NAME ...] [--jobs N] [-- OPTIONS]

Each backdoored model is scanned with its trigger and repaired; each clean model is scanned with
every trigger of the folder that fits its images. Options after ``--`` go to `repair`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from PIL import Image

Case = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of a table, and whether everything that was asked for holds."""

    cells: tuple[str, ...]
    good: bool


def lancet(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run one command with JSON on stdout; return exit code and the JSON (empty on refusal)."""
    command = [sys.executable, "-m", "lancet_onnx_cli", *arguments, "-f", "json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3) or not done.stdout:
        print(done.stderr.strip(), file=sys.stderr)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def trigger_options(case: Case, folder: Path) -> list[str]:
    """Return the options that stamp this case's trigger."""
    return ["--trigger", str(folder / case["trigger"]), "--trigger-mode", case["trigger_mode"]]


def repair_row(case: Case, folder: Path, extra: list[str]) -> Row:
    """Scan and repair one backdoored model."""
    model, data = str(folder / case["model"]), str(folder / case["data"])
    common = [*trigger_options(case, folder), "--data", data, "--preprocess", "unit"]
    code, found = lancet("scan", model, *common)
    verdict = found.get("verdict", f"exit {code}")
    target_right = found.get("examined", {}).get("target") == case["target"]
    with tempfile.TemporaryDirectory() as scratch:
        fixed = Path(scratch) / "fixed.onnx"
        start = time.perf_counter()
        code, out = lancet("repair", model, *common, "-o", str(fixed), "--keep", *extra)
        seconds = time.perf_counter() - start
        if not out:
            return Row((case["name"], verdict, f"exit {code}", *[""] * 8), False)
        only_named = differs_only_in(Path(model), fixed, out)
    before, after = out["before"], out["after"]
    excess = after["attack_success"] - before["base_rate"]
    loss = before["clean_accuracy"] - after["clean_accuracy"]
    forwards = sum(stage["image_forwards"] for stage in out["stages"])
    good = (
        verdict == "backdoored"
        and target_right
        and out["verdict"] == "repaired"
        and excess <= 0.01 + 1e-9
        and loss <= 0.01 + 1e-9
        and only_named
    )
    low, high = after["intervals"]["attack_success"]
    attacked, judged = (after["counts"][name][1] for name in ("attack_success", "clean_accuracy"))
    cells = (
        case["name"],
        verdict + ("" if target_right else " (wrong target)"),
        out["verdict"],
        f"{before['attack_success']:.1%}",
        f"{after['attack_success']:.1%} [{low:.1%}, {high:.1%}] of {attacked}",
        f"{before['base_rate']:.1%}",
        f"{before['clean_accuracy']:.1%} -> {after['clean_accuracy']:.1%} of {judged}",
        f"{after['recovery']:.1%}",
        f"{out['weights_changed']} in {out['layers'][0]['node'] if out['layers'] else '-'}",
        f"{seconds:.1f} / {forwards}",
        "yes" if only_named else "NO",
    )
    return Row(cells, good)


def differs_only_in(before: Path, after: Path, report: dict[str, Any]) -> bool:
    """Return whether two files differ only in the reported initializers and the metadata entry."""
    named = {layer["initializer"]: layer["weights_changed"] for layer in report["layers"]}
    models = [onnx.load(path) for path in (before, after)]
    for model in models:
        kept = [entry for entry in model.metadata_props if entry.key != "lancet-onnx"]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        for tensor in model.graph.initializer:
            if tensor.name in named:
                tensor.ClearField("raw_data")
                tensor.ClearField("float_data")
    onnx.checker.check_model(str(after))
    first, second = (model.SerializeToString(deterministic=True) for model in models)
    return bool(first == second)


def clean_rows(case: Case, folder: Path, cases: list[Case]) -> list[Row]:
    """Scan a clean model with every other model's trigger that fits its images."""
    size = input_size(folder / case["model"])
    rows = []
    for other in (c for c in cases if c["backdoored"]):
        with Image.open(folder / other["trigger"]) as picture:
            if picture.size != size:
                continue
        code, found = lancet(
            "scan",
            str(folder / case["model"]),
            *trigger_options(other, folder),
            "--data",
            str(folder / case["data"]),
            "--preprocess",
            "unit",
        )
        verdict = found.get("verdict", f"exit {code}")
        rise = found.get("examined", {}).get("rise", [float("nan")])[0]
        cells = (case["name"], other["name"], verdict, f"{rise:+.1%}")
        rows.append(Row(cells, verdict == "clean"))
    return rows


def input_size(model: Path) -> tuple[int, int]:
    """Return width and height of the pictures that a model takes."""
    shape = onnx.load(model).graph.input[0].type.tensor_type.shape.dim
    return shape[3].dim_value, shape[2].dim_value


def table(heading: tuple[str, ...], rows: list[Row]) -> None:
    """Print rows as Markdown."""
    print("| " + " | ".join(heading) + " |")
    print("|" + "---|" * len(heading))
    for row in rows:
        print("| " + " | ".join(row.cells) + " |")
    print(f"\n{sum(row.good for row in rows)} of {len(rows)} as asked for\n", flush=True)


def main() -> int:
    """Run the folder; exit 0 when every row is as asked for."""
    mine = sys.argv[1:]
    extra: list[str] = []
    if "--" in mine:
        extra = mine[mine.index("--") + 1 :]
        mine = mine[: mine.index("--")]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(mine)
    cases = json.loads((options.cases / "cases.json").read_text())
    chosen = [c for c in cases if not options.only or any(o in c["name"] for o in options.only)]
    backdoored = [c for c in chosen if c["backdoored"]]
    clean = [c for c in chosen if not c["backdoored"]]
    rows: list[Row] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        if backdoored:
            rows = list(pool.map(lambda c: repair_row(c, options.cases, extra), backdoored))
            heading = (
                "model",
                "scan",
                "repair",
                "attack success before",
                "after [95 % interval] of n",
                "base rate",
                "clean accuracy",
                "recovery",
                "numbers changed",
                "seconds / image-forwards",
                "only named weights differ",
            )
            table(heading, rows)
        if clean:
            parts = pool.map(lambda c: clean_rows(c, options.cases, cases), clean)
            found = [row for part in parts for row in part]
            table(("clean model", "trigger of", "scan", "rise"), found)
            rows += found
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
