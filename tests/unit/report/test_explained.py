# SPDX-License-Identifier: Apache-2.0
"""An explanation as people see it: words and lines, from a body that nobody vouches for."""

from typing import Any

import pytest

from lancet_onnx.report import Picture, Report, to_html
from lancet_onnx.report.explained import HEIGHT, LEFT, TOP, WIDTH, explained_view

PNG = b"\x89PNG\r\n\x1a\n and so on"
HOSTILE = "<script>alert(1)</script>"


def reading(label: int, true: float) -> dict[str, Any]:
    return {"label": label, "sure": max(true, 1 - true), "true": true, "wrong": 1 - true}


def body() -> dict[str, Any]:
    curve = [{"amount": a / 4, **reading(int(a < 3), a / 4)} for a in range(5)]
    error = {
        "image": 17, "true": 0, "wrong": 1, "alike": 3,
        "probability": reading(1, 0.0), "companion": reading(0, 1.0), "patched": reading(0, 0.8),
        "mask_area": 0.021, "other_fills": {"tried": 6, "restored": 5},
        "elsewhere_restored": False, "contribution": {"true": 0.1, "wrong": 4.2}, "curve": curve,
        "pictures": {},
    }  # fmt: skip
    return {
        "errors": [error],
        "classes": [
            {"class": 0, "name": HOSTILE, "probability": 1.0, "contribution": 0.0},
            {"class": 1, "name": None, "probability": 0.98, "contribution": 7.5},
        ],
        "located": [
            {
                "node": HOSTILE,
                "initializer": "w",
                "located": 9,
                "weights": 640,
                "pairs_located": 19,
                "pairs": 24,
            }
        ],
        "located_by": "pairs",
        "counts": {"errors": 12},
    }


PICTURES = ("error1-image.png", "error1-mask.png", "error1-companion.png", "class0-whole.png",
            "class1-whole.png", "class1-located.png")  # fmt: skip


def page(of: dict[str, Any]) -> str:
    shown = tuple(Picture(name, name, PNG) for name in PICTURES)
    return to_html(Report("explain", "done", ("told",), of, shown), "title", "command")


def test_an_error_is_told_in_words_and_numbers():
    view = explained_view({"command": "explain", **body()}, {n: f"at {n}" for n in PICTURES})
    assert view is not None
    (error,) = view.errors
    assert (error.image, error.true, error.wrong, error.alike) == (17, HOSTILE, "class 1", 3)
    assert error.before is not None
    assert (error.before.label, error.before.true) == ("class 1", 0.0)
    assert error.after is not None
    assert (error.after.label, error.after.sure) == (HOSTILE, 0.8)
    assert (error.fills, error.elsewhere, error.adds) == ((5, 6), False, (4.2, 0.1))
    assert error.pictures["mask"] == "at error1-mask.png"
    assert [c.located for c in view.classes] == ["", "at class1-located.png"]
    assert (view.located, view.by_patch, view.total) == (9, False, 12)


def test_lines_go_from_corner_to_corner_and_turn_where_the_label_stays_true():
    view = explained_view({"command": "explain", **body()}, {})
    assert view is not None
    (error,) = view.errors
    assert error.true_line is not None
    assert error.wrong_line is not None
    points = error.true_line.points.split()
    assert points[0] == f"{LEFT:.1f},{TOP + HEIGHT:.1f}"
    assert points[-1] == f"{LEFT + WIDTH:.1f},{TOP:.1f}"
    assert len(points) == 5
    assert error.wrong_line.points.split()[0] == f"{LEFT:.1f},{TOP:.1f}"
    assert (error.true_line.end, error.wrong_line.end) == (TOP, TOP + HEIGHT)
    assert error.turns == 0.75


@pytest.mark.parametrize(
    ("labels", "expected"), [([1, 0, 1, 0, 0], 0.75), ([1, 1, 1, 1, 1], None), ([0] * 5, 0.0)]
)
def test_a_label_that_comes_and_goes_turns_where_it_comes_to_stay(
    labels: list[int], expected: float | None
):
    of = body()
    for point, label in zip(of["errors"][0]["curve"], labels, strict=True):
        point["label"] = label
    view = explained_view({"command": "explain", **of}, {})
    assert view is not None
    assert view.errors[0].turns == expected


@pytest.mark.parametrize(("true", "wrong"), [(0.5, 0.5), (0.48, 0.5), (0.5, 0.48)])
def test_labels_of_lines_that_end_together_do_not_lie_on_each_other(true: float, wrong: float):
    of = body()
    of["errors"][0]["curve"][-1] |= {"true": true, "wrong": wrong}
    view = explained_view({"command": "explain", **of}, {})
    assert view is not None
    one, other = view.errors[0].true_line, view.errors[0].wrong_line
    assert one is not None
    assert other is not None
    assert abs(one.end - other.end) == pytest.approx(11.0)
    assert one.end <= other.end or true < wrong or true == wrong


def test_other_reports_are_no_explanations():
    assert explained_view({"command": "scan", **body()}, {}) is None


def test_the_page_says_it_and_escapes_what_it_is_told():
    shown = page(body())
    assert HOSTILE not in shown
    assert "&lt;script&gt;" in shown
    for words in (
        "taken for class 1", "2.1 % of the image", "says class 1 (100 %)", "From 75 % on",
        "in 5 of 6 cases", "it does not.", "add +4.2 to the score of class 1", "12 errors",
        "They push towards the error", "next to nothing", "They add 7.5 to the score", "80.0 %",
    ):  # fmt: skip
        assert words in " ".join(shown.split()), words
    assert "For 19 of 24 errors" in shown
    assert shown.count("<img ") == len(PICTURES)
    assert shown.count("<polyline") == 2
    assert "What to do" not in shown


def test_one_weight_is_spoken_of_as_one():
    of = body()
    of["located"][0]["located"] = 1
    of["located_by"] = "patch"
    shown = " ".join(page(of).split())
    assert "the weight that the patch changes adds +4.2" in shown
    assert "the weights" not in shown


ODD: list[Any] = [None, 3, "x", [], [None], [3], {}, [{}], float("nan"), True, -1]


@pytest.mark.parametrize("key", ["errors", "classes", "located", "located_by", "counts"])
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_body_of_another_form_makes_a_page_all_the_same(key: str, value: Any):
    assert page({**body(), key: value}).rstrip().endswith("</html>")


@pytest.mark.parametrize("key", list(body()["errors"][0]))
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_an_error_of_another_form_makes_a_page_all_the_same(key: str, value: Any):
    of = body()
    of["errors"][0][key] = value
    assert page(of).rstrip().endswith("</html>")


@pytest.mark.parametrize("key", ["amount", "label", "true"])
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_curve_of_another_form_makes_a_page_all_the_same(key: str, value: Any):
    of = body()
    of["errors"][0]["curve"][2][key] = value
    assert page(of).rstrip().endswith("</html>")
