# SPDX-License-Identifier: Apache-2.0
"""The command line itself: help with examples, completion, typos, colours, quiet."""

import io
import os
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from lancet_onnx_cli.app import _explain as explain_error
from lancet_onnx_cli.bars import progress
from lancet_onnx_cli.commands import app
from lancet_onnx_cli.examples import EXAMPLES
from lancet_onnx_cli.output import Output, emit
from lancet_onnx_cli.render import render_verdict
from lancet_onnx_cli.tables import terminal
from support import COMMAND, WIDTH, Screen, Warm, environment, lancet, one_error
from typer import Typer

from lancet_onnx.report import Attachment, Report

SCREEN = 50


def commands(group: Typer = app, before: str = "") -> list[str]:
    """Every command as it is typed."""
    found = [f"{before}{command.name}" for command in group.registered_commands]
    for each in group.registered_groups:
        assert each.typer_instance is not None
        found += commands(each.typer_instance, f"{each.typer_instance.info.name} ")
    return found


def groups() -> list[str]:
    """Every word that commands stand behind."""
    return sorted({command.split()[0] for command in commands() if " " in command})


@pytest.mark.parametrize("command", [*commands(), *groups()])
def test_help_fits_a_screen_and_ends_with_an_example(
    command: str, tmp_path: Path, warm: Warm
) -> None:
    result = warm(*command.split(), "--help", cwd=tmp_path)
    lines = result.stdout.splitlines()
    assert (result.code, result.stderr) == (0, "")
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= WIDTH
    assert lines[-2:] == ["  Example:", f"    lancet-onnx {EXAMPLES[command]}"]
    assert EXAMPLES[command].startswith(command)


@pytest.mark.parametrize("command", commands())
def test_examples_use_options_that_there_are(command: str, tmp_path: Path, warm: Warm) -> None:
    words = shlex.split(EXAMPLES[command])
    assert warm(*words, "--help", cwd=tmp_path).code == 0
    one_error(warm(*words, "--no-such", "--help", cwd=tmp_path), 2, "--no-such")


def test_the_version_is_said(tmp_path: Path, warm: Warm) -> None:
    result = warm("--version", cwd=tmp_path)
    said = f"lancet-onnx {metadata.version('lancet-onnx')}\n"
    assert (result.code, result.stdout, result.stderr) == (0, said, "")


def test_the_first_page_fits_a_small_screen(tmp_path: Path, warm: Warm) -> None:
    result = warm("-h", cwd=tmp_path)
    assert len(result.stdout.splitlines()) <= 36
    assert "lancet-onnx demo" in result.stdout
    assert result.stdout == warm("--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("scna m.onnx", "'scan'"),
        ("patch aply m.onnx", "'apply'"),
        ("scan m.onnx --triger t.png", "--trigger"),
        ("scan m.onnx -f sariff", "did you mean 'sarif'?"),
        ("verify m.onnx f.onnx --device cude", "did you mean 'cuda'?"),
        ("--versoin", "--version"),
    ],
)
def test_a_typo_is_told_what_was_meant(words: str, meant: str, tmp_path: Path, warm: Warm) -> None:
    result = warm(*words.split(), cwd=tmp_path)
    one_error(result, 2, meant)
    assert "Value error" not in result.stderr


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lancet-onnx ver", {"verify"}),
        ("lancet-onnx patch ", {"show", "apply", "revert", "diff", "compose"}),
        ("lancet-onnx scan --tri", {"--trigger", "--trigger-mode"}),
        ("lancet-onnx scan m.onnx -f js", {"json"}),
    ],
)
def test_shells_complete_commands_options_and_words(
    line: str, found: set[str], tmp_path: Path
) -> None:
    words = line.split(" ")
    done = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        env=environment(
            _LANCET_ONNX_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, set(done.stdout.split())) == (0, found), done


def test_the_completion_of_a_shell_is_shown_for_this_command(tmp_path: Path, warm: Warm) -> None:
    # Which shell we are in is found among the parents; a test may have none there.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = warm("--show-completion", "bash", cwd=tmp_path, env=named)
    assert shown.code == 0
    assert "_LANCET_ONNX_COMPLETE=complete_bash" in shown.stdout
    assert subprocess.run(["bash", "-n", "-c", shown.stdout], check=False).returncode == 0


def test_forced_colours_stay_out_of_what_scripts_read(small: Path, warm: Warm) -> None:
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    line = ("verify", "model.onnx", "model.onnx", "--data", "val.npz")
    result = warm(*line, cwd=small, env=forced)
    assert (result.code, result.stdout) == (0, "pass\n")
    text = warm("inspect", "model.onnx", cwd=small, env=forced).stdout
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("verify", "model.onnx", "model.onnx", "--data", "val.npz", "-v"), "pass\n"),
        (("patch", "diff", "model.onnx", "model.onnx", "-o", "p"), "done\n"),
    ],
)
def test_quiet_says_its_one_word_and_nothing_else(
    words: tuple[str, ...], said: str, small: Path, warm: Warm
) -> None:
    result = warm(*words, "-q", cwd=small, env={"FORCE_COLOR": "1"})
    assert (result.stdout, result.stderr) == (said, ""), result


def test_quiet_says_nothing_of_triggers_that_are_not_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    png = Attachment("class1-1.png", b"\x89PNG\r\n\x1a\n")
    report = Report("scan", "inconclusive", (), {"model": {"path": "m"}}, attachments=(png,))
    assert emit(report, Output(())) == 3
    assert "not kept" in capsys.readouterr().err
    assert emit(report, Output((), quiet=True)) == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("stream", "env", "red"),
    [
        (Screen, {}, True),
        (Screen, {"NO_COLOR": "1"}, False),
        (io.StringIO, {}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals(
    stream: type[io.StringIO], env: dict[str, str], red: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **env}.items():
        monkeypatch.setenv(name, value)
    shown = stream()
    monkeypatch.setattr(sys, "stdout", shown)
    render_verdict(Report("scan", "backdoored", (), {}), terminal())
    assert "backdoored" in shown.getvalue()
    assert ("31m" in shown.getvalue()) == red


def test_a_bar_says_how_much_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream, drawn in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress(Output(())) as told:
            told("locating", 0.5)
        assert ("locating" in stream.getvalue()) == drawn
        assert ("left" in stream.getvalue()) == drawn


def test_a_library_that_does_not_load_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModuleNotFoundError("No module named 'onnxruntime.capi'", name="onnxruntime.capi")
    assert explain_error(error) == 3
    assert "`lancet-onnx doctor` says how to mend" in capsys.readouterr().err
    assert explain_error(ModuleNotFoundError("No module named 'lancet_onnx.x'", name="x")) == 70


def test_doctor_speaks_where_onnxruntime_is_half_gone(tmp_path: Path) -> None:
    """Removing one of two distributions leaves a package without contents."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = lancet("doctor", cwd=tmp_path, env={"PYTHONPATH": path})
    assert (result.code, result.stderr) == (1, ""), result
    assert "problem: onnxruntime does not work (" in result.stdout
    assert "mend it with: pip install --force-reinstall 'onnxruntime" in result.stdout
