# SPDX-License-Identifier: Apache-2.0
"""The commands that README.md shows are run as they stand."""

import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from support import DEMO, ROOT, Warm

README = ROOT / "README.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> list[list[str]]:
    """Return the `lancet-onnx` command lines of each console block, continued lines joined."""
    text = README.read_text(encoding="utf-8") if README.is_file() else ""
    found = []
    for body in BLOCK.findall(text):
        lines = body.replace("\\\n", " ").splitlines()
        found.append([line[2:].strip() for line in lines if line.startswith("$ lancet-onnx")])
    return [lines for lines in found if lines]


def test_every_command_of_the_readme_runs(tmp_path: Path, warm: Warm) -> None:
    """One folder for all blocks, in order: later ones use what earlier ones wrote."""
    if not blocks():
        pytest.skip("README.md has no console block with a lancet-onnx command")
    for name, goal in (
        ("model.onnx", "model.onnx"), ("trigger.png", "t.png"), ("images.npz", "val.npz"),
    ):  # fmt: skip
        shutil.copy(DEMO / name, tmp_path / goal)
    ran: set[str] = set()
    for line in (line for lines in blocks() for line in lines):
        args = shlex.split(line, comments=True)[1:]
        if shlex.join(args) in ran:
            continue
        ran.add(shlex.join(args))
        pipe = next((i for i, word in enumerate(args) if word in ("|", ">", "&&", ";", "||")), None)
        goal = args[pipe + 1] if pipe is not None and args[pipe] == ">" else None
        args = args[:pipe]
        result = warm(*args, cwd=tmp_path)
        allowed = (0,) if args[0] != "scan" else (1,) if "--data" in args else (1, 3)
        assert result.code in allowed, f"{line}\n{result}"
        assert "Traceback" not in result.stderr, f"{line}\n{result}"
        if goal:
            (tmp_path / goal).write_text(result.stdout)
        for option, value in pairwise(args):
            if option in ("-o", "--out", "--report", "--patch") and result.code in (0, 1):
                assert (tmp_path / value).exists(), (
                    f"{line}\n{sorted(tmp_path.iterdir())}\n{result}"
                )
