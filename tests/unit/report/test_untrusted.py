# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in a report, reading it gives something of the kind that is asked for."""

import math

import pytest

from lancet_onnx.report import Report, to_html
from lancet_onnx.report.explained import explained_view
from lancet_onnx.report.figures import FIGURES, Figure, figure_of
from lancet_onnx.report.search import search_view
from lancet_onnx.report.surroundings import surroundings
from lancet_onnx.report.untrusted import (
    MOST_TEXT,
    as_list,
    as_number,
    as_rows,
    as_share,
    as_table,
    as_whole,
    bounded,
    plain,
)

ANYTHING = (
    *(None, True, 3, -0.5, 10**400, math.nan, math.inf, "x", "", [], {}, [[]], [None]),
    *(["a", {}], {"a": 1}, [{"a": [{}]}], [1, 2], (1, "x")),
)


@pytest.mark.parametrize(
    ("value", "number", "whole", "share"),
    [
        (3, 3.0, 3, 1.0),
        (-0.5, -0.5, None, 0.0),
        (0.25, 0.25, None, 0.25),
        (10**400, None, 10**400, None),
        *((value, None, None, None) for value in (True, math.nan, -math.inf, "3", None, [3])),
    ],
    ids=lambda value: str(value)[:12],
)
def test_numbers(value: object, number: object, whole: object, share: object):
    assert (as_number(value), as_whole(value), as_share(value)) == (number, whole, share)


def test_tables_and_lists():
    assert as_table({"a": 1}) == {"a": 1}
    assert as_table([("a", 1)]) == {}
    assert as_list((1, 2)) == [1, 2]
    assert as_list("ab") == []
    assert as_rows([{"a": 1}, 2, "x", {}]) == [{"a": 1}, {}]
    assert as_rows({"a": 1}) == []


def test_text():
    assert (plain("a\n\x1b[31mb"), plain(None), plain(0)) == ("a\ufffd\ufffd[31mb", "", "0")
    assert bounded("x" * MOST_TEXT) == "x" * MOST_TEXT
    assert bounded("x" * (MOST_TEXT + 1)) == "x" * (MOST_TEXT - 1) + "…"


def test_a_figure_is_one_with_its_interval():
    side = {"recovery": 0.5, "intervals": {"recovery": [0.4, 0.6]}, "counts": {"recovery": [5, 10]}}
    assert figure_of(side, "recovery") == Figure(0.5, 0.4, 0.6, 5, 10)
    assert figure_of(side | {"counts": None}, "recovery") == Figure(0.5, 0.4, 0.6, None, None)
    odd = {"counts": {"recovery": [None, 10]}}
    assert figure_of(side | odd, "recovery") == Figure(0.5, 0.4, 0.6, None, None)
    assert figure_of(side, "base_rate") is None
    assert figure_of(side | {"intervals": {}}, "recovery") is None
    assert figure_of(side | {"intervals": {"recovery": [0.4, "x"]}}, "recovery") is None
    assert figure_of(side | {"recovery": math.nan}, "recovery") is None


SEARCH = ("classes", "missing", "screened", "suspect", "threshold", "signs", "power")
EXPLAINED = ("classes", "errors", "located", "counts")
AROUND = ("environment", "data", "policy", "seconds", "parity")


@pytest.mark.parametrize("value", ANYTHING, ids=lambda value: str(value)[:12])
def test_views_take_anything(value: object):
    assert search_view({"command": "scan", "search": dict.fromkeys(SEARCH, value)}) is not None
    row = dict.fromkeys(("class", "score", "coverage", "examined", "curve", "image", "name"), value)
    search = {"classes": [row], "signs": [row], "threshold": 1.0}
    assert search_view({"command": "scan", "search": search}) is not None
    for told in (dict.fromkeys(EXPLAINED, value), {"classes": [row], "errors": [row]}):
        assert explained_view({"command": "explain", **told}, {}) is not None
    for told in (dict.fromkeys(AROUND, value), {"parity": {"largest": value}}):
        assert all(isinstance(text, str) for row in surroundings(told) for text in row)
    names = [name for name, *_ in FIGURES]
    for side in (value, dict.fromkeys(("intervals", "counts", *names), value)):
        assert all(figure_of(side, name) is None for name in names)


def test_a_figure_whose_counts_are_not_known_is_shown_without():
    side = {"recovery": 0.5, "intervals": {"recovery": [0.4, 0.6]}}
    page = to_html(Report("scan", "clean", (), {"metrics": side}), "t", "c")
    assert "50.0 %" in page
    assert "0 of 0" not in page
    assert "None" not in page
