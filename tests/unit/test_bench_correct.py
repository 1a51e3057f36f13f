# SPDX-License-Identifier: Apache-2.0
"""The benchmark of ways to correct errors: its tables, and what each method may touch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import SIDE, saved, spotted, spotted_file

from lancet_onnx.repair.moving import weights_of
from tests.bench import correct_study
from tests.bench.compare_runs import Case
from tests.bench.correct import line_of
from tests.bench.correct_methods import METHODS, Method
from tests.bench.correct_study import Study
from tests.bench.correct_table import at_equal, chosen, row

CLASSES, TARGET, EACH = 4, 2, 30


def figures(better: int, worse: int) -> dict[str, object]:
    return {
        "n": 110, "wrong": 10, "better": better, "worse": worse,
        "like_paper": [better // 2, 4], "named": [better, 8],
    }  # fmt: skip


def line(rate: float, **parts: tuple[int, int, int]) -> dict[str, object]:
    """A line whose parts are (net gain aside, better, worse)."""
    return {
        "case": "one", "method": "m", "rate": rate, "changed": 5, "weights": 500,
        "parts": {
            name: {"aside": {"better": net, "worse": 0}, "figures": figures(better, worse)}
            for name, (net, better, worse) in parts.items()
        },
    }  # fmt: skip


def test_rate_and_part_are_chosen_by_images_aside_only():
    lines = [line(0.1, half=(2, 3, 0), all=(1, 9, 0)), line(0.3, half=(4, 1, 1), all=(0, 9, 0))]
    best, part = chosen(lines)
    assert (best["rate"], part) == (0.3, "half")
    cells = row("m", lines)
    assert cells[:3] == ["m", "0.3, half", "5 (1.0%)"]
    assert cells[3].startswith("10.0% [")
    assert cells[7] == "+0.00"
    assert cells[8] == "1"


def test_at_equal_regression_the_most_that_is_corrected():
    lines = [line(0.1, half=(0, 3, 1), all=(0, 8, 2)), line(0.3, half=(0, 5, 5), all=(0, 9, 9))]
    assert at_equal(lines, 0.01, "all") == "30%"
    assert at_equal(lines, 0.02, "all") == "80%"
    assert at_equal(lines, 0.02, "like_paper") == "100%"
    assert at_equal(lines, 0.001, "all") == "-"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("case")
    # Two kinds of spots would be two groups; here each true label is one.
    saved(folder / "d.npz", spotted(CLASSES, EACH))
    model = spotted_file(folder, CLASSES, TARGET)
    entry = {"name": "spot", "model": model.name, "data": "d.npz"}
    return Study.open(Case(folder, entry), 0, "cpu")


def test_the_halves_and_the_images_aside_are_apart(study: Study):
    parts = [
        study.canvas.inputs(study.canvas.pixels),
        study.learning.aside.inputs,
        study.figures.inputs,
    ]
    seen = [{image.numpy().tobytes() for image in part} for part in parts]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 2 * EACH * CLASSES
    assert len(seen[2]) == EACH * CLASSES
    assert int(study.wrong.sum()) > 0


@pytest.mark.parametrize(
    "name", [n for n, m in METHODS.items() if isinstance(m, Method) and m.masks]
)
def test_a_method_keeps_to_its_weights(study: Study, name: str):
    masks = METHODS[name].masks
    assert masks is not None
    kept = masks(study)
    count = sum(int(mask.sum()) for mask in kept.values())
    whole = name.startswith("whole")
    assert (count > study.budget) == whole
    if name.startswith("whole model"):
        assert count == sum(mask.numel() for mask in kept.values())
    if "that layer" in name or "one layer" in name or name == "as published":
        assert sum(bool(mask.any()) for mask in kept.values()) == 1


def test_errors_are_grouped_by_their_two_labels(study: Study):
    assert len(study.by_labels) == CLASSES - 1
    for group in study.by_labels:
        wrong = group.canvas.labels != group.true
        assert wrong.any()
        assert (group.canvas.labels[wrong] == TARGET).all()
        assert len(set(group.true[wrong].tolist())) == 1
        assert group.location.best is not None


def test_errors_are_grouped_by_the_weights_that_carry_them(study: Study):
    errors = [
        {
            pixels.numpy().tobytes()
            for pixels in group.canvas.pixels[group.canvas.labels != group.true]
        }
        for group in study.by_weights
    ]
    assert 1 <= len(errors) <= correct_study.GROUPS
    assert all(errors)
    assert len(set.union(*errors)) == sum(map(len, errors)), "no error is in two groups"
    for group in study.by_weights:
        assert int((group.canvas.labels == group.true).sum()) == int((~study.wrong).sum())


def test_clusters_go_by_angle():
    draw = torch.Generator().manual_seed(0)
    ways = torch.eye(3)[torch.arange(30) % 3] + 0.05 * torch.rand((30, 3), generator=draw)
    found = correct_study.clusters(ways * torch.linspace(0.1, 9, 30)[:, None], 3, 2)
    for number in range(3):
        assert len(set(found[number::3].tolist())) == 1
    assert len(set(found.tolist())) == 3


def test_all_methods_may_get_a_part_of_the_usual_steps(study: Study):
    usual = study.settings(0.1)
    assert usual == correct_study.CorrectSettings(rate=0.1)
    less = replace(study, share=0.4).settings(0.1)
    assert (less.warm, less.steps) == (int(0.4 * usual.warm), int(0.4 * usual.steps))
    assert replace(less, warm=usual.warm, steps=usual.steps) == usual


@pytest.mark.parametrize("name", ["as published", "group by group", "whole model, elastic"])
def test_a_line_holds_what_the_tables_need(study: Study, name: str, monkeypatch):
    quick = replace(correct_study.CorrectSettings(), steps=6, warm=4, batch=8)
    monkeypatch.setattr(correct_study, "CorrectSettings", lambda **more: replace(quick, **more))
    made = line_of(study, name, 0.01)
    assert json.loads(json.dumps(made)) == made
    assert made["weights"] == weights_of(study.classifier)
    assert 0 < made["changed"] <= (made["weights"] if name.startswith("whole") else study.budget)
    for part in made["parts"].values():
        assert part["figures"]["n"] == EACH * CLASSES
        assert part["figures"]["named"][1] <= part["figures"]["wrong"]
    assert row(name, [made])[0] == name


def test_similar_errors_are_those_that_ablation_mends(study: Study):
    wrong = study.figures.before != study.figures.true
    assert (study.like_paper & wrong).any()
    assert study.named[wrong].all()
    assert not study.named[~wrong].any()
    assert Path(study.case.model).is_file()
    assert study.canvas.pixels.shape[2:] == (SIDE, SIDE)
