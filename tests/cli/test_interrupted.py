# SPDX-License-Identifier: Apache-2.0
"""A gate that is interrupted, by Ctrl-C or as pipelines do, leaves what it knew in every form."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from lancet_onnx_cli import gate_command
from lancet_onnx_cli.output import Output
from support import COMMAND, REFUSED, environment, lancet, one_error
from test_gate import POLICY, SCHEMA, filled

from lancet_onnx.report import Report

SLOW = POLICY.replace("[gate]", "[gate]\nscan = true")
"""The search takes long enough to be interrupted in."""

FILES = tuple(f"r.{end}" for end in ("json", "html", "sarif", "xml", "md", "txt"))
REPORTS = tuple(word for name in FILES for word in ("-o", name))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return filled(tmp_path / "box", SLOW)


def started(place: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "gate", *words], cwd=place, env=environment(),
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(models: int, path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a report has that many models in it."""
    deadline = time.monotonic() + 60
    while not path.exists() or len(json.loads(path.read_text())["models"]) < models:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def interrupted(process: subprocess.Popen[str], how: signal.Signals) -> list[str]:
    """Interrupt a gate; return what it says then."""
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    return err.splitlines()


def partial(place: Path, told: str) -> dict[str, Any]:
    """Return the JSON report; every form must say that it is a part."""
    content = json.loads((place / "r.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    assert content["partial"] is True
    assert content["verdict"] != "pass"
    (run,) = json.loads((place / "r.sarif").read_text())["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False
    ElementTree.fromstring((place / "r.xml").read_text())  # noqa: S314 - our own
    assert "a part of it" in (place / "r.md").read_text()
    for name in FILES:
        assert told in (place / name).read_text(), name
    return dict(content)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_gate_keeps_what_it_knows(how: signal.Signals, place: Path) -> None:
    """The second model takes long: it is interrupted once the first is done."""
    shutil.copy(place / "model.onnx", place / "b.onnx")
    shutil.copy(REFUSED / "text.onnx", place / "a.onnx")
    process = started(place, "a.onnx", "b.onnx", *REPORTS)
    wait_for(1, place / "r.json", process)
    at_work = children(process.pid)
    assert at_work
    said = interrupted(process, how)
    assert said[-2:] == [
        f"{', '.join(FILES)}: what was known until then, marked partial",
        "interrupted; nothing was left half written",
    ]
    content = partial(place, "1 of 2 models were not looked at")
    assert [model["path"] for model in content["models"]] == ["a.onnx"]
    for name in FILES:
        assert "a.onnx" in (place / name).read_text(), name
    for child in at_work:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_one_model_without_a_child_process_leaves_files_as_well(place: Path) -> None:
    here = ("--memory-limit", "0", "--timeout", "0")
    process = started(place, "model.onnx", *here, *REPORTS)
    wait_for(0, place / "r.json", process)  # the others may not be there yet
    said = interrupted(process, signal.SIGTERM)
    assert said[0].endswith("r.txt: what was known until then, marked partial")
    assert partial(place, "1 of 1 models were not looked at")["models"] == []


def test_without_files_nothing_is_said_to_be_kept(place: Path) -> None:
    process = started(place, "model.onnx", "-f", "json")
    deadline = time.monotonic() + 60
    while not children(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert interrupted(process, signal.SIGTERM) == ["interrupted; nothing was left half written"]


def test_a_gate_whose_report_cannot_be_written_looks_at_no_model(place: Path) -> None:
    """A look at this one would come to a verdict on stdout."""
    shutil.copy(REFUSED / "text.onnx", place / "a.onnx")
    (place / "file").write_text("")
    one_error(lancet("gate", "a.onnx", "-o", "file/r.json", cwd=place), 3, "file/r.json")


def test_what_is_known_is_written_now_and_then_and_at_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writing takes a second, each model three."""
    now, written = [0.0], []

    def save(_: Output, told: Any) -> None:
        written.append(len(told(tmp_path).body["models"]))
        now[0] += 1

    monkeypatch.setattr(gate_command, "save_reports", save)
    monkeypatch.setattr(gate_command, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def run() -> None:
        with gate_command._kept(Output.of(None, [tmp_path / "r.json"])) as keep:
            for models in range(9):
                keep(Report("gate", "fail", (), {"models": [{}] * models, "partial": True}))
                now[0] += 3
            keep(Report("gate", "fail", (), {"models": [{}] * 9, "partial": False}))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert written == [0, 1, 5, 8]
