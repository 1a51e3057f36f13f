# SPDX-License-Identifier: Apache-2.0
"""What lies beside a report: names that lead nowhere else, and paths that lead to it."""

import pytest

from lancet_onnx.report import Attachment, Report, placed

PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.mark.parametrize(
    "name",
    ["", "png", ".png", "..", "../a.png", "/a.png", "a/b.png", "a\\b.png", "a.png\n", "a b.png",
     ".hidden.png", "-.png", "a.html", "a.png.exe", "ä.png", "C:a.png", "x" * 200 + ".png"],
)  # fmt: skip
def test_a_name_that_could_lead_elsewhere_is_refused(name: str):
    with pytest.raises(ValueError, match="no plain name"):
        Attachment(name, PNG)


def test_only_pictures_lie_beside_a_report():
    with pytest.raises(ValueError, match="no PNG"):
        Attachment("a.png", b"#!/bin/sh")


@pytest.mark.parametrize("other", ["a.png", "A.png"])
def test_two_attachments_are_two_files_everywhere(other: str):
    with pytest.raises(ValueError, match="two attachments"):
        Report("scan", "clean", (), {}, (), (Attachment("a.png", PNG), Attachment(other, PNG)))


def found() -> Report:
    trigger = {"path": "class8-1.png", "mode": "blend"}
    body = {
        "model": {"path": "class8-1.png"},
        "findings": [
            {
                "target": 8,
                "trigger": trigger,
                "triggers": [trigger, {"path": "given.png", "mode": "add"}],
            }
        ],
        "examined": {"trigger": trigger},
    }
    return Report("scan", "backdoored", (), body, (), (Attachment("class8-1.png", PNG),))


def test_paths_lead_to_where_the_attachments_are():
    report = found()
    before = report.to_json()
    body = placed(report, lambda name: f"scan-{name}").body
    finding = body["findings"][0]
    assert finding["trigger"] == {"path": "scan-class8-1.png", "mode": "blend"}
    assert [t["path"] for t in finding["triggers"]] == ["scan-class8-1.png", "given.png"]
    assert body["examined"]["trigger"]["path"] == "scan-class8-1.png"
    assert body["model"]["path"] == "class8-1.png", "the model is no attachment"
    assert report.to_json() == before


def test_what_is_not_kept_has_no_path():
    finding = placed(found(), lambda _: None).body["findings"][0]
    assert finding["trigger"]["path"] is None
    assert [t["path"] for t in finding["triggers"]] == [None, "given.png"]


def test_pictures_of_an_explanation_lead_to_where_they_are():
    pictures = {"whole": "a.png", "located": None, "other": "b.png", "odd": ["a.png"]}
    body = {
        "errors": [{"pictures": {"image": "a.png"}}, "x", {}],
        "classes": [{"pictures": pictures}],
    }
    report = Report("explain", "done", (), body, (), (Attachment("a.png", PNG),))
    there = placed(report, lambda name: f"p-{name}").body
    assert there["errors"] == [{"pictures": {"image": "p-a.png"}}, "x", {}]
    assert there["classes"] == [{"pictures": {**pictures, "whole": "p-a.png"}}]
    assert placed(report, lambda _: None).body["errors"][0] == {"pictures": {"image": None}}
    assert body["errors"][0] == {"pictures": {"image": "a.png"}}


def test_a_report_without_attachments_stays_as_it_is():
    report = Report("scan", "backdoored", (), found().body)
    assert placed(report, lambda _: None) is report


@pytest.mark.parametrize(
    "body",
    [{}, {"findings": None}, {"findings": ["x"]}, {"findings": [{"triggers": "x"}]},
     {"errors": None, "classes": [{"pictures": "class8-1.png"}, 3]},
     {"trigger": [], "examined": 3}, {"trigger": {"path": ["class8-1.png"]}}],
)  # fmt: skip
def test_a_body_of_another_form_stays_as_it_is(body: dict):
    report = Report("scan", "clean", (), body, (), (Attachment("class8-1.png", PNG),))
    assert placed(report, lambda _: None).body == body
