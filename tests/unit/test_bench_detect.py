# SPDX-License-Identifier: Apache-2.0
"""The comparison of detectors: what each baseline does in three steps, runs and tables."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lancet_onnx.errors import DataError
from lancet_onnx.model import load
from lancet_onnx.report import Report
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import PRESETS
from lancet_onnx.verify.searching import BOUNDS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench import detect  # noqa: E402
from tests.bench.compare_runs import Case  # noqa: E402
from tests.bench.compare_table import read_lines  # noqa: E402
from tests.bench.detect import Job, find_cases, judged_anew, latest, run_job  # noqa: E402
from tests.bench.detect_baselines import (  # noqa: E402
    DETECTORS,
    null_scores,
    sign_gradient,
)
from tests.bench.detect_search import EARLY_STOP, PATIENCE, Search  # noqa: E402
from tests.bench.detect_setting import (  # noqa: E402
    Scores,
    Setting,
    below_median,
    below_median_of_logs,
)
from tests.bench.detect_table import (  # noqa: E402
    METHODS,
    area,
    area_interval,
    group_of,
    split_of,
    tables,
)

STEPS = 3
CLEAN, SQUARE = "mnist_cnn_clean", "mnist_cnn_square"


@pytest.fixture(scope="module")
def classifier(fixtures) -> Classifier:
    return Classifier(load(fixtures.model(CLEAN)).graph)


@pytest.fixture
def setting(fixtures, classifier: Classifier) -> Setting:
    return Setting.of(classifier, fixtures.samples(40), PRESETS["unit"], 0, STEPS)


@pytest.mark.parametrize("method", DETECTORS)
def test_a_baseline_gives_finite_scores_and_counts_its_images(setting: Setting, method: str):
    found = DETECTORS[method](setting)
    assert len(found.values) == len(found.anomalies) == setting.classes
    assert np.isfinite([*found.values, *found.anomalies]).all()
    batch = {"neural-cleanse": 32, "tabor": 65, "sign-gradient": 10, "maximum-margin": 30}
    assert found.forwards == 3 * STEPS * setting.classes * batch[method]
    assert found.suspect == int(np.argmax(found.anomalies))
    assert found.flagged == (found.score > found.threshold)
    assert found.seconds > 0


def test_the_same_seed_gives_the_same_scores(fixtures, classifier: Classifier, setting: Setting):
    again = Setting.of(classifier, fixtures.samples(40), PRESETS["unit"], 0, STEPS)
    other = Setting.of(classifier, fixtures.samples(40), PRESETS["unit"], 1, STEPS)
    for method in DETECTORS.values():
        first = method(setting).values
        assert method(again).values == first
        assert method(other).values != first


def test_the_sign_mask_of_the_target_is_the_smallest_of_the_bundled_backdoor(fixtures):
    model = Classifier(load(fixtures.model(SQUARE)).graph)
    found = sign_gradient(Setting.of(model, fixtures.samples(200), PRESETS["unit"]))
    assert int(np.argmin(found.values)) == fixtures.target(SQUARE) == found.suspect


@pytest.mark.parametrize("name", ["unit", "minus1to1", "uint8"])
def test_pixels_become_inputs_as_preprocessing_says(fixtures, classifier: Classifier, name: str):
    samples = fixtures.samples(4)
    setting = Setting.of(classifier, samples, PRESETS[name])
    images = setting.pixels.clone().requires_grad_()
    inputs = setting.inputs(images)
    expected = PRESETS[name].apply(samples.pixels)
    np.testing.assert_allclose(inputs.detach(), expected, rtol=1e-5, atol=1e-5)
    inputs.sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()


def test_raw_inputs_are_refused(fixtures, classifier: Classifier):
    with pytest.raises(DataError, match="pictures"):
        Setting.of(classifier, replace(fixtures.samples(40), raw=True), PRESETS["none"])


def test_the_anomaly_counts_deviations_under_the_median():
    found = below_median([10, 12, 14, 16, 2])
    assert found == pytest.approx([v / (1.4826 * 2) for v in (2, 0, -2, -4, 10)])
    assert below_median_of_logs([math.exp(v) for v in (10, 12, 14, 16, 2)]) == pytest.approx(found)
    assert np.isfinite(below_median([3, 3, 3, 3, 1])).all()
    assert below_median([3, 3, 3]) == (0, 0, 0)


def test_a_margin_that_stands_out_has_a_small_p_value():
    usual = [4.1, 4.4, 4.6, 4.9, 5.0, 5.2, 5.5, 5.9, 6.3]
    apart, within = null_scores([*usual, 40.0]), null_scores([*usual, 6.4])
    assert int(np.argmax(apart)) == 9
    assert apart[9] > 4 > 1.3 > within[9] >= 0
    assert np.isfinite([*apart, *null_scores([1.0] * 10), *null_scores([*usual, 1e9])]).all()


def test_the_masks_weight_rises_with_successes_and_falls_with_failures():
    search = Search()
    assert not any(search.judge(True, 50 - n) for n in range(PATIENCE - 1))
    assert search.cost == 0
    search.judge(True, 40)
    assert search.cost == pytest.approx(1e-3)
    for _ in range(PATIENCE - 1):  # the success that set the weight counts
        search.judge(True, 40)
    assert search.cost == pytest.approx(2e-3)
    for _ in range(PATIENCE):
        search.judge(False, 1)
    assert search.cost == pytest.approx(2e-3 / 2**1.5)
    assert search.best == 40
    rounds = next(n for n in range(1, 100) if search.judge(True, 40))
    assert rounds + 2 * PATIENCE - 1 == EARLY_STOP
    assert not Search().judge(False, 1)


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    assert area([3, 4], [1, 2]) == 1
    assert area([1, 2], [3, 4]) == 0
    assert area([1, 3, 5], [2, 3]) == pytest.approx((0 + 1.5 + 2) / 6)
    assert math.isnan(area([], [1]))
    low, high = area_interval([1, 3, 5, 6], [2, 3, 0])
    assert 0 <= low < area([1, 3, 5, 6], [2, 3, 0]) < high <= 1
    assert area_interval([1, 3, 5, 6], [2, 3, 0]) == (low, high)


def test_halves_go_by_name_and_shared_folders_stand_apart():
    # crc32("a") is odd, crc32("f") is even
    assert split_of({"name": "a", "poison_rate": 0.1}, "zoo") == "report"
    assert split_of({"name": "f", "poison_rate": None}, "zoo") == "tune"
    assert split_of({"name": "f"}, "zoo") == "shared zoo"
    assert split_of({"name": "f"}, "cases") == "shared cases"


@pytest.mark.parametrize(
    ("about", "group"),
    [
        (("badnets", "sq6", "replace", 0.0625), "small"),
        (("badnets", "sq16", "replace", 0.154), "large"),
        (("badnets", "4sq", "replace", 0.046), "several"),
        (("badnets", "sc16", "blend", 0.16), "scattered"),
        (("spread", "4sq", "replace", 0.046), "neurons"),
        (("all-to-all", "sq16", "replace", 0.154), "all-to-all"),
        (("badnets", None, "add", 0.079), "small"),
        (("badnets", "veil", "blend", 1.0), "faint"),
        (("badnets", "wave", "add", 1.0), "faint"),
    ],
)
def test_triggers_are_grouped_by_attack_and_then_by_looks(about: tuple[Any, ...], group: str):
    assert group_of(*about) == group


def made_up(model: str, method: str, score: float, **more: Any) -> dict[str, Any]:
    backdoored = "clean" not in model
    return {
        "model": model,
        "method": method,
        "steps": None,
        "split": "report",
        "backdoored": backdoored,
        "group": "small" if backdoored else None,
        "target": 3 if backdoored else None,
        "score": score,
        "suspect": 3,
        "flagged": score > 2,
        "verdict": "backdoored" if score > 2 else "clean",
        "image_forwards": 1_000,
        "seconds": 2.0,
        **more,
    }


LINES = [
    made_up("a", "ours", 5.0),
    made_up("b", "ours", 3.0, suspect=4),
    made_up("c", "ours", 1.0, group="large", verdict="inconclusive", image_forwards=9_000),
    made_up("d", "ours", 0.1, group="source-specific"),
    made_up("e", "ours", 9.0, group="all-to-all", target=None),
    made_up("clean-1", "ours", 2.5),
    made_up("clean-2", "ours", 0.5),
    made_up("a", "tabor", 1.0, split="tune"),
    {"model": "b", "method": "tabor", "split": "tune", "steps": None, "error": "ValueError: no"},
]


def test_the_tables_say_what_the_lines_say():
    text = tables(LINES)
    report = text[text.index("### report") : text.index("### all")]
    row, groups = (r for r in report.splitlines() if r.startswith("| **ours** |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "3 + 2"
    assert cells[2].startswith(f"{5 / 6:.2f} [")
    assert cells[3].startswith("2 of 3 [")
    assert cells[4].startswith("1 of 2 [")
    assert cells[5:8] == ["1", "1 of 2", "1,000"]
    cells = [cell.strip() for cell in groups.strip("|").split("|")]
    assert cells[1:] == ["2 of 2; 1.00", "0 of 1; 0.50", "0 of 1; 0.00", "1 of 1; 1.00"]
    assert "| tabor | 1 + 0 | - |" in text[: text.index("### report")]
    assert "- b (tune), tabor: ValueError: no" in text
    missed = [row for row in text.splitlines() if row.startswith("- `")]
    assert missed == ["- `c`: inconclusive, score 1.00, suspect 3, target 3"]
    assert set(METHODS) == {"ours", *DETECTORS}


def test_a_job_appends_lines_and_what_is_capped_is_kept_apart(fixtures, tmp_path, monkeypatch):
    entry = fixtures.manifest[SQUARE]
    case = Case(ROOT, {**entry, "model": entry["path"], "data": entry["images"]})
    search = {"score": 7.5, "threshold": 2.0, "suspect": 7, "image_forwards": 99}
    row = {"class": 0, "score": 7.5, "cost_free": 0.01, "stray": 0.0}
    body = {"search": {**search, "classes": [row]}}
    monkeypatch.setattr(detect, "scan", lambda *_, **__: Report("scan", "backdoored", (), body))
    results = tmp_path / "results.jsonl"
    methods = ("ours", "sign-gradient")
    run_job(Job(case, methods, results, STEPS, math.inf))
    run_job(Job(case, methods, results, STEPS, 0))  # past its deadline
    ours, other = read_lines(results)
    assert (ours["score"], ours["suspect"], ours["flagged"]) == (7.5, 7, True)
    assert (ours["steps"], other["steps"]) == (None, STEPS)
    assert other["group"] == "small"
    assert 0 < other["trigger_share"] < 0.1
    assert other["image_forwards"] == 3 * STEPS * 10 * 10
    assert len(latest([ours, other], STEPS)) == 2
    assert [key[2] for key in latest([ours, other], None)] == ["ours"]


def test_what_fails_leaves_a_line(fixtures, tmp_path: Path, monkeypatch):
    entry = fixtures.manifest[SQUARE]
    case = Case(ROOT, {**entry, "model": entry["path"], "data": entry["images"]})
    monkeypatch.setattr(detect, "scan", lambda *_, **__: Report("scan", "inconclusive", (), {}))
    run_job(Job(case, ("ours",), tmp_path / "results.jsonl", None, math.inf))
    (line,) = read_lines(tmp_path / "results.jsonl")
    assert line["error"] == "KeyError: 'search'"
    assert line["model"] == SQUARE


def test_cases_are_chosen_by_name_and_half(tmp_path: Path):
    names = ("a", "f")
    (tmp_path / "zoo").mkdir()
    (tmp_path / "more").mkdir()
    (tmp_path / "zoo" / "cases.json").write_text(
        json.dumps([{"name": name, "poison_rate": 0.1} for name in names])
    )
    (tmp_path / "more" / "cases.json").write_text(json.dumps([{"name": "g"}]))
    folders = [tmp_path / "zoo", tmp_path / "more"]
    assert [c.name for c in find_cases(folders, [], [], None)] == ["a", "f", "g"]
    assert [c.name for c in find_cases(folders, [], [], "tune")] == ["f", "g"]
    assert [c.name for c in find_cases(folders, ["a"], [], None)] == ["a"]
    assert [c.name for c in find_cases(folders, [], ["a"], "report")] == ["g"]


def test_scores_name_the_class_that_stands_out():
    found = Scores((1.0, 2.0), (3.0, -1.0), 2.0, 10, 0.1)
    assert (found.suspect, found.score, found.flagged) == (0, 3.0, True)


def test_stored_costs_are_judged_by_todays_rule():
    costs = [{"free": 0.5, "blob": 0.5}, {"free": BOUNDS["free"] / 4, "blob": 2.0}, {"free": 0.5}]
    line = {
        "method": "ours",
        "costs": costs,
        "strays": [0.0, 0.75, 0.0],
        "searched": [4, 7, 9],
        "anomalies": [0.1, 9.0, 0.1],
        "suspect": 4,
        "score": 5.0,
        "flagged": True,
    }
    anew = judged_anew(line)
    assert anew["score"] == pytest.approx(2.0)
    assert (anew["suspect"], anew["flagged"]) == (7, True)
    # What did not hold on other images is no finding, however cheap; nor does a score rise.
    assert not judged_anew({**line, "flagged": False})["flagged"]
    weak = judged_anew({**line, "score": 0.5, "flagged": False})
    assert (weak["score"], weak["flagged"]) == (0.5, False)
    assert judged_anew({**line, "method": "tabor"})["score"] == 5.0
