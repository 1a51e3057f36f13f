# SPDX-License-Identifier: Apache-2.0
"""The tutorial is run as it stands: commands, exit codes, verdicts, and what goes into files."""

import re
import shlex
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from support import ROOT, Warm

PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?:^<!-- append: (\S+) -->\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"# exit code (\d+): \w+")


@dataclass
class Step:
    """A command with what the page says of it: its exit code and all that is on stdout."""

    line: str
    code: int = 0
    stdout: list[str] = field(default_factory=list)


def steps() -> list[Step | tuple[str, str]]:
    """Return the commands of the page, and the text that goes to the end of a file."""
    found: list[Step | tuple[str, str]] = []
    for goal, language, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        assert language in ("console", "text", "toml"), language
        if goal:
            found.append((goal, body))
        elif language == "console":
            found += _steps(body)
    return found


def _steps(body: str) -> list[Step]:
    found: list[Step] = []
    for line in body.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:]))
        elif line.startswith("#"):
            told = CODE.match(line)
            assert told, f"{line}: expected '# exit code N: why'"
            found[-1].code = int(told[1])
        else:
            found[-1].stdout.append(line)
    return found


def test_every_command_of_the_tutorial_runs_and_ends_as_it_says(tmp_path: Path, warm: Warm) -> None:
    folder, ran = tmp_path, 0
    for step in steps():
        if isinstance(step, tuple):
            goal, text = step
            path = folder / goal
            path.write_text(f"{path.read_text(encoding='utf-8')}\n{text}", encoding="utf-8")
            continue
        program, *args = shlex.split(step.line)
        if program == "cd":
            folder /= args[0]
            assert folder.is_dir(), step
            continue
        assert program == "lancet-onnx", step
        result = warm(*args, cwd=folder)
        ran += 1
        assert result.code == step.code, f"{step.line}\n{result}"
        assert "Traceback" not in result.stderr, f"{step.line}\n{result}"
        if step.stdout:
            assert result.stdout.splitlines() == step.stdout, f"{step.line}\n{result}"
        if args[0] == "gate" and step.code:  # the command that helps stands on the page as well
            (line,) = re.findall(r"^ +next: (lancet-onnx .*)$", result.stderr, re.MULTILINE)
            assert line in PAGE.read_text(encoding="utf-8")
        for option, value in pairwise(args):
            if option in ("-o", "--report"):
                assert (folder / value).is_file(), f"{step.line}\n{result}"
    assert ran >= 10
    assert (folder / "original.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    assert (folder / "fixed.onnx").read_bytes() != (folder / "model.onnx").read_bytes()
