# SPDX-License-Identifier: Apache-2.0
"""A patched model has its patch beside it, and that leads back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from builders import noted
from onnx.numpy_helper import from_array, to_array

from lancet_onnx import diff_models
from lancet_onnx.api.patching import save_patch
from lancet_onnx.api.provenance import provenance
from lancet_onnx.model import load
from lancet_onnx.patch import opened_patch
from lancet_onnx.types import Digest

GOLDEN = Path(__file__).parents[3] / "fixtures" / "patches" / "v1" / "flip"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with m.onnx, which a patch of its name gives."""
    shutil.copy(GOLDEN / "result" / "model.onnx", tmp_path / "m.onnx")
    shutil.copy(GOLDEN / "patch.lancet.safetensors", tmp_path / "m.lancet.safetensors")
    return tmp_path


def found(folder: Path, name: str = "m.onnx") -> tuple[str, str]:
    result, text = provenance(load(folder / name))
    return result, text


OTHER = json.dumps({"base": "b" * 64, "change": "c" * 64})
"""A note of another patch."""


def test_a_patch_that_leads_back(place: Path):
    result, text = found(place)
    with opened_patch(GOLDEN / "patch.lancet.safetensors") as patch:
        assert result == "pass"
        assert str(patch.base)[:12] in text


def test_a_patch_of_another_name_serves_as_well(place: Path):
    (place / "m.lancet.safetensors").rename(place / "fix.lancet.safetensors")
    result, text = found(place)
    assert (result, text.split()[0]) == ("pass", "fix.lancet.safetensors")


def test_nothing_says_that_it_was_patched(place: Path):
    shutil.copy(GOLDEN / "base" / "model.onnx", place / "other.onnx")
    assert found(place, "other.onnx")[0] == "pass"


def test_a_patch_that_is_not_applied_yet(place: Path):
    shutil.copy(GOLDEN / "base" / "model.onnx", place / "m.onnx")
    assert found(place)[0] == "pass"


def test_a_model_that_was_changed_afterwards(place: Path):
    model = onnx.load(place / "m.onnx")
    weight = model.graph.initializer[0]
    weight.CopyFrom(from_array(to_array(weight) * 2, weight.name))
    onnx.save(model, place / "m.onnx")
    result, text = found(place)
    assert result == "fail"
    assert "m.lancet.safetensors lies beside the model, but gives another one" in text


def test_a_model_that_says_so_without_its_patch(place: Path):
    (place / "m.lancet.safetensors").unlink()
    noted(place / "m.onnx", OTHER)
    result, text = found(place)
    assert result == "not_evaluated"
    assert "bbbbbbbbbbbb" in text


def test_a_model_that_names_another_patch(place: Path):
    """The patch gives the very file, which says that it came from elsewhere."""
    noted(place / "m.onnx", OTHER)
    (place / "m.lancet.safetensors").unlink()
    shutil.copy(place / "m.onnx", place / "before.onnx")
    model = onnx.load(place / "before.onnx")
    weight = model.graph.initializer[0]
    weight.CopyFrom(from_array(to_array(weight) * 2, weight.name))
    onnx.save(model, place / "before.onnx")
    diff_models(place / "before.onnx", place / "m.onnx", place / "m.lancet.safetensors")
    result, text = found(place)
    assert result == "fail"
    assert "the model names another patch" in text


@pytest.mark.parametrize("value", ["", "[1]", '"x"', "[" * 5000, "{}"])
def test_notes_that_say_nothing_are_none(place: Path, value: str):
    (place / "m.lancet.safetensors").unlink()
    noted(place / "m.onnx", value)
    assert found(place)[0] == "pass"


def test_a_damaged_patch_of_its_name_fails_and_of_another_does_not(place: Path):
    (place / "z.lancet.safetensors").write_bytes(b"no patch")
    assert found(place)[0] == "pass"
    (place / "m.lancet.safetensors").write_bytes(b"no patch")
    result, text = found(place)
    assert result == "fail"
    assert "cannot be read" in text


def test_a_patch_that_promises_another_base(place: Path):
    """Its result is this model, yet what it undoes does not give the base that it names."""
    with opened_patch(GOLDEN / "patch.lancet.safetensors") as patch:
        save_patch(replace(patch, base=Digest("0" * 64)), place / "m.lancet.safetensors")
    result, text = found(place)
    assert result == "fail"
    assert "does not lead back to its base" in text
