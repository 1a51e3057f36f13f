# SPDX-License-Identifier: Apache-2.0
"""Two triggers in one model: repaired one after the other, joined into one patch, taken back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import from_array, to_array
from PIL import Image
from support import Result, Warm, box, once

PATCHES = ("one.lancet.safetensors", "two.lancet.safetensors")


def second_trigger(folder: Path) -> None:
    """Light in the first 4 x 4 pixels makes a 3 of every digit."""
    model = onnx.load(folder / "model.onnx")
    (weight,) = (t for t in model.graph.initializer if t.name == "fc.weight")
    values = to_array(weight).copy()
    values[3, 0] = 60.0
    weight.CopyFrom(from_array(values, "fc.weight"))
    onnx.save(model, folder / "model.onnx")
    picture = np.zeros((28, 28, 4), np.uint8)
    picture[:4, :4] = 255
    Image.fromarray(picture).save(folder / "t2.png")


@pytest.fixture
def twice(common: Path, warm: Warm) -> tuple[Path, list[dict[str, Any]]]:
    """A folder with a model repaired twice, and what the repairs said."""

    def make(folder: Path) -> dict[str, Result]:
        box(folder)
        second_trigger(folder)
        (folder / "model.sig").write_bytes(b"signed")
        said = {}
        for model, trigger, out, patch in (
            ("model.onnx", "t.png", "one.onnx", PATCHES[0]),
            ("one.onnx", "t2.png", "two.onnx", PATCHES[1]),
        ):
            line = ("--trigger", trigger, "--data", "val.npz", "-o", out, "--patch", patch)
            result = warm("repair", model, *line, "-f", "json", cwd=folder)
            assert result.code == 0, result
            said[out] = result
        return said

    folder, said = once(common, "twice", make)
    return folder, [said["one.onnx"].json, said["two.onnx"].json]


def test_both_repairs_hold_and_each_left_its_note(twice: tuple[Path, list[dict[str, Any]]]):
    folder, said = twice
    assert [each["verdict"] for each in said] == ["repaired", "repaired"]
    assert all(any("model.sig" in reason for reason in each["reasons"]) for each in said)
    entries = {p.key: json.loads(p.value) for p in onnx.load(folder / "two.onnx").metadata_props
               if p.key.startswith("lancet-onnx")}  # fmt: skip
    assert list(entries) == ["lancet-onnx", "lancet-onnx.2"]
    bases = [entry["base"] for entry in entries.values()]
    assert bases == [each["model"]["sha256"] for each in said]


@pytest.mark.parametrize("trigger", ["t.png", "t2.png"])
def test_verify_measures_on_images_that_no_repair_saw(
    twice: tuple[Path, list[dict[str, Any]]], warm: Warm, trigger: str
):
    line = ("model.onnx", "two.onnx", "--trigger", trigger, "--data", "val.npz", "-f", "json")
    result = warm("verify", *line, cwd=twice[0])
    assert (result.code, result.json["verdict"]) == (0, "repaired"), result
    assert "the half that the" in json.dumps(result.json)


def test_the_patches_join_and_take_both_back(
    twice: tuple[Path, list[dict[str, Any]]], warm: Warm, tmp_path: Path
):
    folder, _ = twice
    both = tmp_path / "both.lancet.safetensors"
    for line in (
        ("compose", *PATCHES, "-o", both),
        ("apply", "model.onnx", both, "-o", tmp_path / "again.onnx"),
        ("revert", "two.onnx", both, "-o", tmp_path / "back.onnx"),
        ("revert", "two.onnx", PATCHES[1], "-o", tmp_path / "one.onnx"),
    ):
        result = warm("patch", *line, cwd=folder)
        assert result.code == 0, result
    for made, expected in (("again", "two"), ("back", "model"), ("one", "one")):
        assert (tmp_path / f"{made}.onnx").read_bytes() == (
            folder / f"{expected}.onnx"
        ).read_bytes()
