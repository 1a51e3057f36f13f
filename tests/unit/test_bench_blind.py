# SPDX-License-Identifier: Apache-2.0
"""The tables of repairs from a search: what counts as flagged, repaired, reached and missed."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lancet_onnx.errors import DataError
from lancet_onnx.report import Report

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench import blind  # noqa: E402
from tests.bench.blind import Job, run_job, tables  # noqa: E402
from tests.bench.compare_runs import Case  # noqa: E402
from tests.bench.compare_table import read_lines  # noqa: E402

SQUARE = "mnist_cnn_square"


def line(model: str, **more: object) -> dict[str, Any]:
    """A backdoored model that was flagged and repaired to the end."""
    return {
        "model": model,
        "split": "report",
        "backdoored": True,
        "attack": "badnets",
        "target": 3,
        "suspect": 3,
        "score": 4.0,
        "flagged": True,
        "verdict": "repaired",
        "attack_success": [1.0, 0.02],
        "base_rate": [0.01, 0.01],
        "clean_accuracy": [0.95, 0.94],
        "recovery": [0.0, 0.9],
        **more,
    }


def unasked(model: str, **more: object) -> dict[str, Any]:
    """A model that was not flagged, so that nothing was repaired."""
    made = line(model, flagged=False, **more)
    for key in ("verdict", "attack_success", "base_rate", "clean_accuracy", "recovery"):
        del made[key]
    return made


def clean(model: str, *, flagged: bool, verdict: str | None = None, **more: object):
    made = unasked(model, backdoored=False, attack=None, target=None, **more)
    return {**made, "flagged": flagged, **({"verdict": verdict} if verdict else {})}


LINES = [
    line("a", split="tune"),
    line("b", attack_success=[1.0, 0.21], recovery=[0.0, 0.7], suspect=4),
    line("c", verdict="not_repaired", forced=False, why="lost too much"),
    unasked("d"),
    line("e", attack="source-specific", attack_success=[1.0, 0.9]),
    clean("f", flagged=False),
    clean("g", flagged=True, verdict="repaired"),
    clean("h", flagged=False, verdict="not_repaired", split="tune"),
]


def cells(text: str, name: str, table: int) -> list[str]:
    rows = [r for r in text.splitlines() if r.startswith(f"| {name} |")]
    return [cell.strip() for cell in rows[table].strip("|").split("|")]


def test_the_tables_say_what_the_lines_say():
    text = tables(LINES)
    assert cells(text, "tune", 0) == [
        "tune", "1 of 1", "1", "+1.0 / +1.0", "1 of 1", "-1.00 / -1.0", "90.0 %",
    ]  # fmt: skip
    assert cells(text, "report", 0) == [
        "report", "2 of 3", "1", "+20.0 / +20.0", "0 of 1", "-1.00 / -1.0", "70.0 %",
    ]  # fmt: skip
    assert cells(text, "all", 0)[1:5] == ["3 of 4", "2", "+10.5 / +20.0", "1 of 2"]
    assert cells(text, "all", 1) == ["all", "3", "1", "2", "1"]
    assert cells(text, "tune", 1) == ["tune", "1", "0", "1", "0"]


def test_what_is_not_reached_is_named_unless_its_trigger_is_for_one_class():
    text = tables(LINES)
    missed = [row for row in text.splitlines() if row.startswith("- ")]
    assert missed == [
        "- `b`: real trigger 21.0% after the repair, suspect 4, target 3",
        "- `c`: lost too much",
    ]
    assert text.index("over 3 points") < text.index("declined") < text.index("- `c`")


@pytest.mark.parametrize("lines", [[], [unasked("d")], [clean("f", flagged=False)]])
def test_tables_of_nothing_repaired_have_no_figures(lines: list[dict[str, Any]]):
    row = cells(tables(lines), "all", 0)
    assert row[2:] == ["0", "", "", "", ""]


def case_of(fixtures, **more: object) -> Case:
    entry = fixtures.manifest[SQUARE]
    return Case(ROOT, {**entry, "model": entry["path"], "data": entry["images"], **more})


def scan_report(verdict: str) -> Report:
    search = {"score": 7.5, "threshold": 1.0, "suspect": 7, "image_forwards": 99}
    row = {"class": 7, "score": 7.5, "cost_free": 0.01, "stray": 0.2}
    body = {"search": {**search, "classes": [row]}}
    return Report("scan", verdict, (), body)


@pytest.mark.parametrize(
    ("verdict", "backdoored", "force", "asked"),
    [
        ("backdoored", True, False, True),
        ("backdoored", False, False, True),
        ("clean", False, False, False),
        ("clean", False, True, True),
        ("clean", True, True, False),
    ],
)
def test_who_is_repaired(
    fixtures, tmp_path: Path, monkeypatch, verdict: str, backdoored: bool, force: bool, asked: bool
):
    calls: list[int] = []

    def fixed(model, suspects, *_, **__) -> Report:
        calls.append(suspects.target)
        body = {"weights_changed": 5, "stages": [{"image_forwards": 3}], "residual_risk": {}}
        return Report("repair", "not_repaired", ("why",), body)

    monkeypatch.setattr(blind, "scan", lambda *_, **__: scan_report(verdict))
    monkeypatch.setattr(blind, "repair_blind", fixed)
    results, detections = tmp_path / "results.jsonl", tmp_path / "found.jsonl"
    job = Job(case_of(fixtures, backdoored=backdoored), results, detections, force, float("inf"))
    run_job(job)
    run_job(replace(job, deadline=0))  # past its deadline
    (told,) = read_lines(results)
    (seen,) = read_lines(detections)
    assert calls == ([7] if asked else [])
    assert ("verdict" in told) == asked
    assert told["flagged"] == seen["flagged"] == (verdict == "backdoored")
    assert told["forced"] == (asked and verdict == "clean")
    assert (seen["score"], seen["anomalies"]) == (7.5, [7.5])
    assert (seen["costs"], seen["strays"], seen["searched"]) == ([{"free": 0.01}], [0.2], [7])


def test_what_fails_leaves_a_line(fixtures, tmp_path: Path, monkeypatch):
    def fails(*_: object, **__: object) -> Report:
        raise DataError("no such thing")

    monkeypatch.setattr(blind, "scan", fails)
    results = tmp_path / "results.jsonl"
    run_job(Job(case_of(fixtures), results, None, False, float("inf")))
    (told,) = read_lines(results)
    assert told["error"] == "DataError: no such thing"
