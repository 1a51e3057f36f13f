# SPDX-License-Identifier: Apache-2.0
"""The page: verdict first, one file that loads nothing, never too large, hostile text as text."""

import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from gate_report import EVIL, FAILED, check, gate, hostile, mixed, model

from lancet_onnx.report import Report, to_html
from lancet_onnx.report.gate_view import FRAME, ROOM, gate_view
from lancet_onnx.report.surroundings import surroundings

LIMIT = 500_000
LOADING = ("src", "href", "srcset", "data", "action", "poster", "xlink:href", "background")
FORBIDDEN = {"script", "iframe", "object", "embed", "link", "base", "form", "meta-refresh"}

FIGURES: dict[str, Any] = {
    "attack_success": 0.5, "counts": {"attack_success": [5, 10]},
    "intervals": {"attack_success": [0.2, 0.8]},
}  # fmt: skip
ENVIRONMENT = {
    "device": "cpu", "provider": "CPUExecutionProvider", "nodes": {"CPUExecutionProvider": 9},
    "versions": {"torch": "2.15.0", "onnxruntime": "1.31.1"}, "seed": 7,
}  # fmt: skip
REPAIR = Report(
    "repair", "repaired", ("it worked",),
    {
        "model": {"path": EVIL, "sha256": "0" * 64}, "before": FIGURES,
        "after": {**FIGURES, "attack_success": 0.0, "intervals": {"attack_success": [0, 0.1]}},
        "layers": [{"node": EVIL, "initializer": "fc.weight", "weights_changed": 3, "share": 0.01}],
        "weights_changed": 3, "environment": ENVIRONMENT,
        "changed_labels": [{"true": 8, "before": 8, "after": 1, "count": 3},
                           {"true": 9, "before": 4, "after": 9, "count": 2},
                           {"true": 5, "before": 6, "after": 7, "count": 1},
                           {"true": None, "before": 0, "after": 2, "count": 1}],
        "data": {"path": "val.npz", "sha256": "1" * 64, "preprocess": "unit", "split": "halved",
                 "figures_images": 10, "tool_images": 10},
        "parity": {"before": {"largest": 1e-6}, "after": {"largest": 2e-6}}, "seconds": 12.34,
    },
)  # fmt: skip


class Page(HTMLParser):
    """Elements, addresses, event handlers and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.classes: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in LOADING:
                self.addresses.append(value or "")
            if name.startswith("on") or name in ("http-equiv", "style"):
                self.handlers.append(name)
            if name == "class":
                self.classes += (value or "").split()

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(report: Report) -> tuple[str, Page]:
    page = to_html(report, "a title", "lancet-onnx gate")
    return page, Page(page)


MANY = [
    model(f"models/{n:04}.onnx", *(check(f"{EVIL}{i}", text=EVIL * 40) for i in range(9)), FAILED)
    for n in range(100)
]
REPORTS = {
    "mixed": mixed(), "hostile": hostile(), "repair": REPAIR, "none": gate(verdict="not_evaluated"),
    "many": gate(*MANY), "long": gate(model("m.onnx", check("x", "fail", text="y" * 10**6))),
}  # fmt: skip


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS.keys())
def test_a_page_loads_nothing_and_is_never_too_large(report: Report) -> None:
    text, page = page_of(report)
    assert len(text.encode()) < LIMIT
    assert not FORBIDDEN & set(page.tags)
    assert page.handlers == []
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert page.tags.count("img") == len(page.addresses)
    assert not re.search(r"<b>x</b>", text), "a name from a model is text"


def test_a_failed_gate_says_first_what_and_then_what_to_do() -> None:
    text, page = page_of(mixed())
    verdict = text.index('<p class="verdict bad">fail</p>')
    body = text[verdict:]
    order = [
        body.index(part)
        for part in ("2 models: 1 fails, 1 passes.", "3 of 5 models were not looked at",
                     "models/a.onnx", FAILED["next"], FAILED["text"], "two channels are dead",
                     "no images", "allowed until 2030-01-01", "models/b.onnx",
                     "Environment", "How to repeat this")
    ]  # fmt: skip
    assert order == sorted(order)
    assert page.text.count(FAILED["next"]) == 2, "once on the page, once in the JSON"
    assert page.tags.count("details") == 3


def test_a_gate_of_nothing_says_why() -> None:
    page = to_html(Report("gate", "not_evaluated", ("no model is there",), {"models": "x"}), "", "")
    assert "<p>no model is there</p>" in page


def test_models_that_pass_are_folded_unless_there_is_one() -> None:
    def folded(*models: dict[str, Any]) -> list[bool]:
        page = to_html(gate(*models), "", "")
        return [" open" not in tag for tag in re.findall(r'<details class="model"[^>]*>', page)]

    passing = model("b.onnx", check("precheck"), verdict="pass")
    assert folded(passing, model("a.onnx", FAILED)) == [False, True], "what fails comes first"
    assert folded(passing) == [False]


def test_a_share_is_drawn_beside_its_limit() -> None:
    text, _ = page_of(gate(model("a.onnx", FAILED)))
    assert 'aria-label="99.6 %, limit 5.0 %"' in text
    for name, value, limit in (("parity", 1e-7, 1e-4), ("trigger", 3.0, 0.1), ("trigger", 1, None)):
        plain = check(name, "fail", value=value, limit=limit)
        assert "the line is the limit" not in page_of(gate(model("a.onnx", plain)))[0]


def test_of_many_models_the_page_shows_what_it_has_room_for_worst_first() -> None:
    count = 2 * ROOM // FRAME
    passing = [model(f"p{n}.onnx", check("precheck"), verdict="pass") for n in range(count)]
    report = gate(*passing, model("bad.onnx", FAILED))
    view = gate_view(report)
    assert view is not None
    assert (view.models[0].path, len(view.models[0].checks)) == ("bad.onnx", 1)
    assert view.summary == f"{count + 1} models: 1 fails, {count} pass."
    assert 0 < view.left_out == count + 1 - len(view.models)
    assert f"{view.left_out} more models" in page_of(report)[1].text
    assert gate_view(REPAIR) is None


def test_a_repair_says_how_it_was_made() -> None:
    text, page = page_of(REPAIR)
    for words in ("Before and after", "Changed weights", "Environment"):
        assert f"<h2>{words}</h2>" in text
    assert dict(surroundings(REPAIR.body)) == {
        "ran on": "cpu (CPUExecutionProvider)",
        "nodes": "9 CPUExecutionProvider",
        "versions": "torch 2.15.0, onnxruntime 1.31.1",
        "images": f"val.npz (SHA-256 {'1' * 64})",
        "preprocessing": "unit",
        "split": "halved",
        "seed": "7",
        "agreement of torch and onnxruntime":
            "largest difference of scores before 1e-06, after 2e-06",
        "time": "12.3 s",
    }  # fmt: skip
    assert "20.0 % to 80.0 %" in page.text


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the words in each cell of the table under a heading, without its own heads."""
    table = page.partition(f"<h2>{heading}</h2>")[2].partition("</table>")[0]
    lines = re.findall(r"<tr>(<td.*?)</tr>", table, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", line, re.DOTALL) for line in lines]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in line] for line in cells]


def test_a_repair_says_what_was_changed_and_what_that_changed() -> None:
    text = to_html(REPAIR, "a title", "lancet-onnx repair 'my model.onnx' -o fixed.onnx")
    (layer,) = rows(text, "Changed weights")
    assert layer[1:] == ["fc.weight", "3", "1.00 %"]
    assert rows(text, "Clean images that are read otherwise now") == [
        ["8", "8", "1", "3", "wrong now"],
        ["9", "4", "9", "2", "right now"],
        ["5", "6", "7", "1", "wrong as before"],
        ["unknown", "0", "2", "1", ""],
    ]
    repeat = text.partition("<h2>How to repeat this</h2>")[2]
    shown = repeat.partition("<pre>")[2].partition("</pre>")[0]
    assert html.unescape(shown) == "lancet-onnx repair 'my model.onnx' -o fixed.onnx"


def test_a_report_too_large_for_a_page_is_left_to_the_json() -> None:
    assert "-o report.json" in page_of(gate(*MANY))[1].text
    assert "-o report.json" not in page_of(mixed())[1].text


def test_environments_of_any_shape_are_shown() -> None:
    assert surroundings({}) == ()
    assert surroundings({"environment": EVIL, "data": None, "policy": [], "parity": 3}) == ()
    (row,) = surroundings({"environment": {"versions": {EVIL: EVIL}}})
    assert row[1].isprintable()
