# SPDX-License-Identifier: Apache-2.0
"""Markdown: the verdict first, tables that hostile text cannot leave, commands to copy."""

import re

import pytest
from gate_report import FAILED, UNKNOWN, check, gate, hostile, mixed, model
from markdown_it import MarkdownIt

from lancet_onnx.report import Report, to_markdown
from lancet_onnx.report.markdown import ROOM


def test_the_verdict_comes_first_then_each_model():
    lines = to_markdown(mixed()).splitlines()
    assert lines[0] == "## lancet-onnx gate: fail"
    assert "- 3 of 5 models were not looked at" in lines
    first, second = lines.index("### <code>models/a.onnx</code>"), lines.index(
        "### <code>models/b.onnx</code>"
    )  # fmt: skip
    rows = [line for line in lines[first:second] if line.startswith("| ")][1:]
    words = [row.split(" | ")[0] for row in rows]
    assert words == [
        "| pass", "| **fail**", "| **not evaluated**", "| **fail** (warning)", "| fail, accepted",
        "| fail, accepted",
    ]  # fmt: skip
    assert rows[1].startswith("| **fail** | <code>trigger&#58;t.png</code> | t.png moves 99.6 %")
    assert rows[1].endswith("at most 5 % [LNC001] |")
    assert lines[lines.index("```sh") + 1] == FAILED["next"]


def test_a_command_is_told_once_and_only_for_what_is_open():
    same = {**UNKNOWN, "next": FAILED["next"]}
    done = check("trigger", next="lancet-onnx nothing")
    text = to_markdown(gate(model("m.onnx", FAILED, same, done)))
    assert text.count(FAILED["next"]) == 1
    assert "lancet-onnx nothing" not in text


def test_an_interrupted_run_says_so():
    assert "interrupted" in to_markdown(gate(model("m.onnx", FAILED), partial=True))
    assert "interrupted" not in to_markdown(mixed())


def test_reasons_that_are_in_the_table_are_not_said_twice():
    text = to_markdown(Report("scan", "clean", ("2 % only",), {"model": {"path": "m.onnx"}}))
    assert text.count("2 % only") == 1


@pytest.mark.parametrize("name", ["commonmark", "gfm-like"])
def test_hostile_text_stays_text(name: str):
    text = to_markdown(hostile())
    assert all(c.isprintable() or c in "\n\u200b" for c in text)
    parser = MarkdownIt(name, {"html": True, "linkify": False}).enable("table")
    html = parser.render(text)
    tags = set(re.findall(r"<(\w+)", html))
    assert tags <= {"h2", "h3", "ul", "li", "p", "code", "table", "thead", "tbody", "tr", "th",
                    "td", "strong", "pre"}, tags  # fmt: skip
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.S)
    assert len(rows) == 4
    assert all(len(re.findall("<t[hd]>", row)) == 3 for row in rows)
    assert "@all" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.S)


def test_what_is_open_comes_first_and_the_rest_is_counted():
    passing = [model(f"p{n}.onnx", check("x", text="y" * 1000)) for n in range(ROOM // 500)]
    text = to_markdown(gate(*passing, model("bad.onnx", FAILED)))
    assert len(text) < ROOM + 1000
    headings = re.findall("### <code>(.*)</code>", text)
    assert headings[0] == "bad.onnx"
    assert f"{len(passing) + 1 - len(headings)} more models" in text


def test_backticks_do_not_end_a_block_of_commands():
    wrong = {**FAILED, "next": "````\n</code>"}
    html = MarkdownIt("commonmark").render(to_markdown(gate(model("m.onnx", wrong))))
    (block,) = re.findall(r"<pre><code[^>]*>(.*?)</code></pre>", html, re.S)
    assert block.startswith("````")
