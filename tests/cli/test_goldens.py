# SPDX-License-Identifier: Apache-2.0
"""The JSON of each command and the help, compared with files kept beside.

``pytest tests/cli --update-goldens`` writes them anew; look at the difference before keeping it.
"""

import json
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx.numpy_helper import from_array, to_array
from support import GOLDENS, ROOT, Warm, box, once
from test_explain import HERE, spot

HEX = re.compile(r"[0-9a-f]{64}")
COMMANDS = (
    *("demo", "scan", "repair", "verify", "gate", "explain", "inspect", "doctor", "patch"),
    "signature",
)
GROUPS = {"patch": ("show", "apply", "revert", "diff", "compose"), "signature": ("make", "check")}
PATCHES = ROOT / "fixtures" / "patches" / "v1" / "flip"
VOLATILE = {"seconds", "versions", "nodes", "largest", "tolerance", "platform", "image_forwards"}
"""Keys whose values depend on the machine; that they are there is checked, and of what kind."""


def normal(value: Any, key: str = "") -> Any:
    """Return JSON data without what differs between machines, folders and library versions."""
    if key in VOLATILE and not isinstance(value, list):
        return f"<{'number' if isinstance(value, int | float) else type(value).__name__}>"
    if isinstance(value, dict):
        return {name: normal(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, float):
        return round(value, 1) + 0.0  # no -0.0
    if isinstance(value, str):
        return HEX.sub("<sha256>", value.replace(str(ROOT), "<root>"))
    return value


def compare(name: str, found: str, request: pytest.FixtureRequest) -> None:
    path = GOLDENS / name
    if request.config.getoption("--update-goldens"):
        path.write_text(found)
    assert path.is_file(), f"{path} is missing: run pytest tests/cli --update-goldens"
    assert found == path.read_text()


@pytest.fixture
def reports(common: Path, warm: Warm) -> tuple[Path, dict[str, Any]]:
    """The JSON of scan, repair, verify and inspect of the small model."""

    def make(folder: Path) -> dict[str, Any]:
        box(folder)
        line = ("--trigger", "t.png", "--data", "val.npz", "-f", "json")
        return {
            "scan": warm("scan", "model.onnx", *line, cwd=folder),
            # Flips: what training comes to differs a little between processors.
            "repair": warm(
                "repair", "model.onnx", *line, "-o", "fixed.onnx", "--method", "flip", cwd=folder
            ),
            "verify": warm("verify", "model.onnx", "fixed.onnx", *line, cwd=folder),
            "inspect": warm("inspect", "model.onnx", "-f", "json", cwd=folder),
        }

    return once(common, "goldens", make)


@pytest.mark.parametrize("command", ["scan", "repair", "verify", "inspect"])
def test_json(
    command: str, reports: tuple[Path, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    result = reports[1][command]
    assert result.stderr == ""
    text = json.dumps(normal(result.json), indent=1) + "\n"
    compare(f"{command}.json", text, request)


@pytest.mark.parametrize("command", GROUPS["patch"])
def test_patch_json(
    command: str, tmp_path: Path, warm: Warm, request: pytest.FixtureRequest
) -> None:
    shutil.copytree(PATCHES, tmp_path, dirs_exist_ok=True)
    base, result, patch = "base/model.onnx", "result/model.onnx", "patch.lancet.safetensors"
    if command == "compose":
        model = onnx.load(tmp_path / result)
        weight = next(t for t in model.graph.initializer if t.name == "fc.bias")
        weight.CopyFrom(from_array(to_array(weight) * 2, weight.name))
        onnx.save(model, tmp_path / "more.onnx")
        more = warm("patch", "diff", result, "more.onnx", "-o", "more.patch", cwd=tmp_path)
        assert more.code == 0, more
    line = {
        "show": (patch,),
        "apply": (base, patch, "-o", "out.onnx"),
        "revert": (result, patch, "-o", "out.onnx"),
        "diff": (base, result, "-o", "out.lancet.safetensors"),
        "compose": (patch, "more.patch", "-o", "out.lancet.safetensors"),
    }[command]
    found = warm("patch", command, *line, "-f", "json", cwd=tmp_path)
    assert (found.code, found.stderr) == (0, "")
    compare(f"patch_{command}.json", json.dumps(normal(found.json), indent=1) + "\n", request)


def test_explain_json(tmp_path: Path, warm: Warm, request: pytest.FixtureRequest) -> None:
    """Its keys, words and kinds of values: what a search comes to differs between processors."""
    spot(tmp_path)
    line = ("--data", "val.npz", "--errors", "errors.npz", "--show", "1", *HERE)
    result = warm(
        "explain", "model.onnx", *line, "--preprocess", "unit", "-o", "e.json", cwd=tmp_path
    )
    assert (result.code, result.stdout) == (0, "done\n"), result
    body = json.loads((tmp_path / "e.json").read_text())
    for rows in (body["errors"][0]["curve"], body["classes"], body["located"]):
        del rows[1:]
    text = json.dumps(kinds(normal(body)), indent=1) + "\n"
    compare("explain.json", text, request)


def kinds(value: Any) -> Any:
    """Return JSON data with its numbers, and the names and sentences that hold some, left out."""
    if isinstance(value, dict):
        return {name: kinds(item) for name, item in value.items()}
    if isinstance(value, list):
        return [kinds(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "<number>"
    return re.sub(r"\d+", "<n>", value) if isinstance(value, str) else value


def test_scan_of_a_refused_model_says_nothing_on_stdout(tmp_path: Path, warm: Warm) -> None:
    result = warm("inspect", ROOT / "fixtures/refused/text.onnx", "-f", "json", cwd=tmp_path)
    assert (result.code, result.stdout) == (3, "")


def test_help(tmp_path: Path, warm: Warm, request: pytest.FixtureRequest) -> None:
    pages = [["--help"], *([command, "--help"] for command in COMMANDS)]
    pages += [[group, each, "--help"] for group, names in GROUPS.items() for each in names]
    shown = []
    for page in pages:
        result = warm(*page, cwd=tmp_path)
        assert (result.code, result.stderr) == (0, "")
        assert max(map(len, result.stdout.splitlines())) <= 80
        shown.append(f"$ lancet-onnx {' '.join(page)}\n{result.stdout}")
    # The layout of a help page is the parser's: compared only under the version it was made with.
    made = f"typer {'.'.join(metadata.version('typer').split('.')[:2])}"
    text = "\n".join([f"{made}\n", *shown])
    golden = GOLDENS / "help.txt"
    updating = request.config.getoption("--update-goldens")
    if not updating and golden.is_file() and not golden.read_text().startswith(f"{made}\n"):
        pytest.skip(f"the golden was made with {golden.read_text().splitlines()[0]}, not {made}")
    assert all(f"\n  {command} " in shown[0] for command in COMMANDS)
    assert "..." not in shown[0].partition("Commands:")[2], "one line is enough for a command"
    compare("help.txt", text, request)
