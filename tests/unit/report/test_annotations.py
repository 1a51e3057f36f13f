# SPDX-License-Identifier: Apache-2.0
"""GitHub's workflow commands: one line each, and no line that an attacker wrote."""

import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from gate_report import FAILED, gate, hostile, mixed, model

from lancet_onnx.report import Checkout, Report, to_annotations

LINE = re.compile(r"::(error|warning|notice) (?:file=([^:,]*),line=1,)?title=([^:,]*)::([^\r\n]*)")


def test_a_line_for_each_result_that_is_open():
    lines = to_annotations(mixed()).splitlines()
    assert lines == [
        "::error file=models/a.onnx,line=1,title=lancet-onnx%3A a trigger controls the answer "
        "[LNC001]::t.png moves 99.6 %25 of images to class 7; at most 5 %25 | next: "
        + FAILED["next"],
        "::error file=models/a.onnx,line=1,title=lancet-onnx%3A clean accuracy "
        "[clean-accuracy]::not evaluated: no images",
        "::warning file=models/a.onnx,line=1,title=lancet-onnx%3A dead weights "
        "[dead-weights]::two channels are dead",
    ]


def test_nothing_is_said_of_what_passed():
    assert to_annotations(gate(model("m.onnx", verdict="pass"), verdict="pass")) == ""


def test_what_has_no_file_names_none():
    (line,) = to_annotations(Report("doctor", "fail", ("two wheels",), {})).splitlines()
    assert line == "::error title=lancet-onnx%3A doctor [doctor]::fail: two wheels"


def test_files_are_told_from_the_root_of_the_checkout():
    checkout = Checkout(PurePosixPath("/repo"), PurePosixPath("/repo/sub"))
    text = to_annotations(gate(model("m,1.onnx", FAILED)), checkout)
    assert text.startswith("::error file=sub/m%2C1.onnx,")


def test_hostile_text_makes_no_command_of_its_own():
    lines = to_annotations(hostile()).split("\n")
    assert lines.pop() == ""
    assert len(lines) == 2
    for line in lines:
        found = LINE.fullmatch(line)
        assert found, line
        assert line.isprintable()
        assert "%0A" in unquote(found[4]), "a percent sign of the text is a percent sign"
