# SPDX-License-Identifier: Apache-2.0
"""Where somebody watches, whatever takes longer than a moment shows that it is at work."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lancet_onnx_cli import demo_run
from lancet_onnx_cli.commands import app
from lancet_onnx_cli.running import SILENT
from support import DEMO, ROOT, Screen, lancet

import lancet_onnx.api as api
from lancet_onnx.errors import LancetError
from lancet_onnx.report import Report

PATCHES = ROOT / "fixtures" / "patches" / "v1" / "flip"
BASE, RESULT, PATCH = "base/model.onnx", "result/model.onnx", "patch.lancet.safetensors"


def screened(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Watch stderr from here on; pytest takes it back for each phase of a test."""
    stream = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


LINES = {
    "inspect": ("inspect", BASE),
    "doctor": ("doctor",),
    "show_patch": ("patch", "show", PATCH),
    "apply_patch": ("patch", "apply", BASE, PATCH, "-o", "out.onnx"),
    "revert_patch": ("patch", "revert", RESULT, PATCH, "-o", "out.onnx"),
    "diff_models": ("patch", "diff", BASE, RESULT, "-o", "out.patch"),
    "compose_patches": ("patch", "compose", PATCH, PATCH, "-o", "out.patch"),
    "sign": ("signature", "make", "base", "--key", PATCH),
    "check_signature": ("signature", "check", "base", "--key", PATCH),
}


@pytest.mark.parametrize("call", SILENT)
def test_a_bar_moves_while_a_call_that_tells_nothing_runs(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(PATCHES, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    screen, seen = screened(monkeypatch), list[str]()

    def stand_in(**_: Any) -> None:
        seen.append(screen.getvalue())
        raise LancetError("enough seen")

    monkeypatch.setattr(api, call, stand_in)
    with pytest.raises(LancetError, match="enough seen"):
        app(list(LINES[call]), standalone_mode=False)
    (drawn,) = seen
    assert SILENT[call] in drawn
    assert "0:00:00" in drawn


@pytest.mark.parametrize("words", [LINES["inspect"], LINES["show_patch"]])
def test_nothing_moves_where_nobody_watches(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shutil.copytree(PATCHES, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert app(list(words), standalone_mode=False) == 0
    assert capsys.readouterr().err == ""


def test_each_step_of_the_demo_has_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    screen, called = screened(monkeypatch), list[str]()

    def stand_in(command: str, verdict: str) -> Callable[..., Report]:
        def call(*_: object, progress: Callable[[str, float], None], **__: object) -> Report:
            progress(f"at {command}", 0.5)
            called.append(command)
            return Report(command, verdict, (), {"model": {"path": "m", "sha256": "0" * 64}})

        return call

    for command, verdict in (("scan", "clean"), ("repair", "repaired"), ("verify", "pass")):
        monkeypatch.setattr(demo_run, command, stand_in(command, verdict))
    monkeypatch.setattr(demo_run, "_show", lambda *_: None)
    assert demo_run.demo() == 0
    assert called == ["scan", "repair", "verify"]
    for command in called:
        assert f"at {command}" in screen.getvalue()


def test_copying_the_files_of_the_demo_does_not_load_torch(tmp_path: Path) -> None:
    result = lancet("demo", "--files", cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.code == 0, result
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "lancet_onnx_cli.demo_files" in loaded
    assert not loaded & {"torch", "onnxruntime"}
    for name in ("model.onnx", "trigger.png", "images.npz"):
        assert (tmp_path / "lancet-demo" / name).read_bytes() == (DEMO / name).read_bytes()
