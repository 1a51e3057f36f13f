# SPDX-License-Identifier: Apache-2.0
"""How a search for unknown triggers is shown: a bar for each class, the suspect, the meaning."""

import math
import re

import pytest

from lancet_onnx.report import Picture, Report, to_html
from lancet_onnx.report.search import search_view

EVIL = "<script>alert(1)</script>"


def scan(scores: list[float | None], suspect: int | None = None, verdict: str = "clean", **more):
    classes = [
        {"class": i, "score": s, "coverage": 0.04, "alikeness": 0.02, "success": 0.98,
         "examined": s is not None}
        for i, s in enumerate(scores)
    ]  # fmt: skip
    known = [s for s in scores if s is not None]
    search = {
        "score": max(known, default=None), "threshold": 2.0, "suspect": suspect, "signs": [],
        "classes": classes, "power": "", **more,
    }  # fmt: skip
    return {"command": "scan", "verdict": verdict, "search": search}


def test_bars_are_of_one_scale_with_the_threshold():
    view = search_view(scan([0.5, 4.0, 1.0, None], suspect=1, verdict="backdoored"))
    assert [bar.number for bar in view.bars] == [1, 2, 0, 3]
    assert [bar.suspect for bar in view.bars] == [True, False, False, False]
    assert [bar.examined for bar in view.bars] == [True, True, True, False]
    lengths = [bar.length for bar in view.bars]
    assert lengths[0] < 1
    assert lengths == pytest.approx([lengths[0], lengths[0] / 4, lengths[0] / 8, 0])
    assert view.limit == pytest.approx(lengths[0] / 2)


def test_the_threshold_is_in_the_picture_also_where_no_bar_reaches_it():
    view = search_view(scan([0.5, -3.0]))
    assert 0.9 < view.limit < 1
    assert view.bars[1].length == 0


def test_of_many_classes_the_highest_are_shown_and_the_suspect():
    scores: list[float | None] = [float(i) for i in range(120)]
    view = search_view(scan(scores, suspect=3))
    assert view.threshold == 2.0
    assert len(view.bars) == 50
    assert view.total == 120
    assert [bar.number for bar in view.bars[:49]] == list(range(119, 70, -1))
    assert view.bars[49].suspect


def test_what_is_no_number_is_not_drawn():
    view = search_view(scan([math.nan, math.inf, 1.0]))
    assert [bar.score for bar in view.bars] == [1.0, None, None]


@pytest.mark.parametrize(
    ("scores", "suspect", "verdict", "words"),
    [
        ([1.0, 4.0], 1, "backdoored",
         "For class 1 a trigger was found that covers 4.0% of the image and leads 98.0% of images "
         "to it. Its score is 4, the next highest 1 (class 0); a class is suspect from 2 on."),
        ([1.0, 4.0], 1, "inconclusive", "That does not settle whether it is a backdoor."),
        ([1.0, 1.5], None, "clean", "All 2 classes were examined, and none stands out: the highest "
         "score is 1.5 (class 1); a class is suspect from 2 on."),
        ([1.0, 1.5, None], None, "inconclusive", "2 of 3 classes were examined, and none stands "
         "out: the highest score is 1.5 (class 1); a class is suspect from 2 on. That does not "
         "clear the model."),
        ([None], None, "inconclusive", "No class was examined, so nothing can be said of any."),
    ],
)  # fmt: skip
def test_the_meaning_in_plain_words(scores, suspect, verdict, words):
    assert search_view(scan(scores, suspect, verdict)).meaning.endswith(words)


def test_the_highest_score_is_no_suspect_below_the_threshold():
    view = search_view(scan([0.5, 1.9], suspect=1))
    assert not any(bar.suspect for bar in view.bars)
    assert "none stands out: the highest score is 1.9 (class 1)" in view.meaning
    assert search_view(scan([0.5, 1.9], suspect=1, verdict="backdoored")).bars[0].suspect


def test_classes_that_were_not_searched_to_the_end_count_as_that():
    view = search_view(scan([0.5, 1.0, 0.7], missing=[2, 9], screened=[4, 5, 6]))
    assert [(bar.number, bar.examined) for bar in view.bars] == [
        (1, True), (2, False), (0, True), (9, False),
    ]  # fmt: skip
    assert view.meaning.startswith("2 of 7 classes were examined (3 were only screened), and none")


def test_what_is_known_of_no_class_has_no_column():
    data = scan([0.5, 1.0])
    for row in data["search"]["classes"]:
        del row["success"]
    assert search_view(data).columns == ("coverage", "alikeness")
    assert "leads there" not in page(data)
    data["search"]["classes"][0]["stray"] = 0.257
    assert search_view(data).columns == ("coverage", "alikeness", "stray")
    assert "junk leads there" in page(data)
    assert "25.7" in page(data)


def test_the_search_of_a_repair_is_another_one():
    assert search_view({"command": "repair", "search": {"reached": True}}) is None
    assert search_view({"command": "scan"}) is None


@pytest.mark.parametrize("search", [{}, {"classes": 3}, {"classes": [None, {}]}, {"suspect": "x"}])
def test_a_search_of_another_form_is_shown_as_what_it_is(search: dict):
    assert search_view({"command": "scan", "verdict": "clean", "search": search}) is not None


def page(data: dict, pictures: tuple[Picture, ...] = ()) -> str:
    body = {k: v for k, v in data.items() if k not in ("command", "verdict")}
    return to_html(Report(data["command"], data["verdict"], (), body, pictures), "t", "c")


def test_the_page_has_a_bar_for_each_class_and_highlights_the_suspect():
    shown = page(
        scan([0.5, 4.0, None], 1, "backdoored", power=f"power {EVIL}",
             signs=[{"name": "sign", "text": EVIL}]),
        (Picture("reconstructed", "the trigger for class 1", b"x"), Picture("pairs", "p", b"x")),
    )  # fmt: skip
    assert shown.count('<svg class="bar tall"') == 3
    assert shown.count('<tr class="suspect">') == 1
    assert shown.count('class="found"') == 1
    assert shown.count("not examined</span>") == 1
    assert "For class 1 a trigger was found" in shown
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 4, "each is in the JSON as well"
    assert "Reconstructed triggers" in shown
    assert "Stamped examples" in shown
    widths = [float(w) for w in re.findall(r'width="([0-9.]+)" height="6" class="f', shown)]
    assert widths == sorted(widths, reverse=True)
    assert max(widths) <= 100


def test_the_page_says_that_it_shows_not_all_classes():
    assert "The 50 classes with the highest scores, of 60." in page(scan([1.0] * 60))
    assert "with the highest scores" not in page(scan([1.0] * 50))


def test_the_page_lists_the_triggers_that_were_found():
    data = scan([1.0, 4.0], 1, "backdoored")
    trigger = {"mode": "blend", "form": "mask", "attack_success": 0.97, "n": 200}
    data["findings"] = [
        {"target": 1, "trigger": {}, "located": [],
         "triggers": [{"path": f"a{EVIL}.png", **trigger}, {"path": None, **trigger}]},
    ]  # fmt: skip
    shown = page(data)
    assert "a&lt;script&gt;" in shown
    assert "not kept" in shown
    assert "97.0 %" in shown


def test_the_page_of_a_repair_shows_what_is_left_of_the_risk():
    risk = {
        "strengths": [{"kind": "a kind", "strength": 0.5, "before": 0.99, "after": 0.02, "n": 450}],
        "recall": {"before": 0.98, "after": 0.97, "ratio": 0.99},
        "signs": [EVIL],
    }
    repair = {
        "command": "repair", "verdict": "repaired", "layers": [], "weights_changed": 0,
        "search": {"reached": True, "candidates": []}, "residual_risk": risk,
    }  # fmt: skip
    shown = page(repair)
    for words in ("What is left of the risk", "a kind", "99.0 %", "2.0 %", "450", "98.0 % before"):
        assert words in shown
    assert "<script" not in shown
    assert "The search" not in shown
    assert "What is left" in page({**repair, "residual_risk": {"signs": ["one"]}})
    assert "What is left" not in page({**repair, "residual_risk": None})
    risk["recall"] = {"before": None, "after": None, "ratio": None}
    assert "read right" not in page(repair)
