# SPDX-License-Identifier: Apache-2.0
"""Several models, each in a child: how one ends is its own result, and nobody is left behind."""

import os
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lancet_onnx.api.gate_report import UNASKED
from lancet_onnx.api.policy import Asked, Policy
from lancet_onnx.contain import Limits, parent
from lancet_onnx.contain.several import gated
from lancet_onnx.report import Report
from lancet_onnx.rules import CRASH, TIME

Stand = Callable[[str], None]

ANSWER = """
name = request["arguments"]["model"]
check = {"id": "precheck", "result": "pass", "text": "in order", "rule": None}
entry = {"path": name, "sha256": None, "verdict": "pass", "seconds": 0.1, "checks": [check]}
body = {"command": "gate", "verdict": "pass", "reasons": [], "policy": {}, "partial": False,
        "remarks": [], "models": [entry], "environment": {"device": "cpu"}, "seconds": 0.1,
        "stages": [{"stage": "precheck", "seconds": 0.1, "image_forwards": 0}]}
def answer():
    print(json.dumps({"report": body, "pictures": []}), flush=True)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Put a script in the child's place; it finds the model's name and `answer()`."""

    def stand(script: str) -> None:
        path = tmp_path / "child.py"
        head = "import json, os, signal, sys, time\nrequest = json.loads(sys.stdin.readline())\n"
        path.write_text(head + ANSWER + textwrap.dedent(script))
        monkeypatch.setattr(parent, "CHILD", (str(path),))

    return stand


def look(*names: str, limits: Limits | None = None, **more: object) -> Report:
    usual = limits or Limits(None, 20.0)
    return gated([Path(name) for name in names], Policy(), usual, **more)  # type: ignore[arg-type]


def verdicts(report: Report) -> dict[str, str]:
    models = report.to_dict()["models"]
    assert isinstance(models, list)
    return {model["path"]: model["verdict"] for model in models}


def test_one_model_is_reported_by_its_own_words(child: Stand):
    child("answer()")
    report = look("a")
    assert (report.verdict, report.body["partial"]) == ("pass", False)
    assert report.body["stages"] == [{"stage": "precheck", "seconds": 0.1, "image_forwards": 0}]


def test_a_crash_and_a_time_out_are_results_of_their_models(child: Stand):
    child(
        """
        if name == "b":
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "c":
            time.sleep(60)
        answer()
        """
    )
    report = look("a", "b", "c", "d", limits=Limits(None, 2.0), jobs=4)
    assert verdicts(report) == {
        "a": "pass", "b": "not_evaluated", "c": "not_evaluated", "d": "pass",
    }  # fmt: skip
    assert (report.verdict, report.exit_code) == ("not_evaluated", 3)
    models = report.to_dict()["models"]
    assert isinstance(models, list)
    (crash,), (late,) = models[1]["checks"], models[2]["checks"]
    assert (crash["id"], crash["rule"], late["rule"]) == ("run", CRASH.id, TIME.id)
    assert "SIGSEGV" in crash["text"]
    assert "longer than 2 s" in late["text"]
    assert report.reasons[0].startswith("b: ")


def test_a_bug_in_one_model_is_no_pass(child: Stand):
    child(
        """
        print(json.dumps({"error": {"type": "KeyError", "known": False, "text": "x",
                                    "rule": None, "traceback": ""}}))
        """
    )
    report = look("a")
    assert report.verdict == "not_evaluated"
    assert "bug in lancet-onnx" in report.reasons[0]


def test_no_policy_lets_a_crash_pass(child: Stand):
    child("os.abort()")
    ignoring = Policy(asked=Asked(allow_not_evaluated=("run", "precheck")))
    assert gated([Path("a")], ignoring, Limits(None, 20.0)).verdict == "not_evaluated"


def test_jobs_are_done_at_the_same_time(child: Stand, tmp_path: Path):
    """Each waits until it sees the other."""
    child(
        f"""
        open({str(tmp_path)!r} + "/seen-" + name, "w").close()
        other = {str(tmp_path)!r} + "/seen-" + ("b" if name == "a" else "a")
        while not os.path.exists(other):
            time.sleep(0.02)
        answer()
        """
    )
    assert look("a", "b", jobs=2).verdict == "pass"


def test_models_keep_their_order_whoever_ends_first(child: Stand):
    child("time.sleep(1 if name == 'a' else 0)\nanswer()")
    report = look("a", "b", jobs=2)
    assert list(verdicts(report)) == ["a", "b"]
    stages = report.body["stages"]
    assert isinstance(stages, list)
    assert [stage["stage"] for stage in stages] == ["a: precheck", "b: precheck"]


def test_what_is_known_so_far_is_handed_over(child: Stand):
    child("answer()")
    so_far: list[Report] = []
    look("a", "b", done=so_far.append)
    assert [len(verdicts(report)) for report in so_far] == [0, 1, 2]
    assert [report.body["partial"] for report in so_far] == [True, True, False]
    assert [report.verdict for report in so_far] == ["not_evaluated", "not_evaluated", "pass"]
    assert so_far[1].reasons == ("partial: 1 of 2 models were not looked at",)


def test_an_interruption_ends_the_children_and_starts_no_more(child: Stand, tmp_path: Path):
    child(
        f"""
        open({str(tmp_path)!r} + "/pid-" + name, "w").write(str(os.getpid()))
        if name != "a":
            time.sleep(60)
        answer()
        """
    )

    def interrupt(report: Report) -> None:
        if verdicts(report):
            while not (tmp_path / "pid-b").exists() or not (tmp_path / "pid-b").read_text():
                time.sleep(0.02)
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        look("a", "b", "c", "d", jobs=2, done=interrupt)
    assert time.monotonic() - begin < 15
    assert not (tmp_path / "pid-d").exists()
    for path in tmp_path.glob("pid-*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_what_the_policy_does_not_ask_for_is_said_once(child: Stand):
    child(f"body['reasons'] = ['more', {UNASKED!r}]; body['remarks'] = [{UNASKED!r}]\nanswer()")
    report = look("a", "b")
    assert report.reasons == ("a: more", "b: more", UNASKED)
    assert report.body["remarks"] == [UNASKED]


def test_progress_is_of_all_models(child: Stand):
    child(
        """
        print(json.dumps({"progress": ["scan", 0.5]}), flush=True)
        answer()
        """
    )
    told: list[tuple[str, float]] = []
    look("x/a", "x/b", progress=lambda what, share: told.append((what, share)))
    assert told == [("a: scan", 0.25), ("b: scan", 0.5)]


@pytest.mark.parametrize(
    "lie",
    [
        "body = {**body, 'models': []}",
        "body = {'command': 'gate', 'verdict': 'pass', 'reasons': []}",
        "entry['path'] = 'b'",
        "entry['verdict'] = 'fail'",
        "body['stages'] = ['quick']",
        "body['environment'] = None",
        "body['remarks'] = [['a remark']]",
        "entry['checks'] = []",
        "body['command'] = 'scan'; body['verdict'] = 'clean'",
    ],
)
def test_a_child_that_answers_something_else_is_its_models_own_result(child: Stand, lie: str):
    child(f"""
        if name == "a":
            {lie}
        answer()
    """)
    found = look("a", "b")
    assert verdicts(found) == {"a": "not_evaluated", "b": "pass"}
    first = found.to_dict()["models"][0]["checks"]  # type: ignore[index]
    assert [(check["rule"], check["id"]) for check in first] == [("LNC303", "run")]
