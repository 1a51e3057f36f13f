# SPDX-License-Identifier: Apache-2.0
"""`repair_blind` on tiny models: what it is taught, what it refuses, what it does not do twice."""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hunts import CLASSES, CLEAN, TARGET, body, shorten, stored, whole_numbers
from tiny import planted_file

from lancet_onnx import DataOptions, RepairOptions
from lancet_onnx.api.blind import repair_blind
from lancet_onnx.api.options import SuspectOptions
from lancet_onnx.errors import DataError, OutputError, UnsupportedError, UsageError
from lancet_onnx.pairs.union import KINDS, LESSONS
from lancet_onnx.repair import TuneSettings
from lancet_onnx.report import Report
from lancet_onnx.verify.searching import SUSPECT


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


def repair_tiny(
    folder: Path, target: int | None, suspect: int, data: DataOptions | None = None, **options
) -> Report:
    return repair_blind(
        planted_file(folder, CLASSES, target),
        SuspectOptions(suspect, ()),
        data or stored(folder, CLASSES),
        RepairOptions(folder / "out.onnx", **options),
        device="cpu",
    )


def test_loud_triggers_teach_nothing_and_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = importlib.import_module("lancet_onnx.api.blind")
    real, asked = module.union, []

    def heard(*args, kinds=KINDS, **more):
        asked.append(kinds)
        return real(*args, kinds=kinds, **more)

    monkeypatch.setattr(module, "union", heard)
    monkeypatch.setattr(module, "_score", lambda *_, **__: 2 * SUSPECT)
    monkeypatch.setattr(module, "TUNING", TuneSettings(warm=(1.0,), ladder=(0.2,), steps=5))
    monkeypatch.setattr("lancet_onnx.pairs.union.STEPS", 5)
    report = repair_tiny(tmp_path, TARGET, TARGET, keep=True)
    # What judges, what teaches, and what teaches after the new search.
    assert asked == [KINDS, LESSONS, LESSONS]
    assert set(LESSONS) < set(KINDS)
    told = body(report)["residual_risk"]["strengths"]
    assert {kind.name for kind in KINDS} == {s["kind"] for s in told}


def test_a_forced_suspect_of_a_clean_model_is_left_alone(fixtures, tmp_path: Path):
    report = repair_blind(
        fixtures.model(CLEAN),
        SuspectOptions(3, ()),
        DataOptions(fixtures.images),
        RepairOptions(tmp_path / "out.onnx"),
        device="cpu",
    )
    assert report.verdict == "not_repaired"
    assert "nothing was changed" in report.reasons[0]
    assert body(report)["weights_changed"] == 0
    assert (body(report)["output"], body(report)["patch"]) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_another_class_than_the_planted_one_is_left_alone(tmp_path: Path):
    report = repair_tiny(tmp_path, TARGET, 0)
    assert report.verdict == "not_repaired"
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("suspect", [-1, CLASSES])
def test_a_suspect_that_the_model_lacks_is_refused(tmp_path: Path, suspect: int):
    with pytest.raises(DataError, match="no such class"):
        repair_tiny(tmp_path, TARGET, suspect)
    assert not (tmp_path / "out.onnx").exists()


def test_too_few_images_to_judge_by_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="too few images of other classes"):
        repair_tiny(tmp_path, TARGET, TARGET, stored(tmp_path, CLASSES, 8))
    assert not (tmp_path / "out.onnx").exists()


def place(folder: Path, kind: str) -> dict[str, object]:
    if kind == "there already":
        (folder / "out.onnx").write_bytes(b"mine")
        return {}
    return {"patch": folder / "out.onnx"}


@pytest.mark.parametrize("kind", ["there already", "the patch as well"])
def test_an_output_that_would_hide_something_is_refused(tmp_path: Path, kind: str):
    options = place(tmp_path, kind)
    with pytest.raises(OutputError):
        repair_tiny(tmp_path, TARGET, TARGET, **options)
    there = tmp_path / "out.onnx"
    assert not there.exists() or there.read_bytes() == b"mine"


def test_a_model_file_that_is_data_as_well_is_not_overwritten(tmp_path: Path):
    model = planted_file(tmp_path, CLASSES, TARGET)
    before = model.read_bytes()
    with pytest.raises(OutputError):
        repair_blind(
            model,
            SuspectOptions(TARGET, ()),
            stored(tmp_path, CLASSES),
            RepairOptions(model, force=True),
            device="cpu",
        )
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    "options", [{"method": "flip"}, {"method": "mute"}, {"as_published": True}]
)
def test_a_method_that_needs_a_given_trigger_is_refused(tmp_path: Path, options):
    model = planted_file(tmp_path, CLASSES, TARGET)
    output = tmp_path / "fixed.onnx"
    with pytest.raises(UsageError, match="--trigger instead of --from"):
        repair_blind(
            model,
            SuspectOptions(TARGET, ()),
            stored(tmp_path, CLASSES),
            RepairOptions(output, **options),
            device="cpu",
        )
    assert not output.exists()


@pytest.mark.parametrize(("lost", "pushes"), [(0.0, [20.0]), (0.5, [20.0, 6.0])])
def test_a_gentler_push_is_tried_where_accuracy_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: float, pushes: list[float]
):
    module = importlib.import_module("lancet_onnx.api.blind")
    real, tried = module.choose, []

    def costly(*args):
        tried.append(args[5].push)
        choice = real(*args)
        return replace(choice, chosen=replace(choice.chosen, loss=lost))

    monkeypatch.setattr(module, "choose", costly)
    monkeypatch.setattr(module, "ROUNDS", 1)
    output = tmp_path / "fixed.onnx"
    repair_blind(
        planted_file(tmp_path, CLASSES, TARGET),
        SuspectOptions(TARGET, ()),
        stored(tmp_path, CLASSES),
        RepairOptions(output, keep=True),
        device="cpu",
    )
    assert tried == pushes
    assert f"push={pushes[-1]}".encode() in output.with_suffix(".lancet.safetensors").read_bytes()


def test_what_cost_too_much_once_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = importlib.import_module("lancet_onnx.api.blind")
    real, tried = module.choose, []

    def costly(*args):
        tried.append(args[5].push)
        choice = real(*args)
        return replace(choice, chosen=replace(choice.chosen, loss=args[5].push / 1000))

    monkeypatch.setattr(module, "choose", costly)
    monkeypatch.setattr(module, "_score", lambda *_, **__: 2 * SUSPECT)
    repair_blind(
        planted_file(tmp_path, CLASSES, TARGET),
        SuspectOptions(TARGET, ()),
        stored(tmp_path, CLASSES),
        RepairOptions(tmp_path / "fixed.onnx"),
        device="cpu",
    )
    assert tried == [20.0, 6.0, 6.0]


def test_no_repair_where_no_gradient_passes(tmp_path: Path):
    with pytest.raises(UnsupportedError, match="'x' takes uint8"):
        repair_blind(
            whole_numbers(tmp_path),
            SuspectOptions(TARGET, ()),
            replace(stored(tmp_path, CLASSES), preprocess="uint8"),
            RepairOptions(tmp_path / "fixed.onnx"),
            device="cpu",
        )
    assert not (tmp_path / "fixed.onnx").exists()
