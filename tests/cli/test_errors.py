# SPDX-License-Identifier: Apache-2.0
"""`repair` of honest errors, as a process: streams, exit codes, what goes with what."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from support import ROOT, WIDTH, Result, Warm, one_error, untouched
from tiny import saved, spotted, spotted_file

LINE = ("--data", "val.npz", "--preprocess", "unit")


@pytest.fixture
def mendable(tmp_path: Path) -> Path:
    """A folder with a model that misreads every image with a bright spot, and images of it."""
    spotted_file(tmp_path, 4, 2)
    saved(tmp_path / "val.npz", spotted(4, 30))
    return tmp_path


@pytest.fixture
def wrong(small: Path) -> Path:
    """Dark digits on light ground with their true labels: the model knows the other way round."""
    with np.load(small / "val.npz") as arrays:
        x, y = arrays["x"][:60], arrays["y"][:60]
    np.savez(small / "errors.npz", x=255 - x, y=y)
    return small


def repair(warm: Warm, folder: Path, *more: str) -> Result:
    return warm("repair", "model.onnx", *LINE, "-o", "fixed.onnx", *more, cwd=folder)


def test_errors_in_the_data_are_repaired_without_a_word_of_them(warm: Warm, mendable: Path):
    result = repair(warm, mendable, "--report", "report.json", "--report", "report.html")
    assert result.code == 0, result
    assert result.stdout == "repaired\n"
    assert "errors corrected" in result.stderr
    assert "right before" in result.stderr
    tables = result.stderr.split("  of ")[0]
    assert max(map(len, tables.splitlines())) <= WIDTH
    body = json.loads((mendable / "report.json").read_text())
    jsonschema.validate(body, json.loads((ROOT / "docs/report.schema.json").read_text()))
    assert body["corrections"]["net"] > 0
    page = (mendable / "report.html").read_text()
    assert "What got better, what got worse" in page
    assert "Some that are right now" in page
    assert (mendable / "fixed.onnx").is_file()
    assert (mendable / "fixed.lancet.safetensors").is_file()


def test_verify_measures_on_what_the_repair_did_not_see(warm: Warm, mendable: Path):
    assert repair(warm, mendable, "-q").code == 0
    result = warm("verify", "model.onnx", "fixed.onnx", *LINE, "-f", "json", cwd=mendable)
    assert result.code == 0, result
    assert result.json["data"]["used"] == "the half that the repair did not see"


def test_the_patch_takes_the_repair_back(warm: Warm, mendable: Path):
    assert repair(warm, mendable, "-q", "--no-metadata").code == 0
    line = ("patch", "revert", "fixed.onnx", "fixed.lancet.safetensors", "-o", "back.onnx")
    assert warm(*line, cwd=mendable).code == 0
    assert (mendable / "back.onnx").read_bytes() == (mendable / "model.onnx").read_bytes()


def test_errors_given_apart_that_so_few_weights_cannot_learn(warm: Warm, wrong: Path):
    with untouched(wrong):
        result = repair(warm, wrong, "--errors", "errors.npz", "-f", "json")
    assert result.code == 1, result
    told = result.json["errors"]
    assert told["given"] == 60
    assert told["learnt_from"] > told["held_out"] > 0
    assert told["held_out_corrected"] == 0
    assert "none of the errors that were given is right now" in result.json["reasons"]
    assert result.json["after"]["given_corrected"] == 0


def test_a_budget_that_nothing_keeps(warm: Warm, wrong: Path):
    # Every third label is wrong: what is learnt from them breaks what was right.
    with np.load(wrong / "val.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    np.savez(wrong / "lies.npz", x=x, y=np.where(np.arange(len(y)) % 3 == 0, (y + 1) % 10, y))
    line = ("--data", "lies.npz", "--preprocess", "unit", "--max-regression", "0")
    with untouched(wrong):
        result = warm("repair", "model.onnx", *line, "-o", "fixed.onnx", cwd=wrong)
    assert result.code == 1, result
    assert result.stdout == "not_repaired\n"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--trigger", "t.png", "--errors", "errors.npz"), "--errors is of errors on honest"),
        (("--trigger", "t.png", "--max-regression", "0.1"), "--max-regression is of errors"),
        (("--target", "3"), "--target is of a trigger"),
        (("--position", "1,1"), "--position is of a trigger"),
        (("--method", "mute"), "--method mute silences triggers"),
        (("--max-regression", "2"), "less than or equal to 1"),
    ],
)
def test_options_that_do_not_go_together(warm: Warm, wrong: Path, more: tuple[str, ...], part: str):
    with untouched(wrong):
        result = repair(warm, wrong, *more)
    assert result.code == 2, result
    assert part in result.stderr


def test_errors_that_are_not_there(warm: Warm, small: Path):
    with untouched(small):
        one_error(repair(warm, small, "--errors", "none.npz"), 3, "none.npz")
