# SPDX-License-Identifier: Apache-2.0
"""Forms for pipelines, as the command line writes them."""

import json
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gate_report import mixed
from lancet_onnx_cli.choices import Format
from lancet_onnx_cli.output import Output, emit
from support import Warm, box, one_error

SCAN = ("scan", "model.onnx", "--trigger", "t.png", "--data", "val.npz")


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)


def test_the_end_of_a_name_says_the_form(tmp_path: Path, warm: Warm) -> None:
    folder = box(tmp_path / "repo" / "sub")
    ends = ("sarif", "xml", "md")
    result = warm(
        *SCAN, "-f", "github", *(p for f in ("sarif", "junit", "markdown") for p in ("-f", f)),
        *(part for end in ends for part in ("-o", f"r.{end}")),
        cwd=folder, env={"GITHUB_WORKSPACE": str(tmp_path / "repo")},
    )  # fmt: skip
    assert (result.code, result.stderr) == (1, ""), result
    (line,) = result.stdout.splitlines()
    assert line.startswith("::error file=sub/model.onnx,line=1,title=")
    (run,) = json.loads((folder / "r.sarif").read_text())["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "sub/model.onnx"}
    suite = ElementTree.fromstring((folder / "r.xml").read_text())[0]  # noqa: S314 - our own
    assert (suite.get("name"), suite.get("failures")) == ("model.onnx", "1")
    told = (folder / "r.md").read_text()
    assert told.startswith("## lancet-onnx scan: backdoored\n")
    (command,) = (part for part in told.splitlines() if part.startswith("lancet-onnx "))
    parsed = warm(*shlex.split(command)[1:], "--method", "no-such", cwd=folder)
    one_error(parsed, 2, "--method")


@pytest.mark.parametrize(
    ("formats", "outputs", "targets"),
    [
        ("", "a.json b.sarif", "json:a.json sarif:b.sarif"),
        ("github", "a.json b.sarif", "github: json:a.json sarif:b.sarif"),
        ("json", "a.html b.xml c.md", "json: html:a.html junit:b.xml markdown:c.md"),
        ("json sarif", "a b", "json:a sarif:b"),
        ("github json", "a", "github: json:a"),
        ("json", "a.html", "json:a.html"),
    ],
)
def test_formats_go_with_files_where_there_is_one_for_each(
    formats: str, outputs: str, targets: str
) -> None:
    output = Output.of([Format(f) for f in formats.split()], [Path(o) for o in outputs.split()])
    told = [f"{form.value}:{path or ''}" for form, path in output.targets]
    assert " ".join(told) == targets


def test_files_have_their_forms_beside_one_for_stdout(small: Path, warm: Warm) -> None:
    line = ("verify", "model.onnx", "model.onnx", "--data", "val.npz")
    result = warm(*line, "-o", "a.json", "-o", "b.sarif", "-f", "junit", cwd=small)
    assert (result.code, result.stderr) == (0, ""), result
    assert json.loads((small / "a.json").read_text())["verdict"] == "pass"
    assert json.loads((small / "b.sarif").read_text())["version"] == "2.1.0"
    assert ElementTree.fromstring(result.stdout).tag == "testsuites"  # noqa: S314 - our own


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_a_report_that_cannot_be_written_takes_no_other_away(small: Path, warm: Warm) -> None:
    result = warm(
        *SCAN, "-f", "json", "-o", "/dev/full", "-f", "sarif", "-o", "r.sarif",
        "-f", "markdown", "-o", "r.md", cwd=small,
    )  # fmt: skip
    assert (result.code, result.stdout) == (3, "backdoored\n"), result
    *told, last = result.stderr.splitlines()
    assert last == "error: /dev/full: cannot be written (No space left on device)"
    assert any("attack success" in line for line in told), "the tables come before"
    assert json.loads((small / "r.sarif").read_text())["runs"][0]["results"]
    assert (small / "r.md").read_text().startswith("## lancet-onnx scan: backdoored\n")


def test_an_end_that_says_nothing_is_refused(small: Path, warm: Warm) -> None:
    one_error(warm(*SCAN, "-o", "r.pdf", cwd=small), 2, ".sarif", ".xml", ".md")


def test_a_gate_annotates_by_itself_where_github_runs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(output: Output) -> tuple[int, str]:
        assert emit(mixed(), output) == 1
        streams = capsys.readouterr()
        return streams.out.count("::error"), streams.err

    as_json = Output(((Format.json, None),))
    assert told(as_json) == (0, "")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    count, err = told(as_json)
    assert (count, err.count("::error"), err.count("::warning")) == (0, 2, 1), "not on stdout"
    assert told(Output(((Format.json, None),), quiet=True)) == (0, "")
    assert told(Output(((Format.github, None),))) == (2, ""), "once is enough"
