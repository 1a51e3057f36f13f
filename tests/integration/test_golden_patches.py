# SPDX-License-Identifier: Apache-2.0
"""Patches of past releases are read, applied and reverted to the very bytes that they promised."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders import to_bytes
from safetensors import safe_open

from lancet_onnx import apply_patch, diff_models, revert_patch, show_patch
from lancet_onnx.model import diff
from lancet_onnx.patch import opened_patch

GOLDEN = Path(__file__).parents[2] / "fixtures" / "patches"
CASES = sorted(GOLDEN.glob("v*/*"))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(params=CASES, ids=lambda p: f"{p.parent.name}-{p.name}")
def case(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_is_a_case_for_every_kind_of_storage():
    assert {path.name for path in CASES} == {"external", "flip", "nothing", "places", "types"}


def test_it_is_applied(case: Path, tmp_path: Path):
    patch = case / "patch.lancet.safetensors"
    report = apply_patch(case / "base" / "model.onnx", patch, tmp_path / "model.onnx")
    assert files(tmp_path) == files(case / "result")
    assert report.body["base_matched_by"] == "digest"
    assert report.body["output"]["sha256"] == show_patch(patch).body["result"]


def test_it_is_reverted(case: Path, tmp_path: Path):
    patch = case / "patch.lancet.safetensors"
    revert_patch(case / "result" / "model.onnx", patch, tmp_path / "model.onnx")
    assert files(tmp_path) == files(case / "base")


@pytest.mark.parametrize("kept", [0, 1, diff._KEPT])
def test_a_difference_finds_the_same(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
):
    monkeypatch.setattr(diff, "_KEPT", kept)
    made = tmp_path / "made"
    diff_models(case / "base" / "model.onnx", case / "result" / "model.onnx", made)
    with opened_patch(made) as found, opened_patch(case / "patch.lancet.safetensors") as golden:
        assert found.identity == golden.identity
        assert (found.result, found.metadata) == (golden.result, golden.metadata)


def test_it_is_written_as_it_was(case: Path):
    path = case / "patch.lancet.safetensors"
    with opened_patch(path) as patch:
        assert to_bytes(patch) == path.read_bytes()


def test_it_is_shown(case: Path):
    report = show_patch(case / "patch.lancet.safetensors")
    body = json.loads(report.to_json())
    assert body["method"] == f"golden({case.name})"
    assert body["seed"] == 7
    assert body["tool"].startswith("lancet-onnx ")
    assert body["weights_changed"] == sum(t["weights_changed"] for t in body["targets"])


def test_any_safetensors_reader_reads_it(case: Path):
    """The format is what docs/patch-format.md says, seen without our reader."""
    with safe_open(case / "patch.lancet.safetensors", framework="numpy") as found:
        header = found.metadata()
        targets = json.loads(header["targets"])
        for number, target in enumerate(targets):
            index, old, new = (found.get_tensor(f"{number}/{p}") for p in ("index", "old", "new"))
            assert index.dtype == np.int64
            assert len(index) == len(old) == len(new)
            assert (old != new).all()
            assert (np.diff(index) > 0).all()
            assert index[-1] < np.prod(target["shape"])
    assert header["lancet.patch.version"] == case.parent.name.removeprefix("v")
