# SPDX-License-Identifier: Apache-2.0
"""`explain` on a classifier whose errors come from a bright spot, by weights that are known."""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from builders import info, model_bytes, tensor, write
from onnx import TensorProto
from onnx.helper import make_node as make
from onnx.numpy_helper import from_array, to_array
from PIL import Image
from tiny import SIDE, SPOT, flat_file, pictures, spotted_file

from lancet_onnx import DataOptions, diff_models, explain
from lancet_onnx.api import explaining
from lancet_onnx.errors import DataError, PatchError, UnsupportedError
from lancet_onnx.pairs.companions import Companions
from lancet_onnx.report import Report

ROOT = Path(__file__).parents[2]
CLASSES, TARGET, EACH = 4, 2, 10
SPOT_PIXELS = 4


@dataclass(frozen=True)
class Box:
    """A model that takes every image with a bright spot for the target, images, and errors."""

    folder: Path
    model: Path
    fixed: Path
    patch: Path
    images: np.ndarray
    labels: np.ndarray

    def npz(self, name: str, x: np.ndarray, y: np.ndarray | None = None) -> Path:
        path = self.folder / f"{name}.npz"
        np.savez(path, x=x, **({} if y is None else {"y": y}))
        return path

    @property
    def data(self) -> DataOptions:
        return DataOptions(self.npz("val", self.images, self.labels), "unit")

    @property
    def lit(self) -> np.ndarray:
        shown = self.images.copy()
        shown[:, SPOT, SPOT] = 242
        return shown

    @property
    def errors(self) -> Path:
        return self.npz("errors", self.lit, self.labels)

    def folders(self, name: str, of: dict[str, list[int]], x: np.ndarray) -> Path:
        for label, numbers in of.items():
            (self.folder / name / label).mkdir(parents=True)
            for number in numbers:
                picture = Image.fromarray(x[number, :, :, 0])
                picture.save(self.folder / name / label / f"{number}.png")
        return self.folder / name


def filled(folder: Path) -> Box:
    samples = pictures(CLASSES, EACH)
    samples.images[:, SPOT, SPOT] = 0.3
    for name, push in (("model", 40.0), ("fixed", 0.0)):
        (folder / name).mkdir()
        spotted_file(folder / name, CLASSES, TARGET, push=push)
        shutil.move(folder / name / "model.onnx", folder / f"{name}.onnx")
    patch = folder / "fix.lancet.safetensors"
    diff_models(folder / "model.onnx", folder / "fixed.onnx", patch)
    images = np.round(samples.images * 255).astype(np.uint8)
    return Box(folder, folder / "model.onnx", folder / "fixed.onnx", patch, images, samples.labels)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return filled(tmp_path)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Box, dict[str, Report]]:
    """Lit images explained by location, and by the patch that mends them."""
    box = filled(tmp_path_factory.mktemp("told"))
    line = {"errors": box.errors, "device": "cpu"}
    return box, {
        "pairs": explain(box.model, box.data, **line),
        "patch": explain(box.model, box.data, patch=box.patch, **line),
    }


def pixels_of(report: Report, name: str) -> np.ndarray:
    (found,) = [a.png for a in report.attachments if a.name == name]
    return np.asarray(Image.open(io.BytesIO(found)))


@pytest.mark.parametrize("by", ["pairs", "patch"])
def test_errors_are_shown_with_region_companion_and_both_labels(
    told: tuple[Box, dict[str, Report]], by: str
):
    box, report = told[0], told[1][by]
    assert (report.command, report.verdict, report.exit_code) == ("explain", "done", 0)
    rows = report.body["errors"]
    assert len(rows) == 8
    # Three kinds of errors: all but the target's own images are taken for it.
    kinds = [row["true"] for row in rows]
    assert sorted(set(kinds)) == [0, 1, 3]
    assert max(kinds.count(k) for k in (0, 1, 3)) == 3
    for row in rows:
        assert row["true"] == box.labels[row["image"]]
        assert row["wrong"] == row["probability"]["label"] == TARGET
        assert row["alike"] == EACH
        assert row["probability"]["wrong"] > 0.9
        assert row["companion"]["label"] == row["true"]
        assert 0 < row["mask_area"] < 0.15
        assert row["other_fills"]["tried"] == 6
        assert row["other_fills"]["restored"] >= 4
        assert not row["elsewhere_restored"]
        amounts = [point["amount"] for point in row["curve"]]
        assert amounts == pytest.approx(np.linspace(0, 1, 11))
        wrong = [point["wrong"] for point in row["curve"]]
        assert wrong == sorted(wrong, reverse=True)
        first, last = row["curve"][0], row["curve"][-1]
        assert {k: first[k] for k in row["probability"]} == row["probability"]
        assert {k: last[k] for k in row["companion"]} == row["companion"]
        assert row["contribution"]["wrong"] > 10
        assert abs(row["contribution"]["true"]) < 0.01
    where = pixels_of(report, rows[0]["pictures"]["mask"])
    red = (where[..., 0] > 150) & (where[..., 1] < 90)
    part = where.shape[0] // SIDE
    spot = slice((SPOT.start - 1) * part, (SPOT.stop + 1) * part)
    assert red[spot, spot].sum() > 0.9 * red.sum() > 0


def test_located_weights_are_those_of_the_spot(told: tuple[Box, dict[str, Report]]):
    body = told[1]["pairs"].body
    assert body["located_by"] == "pairs"
    (row,) = body["located"]
    assert (row["initializer"], row["weights"]) == ("w", 2 * SIDE * SIDE * CLASSES)
    assert 1 <= row["located"] <= SPOT_PIXELS
    assert row["pairs_located"] == row["pairs"] == 18
    assert body["patch"] is None
    assert all(error["patched"] is None for error in body["errors"])


def test_a_patch_says_which_weights_and_what_it_mends(told: tuple[Box, dict[str, Report]]):
    box, report = told[0], told[1]["patch"]
    body = report.body
    assert body["located_by"] == "patch"
    weights = [
        to_array(next(t for t in onnx.load(path).graph.initializer if t.name == "w"))
        for path in (box.model, box.fixed)
    ]
    assert [r["located"] for r in body["located"]] == [int((weights[0] != weights[1]).sum())]
    assert body["patch"]["path"] == str(box.patch)
    for row in body["errors"]:
        assert row["patched"]["label"] == row["true"]
        assert row["patched"]["true"] > row["probability"]["true"]
    assert "the patched model gets 8 of the 8 shown errors right" in report.reasons


def test_classes_are_drawn_whole_and_by_the_located_weights(
    told: tuple[Box, dict[str, Report]],
):
    report = told[1]["pairs"]
    rows = {row["class"]: row for row in report.body["classes"]}
    assert set(rows) == set(range(CLASSES))
    assert [c for c, row in rows.items() if row["pictures"]["located"]] == [TARGET]
    assert rows[TARGET]["contribution"] > 10
    drawn = pixels_of(report, rows[TARGET]["pictures"]["located"]).astype(float)
    part = drawn.shape[0] // SIDE
    spot = slice(SPOT.start * part, SPOT.stop * part)
    assert drawn[spot, spot].mean() > drawn.mean() + 40
    assert rows[TARGET]["probability"] > 0.99


def test_each_picture_is_there_once_and_named_in_the_json(told: tuple[Box, dict[str, Report]]):
    report = told[1]["pairs"]
    named = [
        name
        for row in (*report.body["errors"], *report.body["classes"])
        for name in row["pictures"].values()
        if name
    ]
    assert sorted(named) == sorted(a.name for a in report.attachments)
    assert [p.group for p in report.pictures] == [a.name for a in report.attachments]
    assert len(named) == 8 * 3 + CLASSES + 1


def test_what_is_no_error_is_left_out_and_told(told: tuple[Box, dict[str, Report]]):
    report = told[1]["pairs"]
    assert report.reasons[0] == "the model gets 30 of 40 images wrong; 8 are shown"
    assert report.reasons[1].startswith("10 of the images given as errors are none")
    counts = report.body["counts"]
    assert counts == {
        "images": 40, "errors": 30, "not_errors": 10, "looked_at": 18, "unsolved": 0,
    }  # fmt: skip


def test_reports_follow_the_schema(told: tuple[Box, dict[str, Report]]):
    schema = json.loads((ROOT / "docs/report.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    for report in told[1].values():
        validator.validate(json.loads(report.to_json()))
    broken = json.loads(told[1]["pairs"].to_json())
    del broken["errors"][0]["curve"][3]["wrong"]
    with pytest.raises(jsonschema.ValidationError, match="wrong"):
        validator.validate(broken)


def test_errors_of_the_data_are_found_in_it(box: Box):
    mixed = np.concatenate([box.images, box.lit[:3]])
    labels = np.concatenate([box.labels, box.labels[:3]])
    data = DataOptions(box.npz("mixed", mixed, labels), "unit")
    report = explain(box.model, data, shown=1, device="cpu")
    (row,) = report.body["errors"]
    assert row["image"] in (40, 41)
    assert report.reasons[0] == "the model gets 2 of 43 images wrong; 1 are shown"
    assert report.body["counts"]["not_errors"] == 0
    assert report.body["errors_from"]["sha256"] == report.body["data"]["sha256"]
    assert {row["class"] for row in report.body["classes"]} == {row["true"], TARGET}


def test_unlabelled_data_do_where_errors_are_given(box: Box):
    data = DataOptions(box.npz("bare", box.images), "unit")
    few = box.npz("few", box.lit[:1], box.labels[:1])
    report = explain(box.model, data, errors=few, device="cpu")
    assert [row["image"] for row in report.body["errors"]] == [0]
    with pytest.raises(DataError, match="have no labels") as caught:
        explain(box.model, data, device="cpu")
    assert "--errors" in str(caught.value)
    with pytest.raises(DataError, match="have no labels"):
        explain(box.model, box.data, errors=box.npz("blank", box.lit), device="cpu")


def test_without_an_error_there_is_nothing_to_explain(box: Box):
    with pytest.raises(DataError, match="all 40 images right, so there is no error here"):
        explain(box.model, box.data, device="cpu")
    right = box.npz("right", box.images[:5], box.labels[:5])
    with pytest.raises(DataError, match=r"right\.npz: the model gets all 5 images right"):
        explain(box.model, box.data, errors=right, device="cpu")


@pytest.mark.parametrize(("label", "shown"), [(CLASSES, "label 4"), (-1, "label -1")])
def test_labels_that_the_model_does_not_have_are_refused(box: Box, label: int, shown: str):
    labels = box.labels.copy()
    labels[3] = label
    errors = box.npz("labels", box.lit, labels)
    with pytest.raises(DataError, match=f"image 3 has the {shown}, but the model has 4 classes"):
        explain(box.model, box.data, errors=errors, device="cpu")


def test_errors_of_another_size_are_refused(box: Box):
    errors = box.npz("large", np.zeros((4, 16, 16, 1), np.uint8), np.zeros(4, np.int64))
    with pytest.raises(DataError, match="images are 16 x 16"):
        explain(box.model, box.data, errors=errors, device="cpu")


def test_inputs_that_are_no_pictures_are_refused(tmp_path: Path):
    model = flat_file(tmp_path, (6,))
    values = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=values, y=np.arange(40) % 4)
    with pytest.raises(DataError, match="no pictures"):
        explain(model, DataOptions(tmp_path / "rows.npz", "none"), device="cpu")


def test_raw_inputs_in_the_form_of_pictures_are_refused(box: Box):
    raw = (box.images / 255).astype(np.float32).transpose(0, 3, 1, 2)
    data = DataOptions(box.npz("raw", raw, box.labels), "none")
    with pytest.raises(DataError, match="--preprocess none"):
        explain(box.model, data, errors=box.errors, device="cpu")


def test_an_input_of_whole_numbers_is_refused(tmp_path: Path):
    weight = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    nodes = [
        make("Cast", ["x"], ["c"], "cast", to=TensorProto.FLOAT),
        make("Flatten", ["c"], ["f"], "flat"),
        make("Gemm", ["f", "w"], ["y"], "dense"),
    ]
    inputs, outputs = [info("x", ["N", 1, 8, 8], TensorProto.UINT8)], [info("y", ["N", 4])]
    model = write(tmp_path, model_bytes(nodes, [tensor("w", weight)], inputs, outputs))
    np.savez(tmp_path / "val.npz", x=np.zeros((40, 8, 8, 1), np.uint8), y=np.arange(40) % 4)
    with pytest.raises(UnsupportedError, match="do not pass whole numbers"):
        explain(model, DataOptions(tmp_path / "val.npz", "uint8"), device="cpu")


def test_a_patch_of_another_model_is_refused_before_anything_is_searched(
    box: Box, monkeypatch: pytest.MonkeyPatch
):
    model = onnx.load(box.model)
    (weight,) = (t for t in model.graph.initializer if t.name == "w")
    weight.CopyFrom(from_array(to_array(weight) * 2, "w"))
    onnx.save(model, box.folder / "other.onnx")
    monkeypatch.setattr(explaining, "prepare", None)
    with pytest.raises(PatchError, match="made for another model"):
        explain(box.folder / "other.onnx", box.data, patch=box.patch, device="cpu")


def test_a_patch_without_layer_weights_shows_none_at_work(box: Box):
    diff_models(box.model, box.model, box.folder / "nothing.patch")
    report = explain(
        box.model, box.data, errors=box.errors, patch=box.folder / "nothing.patch", shown=1,
        device="cpu",
    )  # fmt: skip
    assert report.body["located"] == []
    assert report.body["located_by"] is None
    assert any("changes no weight of a layer" in reason for reason in report.reasons)
    assert report.body["errors"][0]["contribution"] is None
    assert report.body["errors"][0]["patched"]["label"] == TARGET
    assert all(row["contribution"] is None for row in report.body["classes"])


def test_nothing_is_left_of_the_patched_model(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    explain(box.model, box.data, errors=box.errors, patch=box.patch, shown=1, device="cpu")
    assert list(folder.iterdir()) == []


def test_errors_that_no_region_explains_are_counted_and_the_classes_still_drawn(
    box: Box, monkeypatch: pytest.MonkeyPatch
):
    found = explaining.companions

    def unsolved(*args: object, **more: object) -> Companions:
        made = found(*args, **more).take([])
        return type(made)(*(getattr(made, n) for n in made.__slots__[:-1]), 18)

    monkeypatch.setattr(explaining, "companions", unsolved)
    report = explain(box.model, box.data, errors=box.errors, device="cpu")
    assert (report.verdict, report.exit_code) == ("inconclusive", 3)
    assert report.body["errors"] == []
    assert len(report.body["classes"]) == CLASSES
    assert report.body["counts"]["unsolved"] == 18
    assert any("18 of 18 errors" in reason for reason in report.reasons)
    assert any("no few weights" in reason for reason in report.reasons)


def test_folders_of_errors_go_by_their_names(box: Box):
    names = ("ant", "bee", "cat", "dog")
    of = {name: [i for i in range(40) if box.labels[i] == n] for n, name in enumerate(names)}
    data = DataOptions(box.folders("val", of, box.images), "unit")
    few = {"bee": of["bee"][:2], "dog": of["dog"][:2]}
    report = explain(
        box.model, data, errors=box.folders("wrong", few, box.lit), shown=2, device="cpu"
    )
    assert sorted(row["true"] for row in report.body["errors"]) == [1, 3]
    named = {row["class"]: row["name"] for row in report.body["classes"]}
    assert named == {1: "bee", 2: "cat", 3: "dog"}
    strange = box.folders("strange", {"bee": [1], "fly": [3]}, box.lit)
    with pytest.raises(DataError, match="the folder 'fly'"):
        explain(box.model, data, errors=strange, device="cpu")


def test_folders_whose_labels_cannot_be_known_are_refused(box: Box):
    errors = box.folders("wrong", {"1": [1], "3": [3]}, box.lit)
    with pytest.raises(DataError, match="--data has no class folders"):
        explain(box.model, box.data, errors=errors, device="cpu")
    every = {str(n): [i for i in range(8) if box.labels[i] == n] for n in range(CLASSES)}
    report = explain(
        box.model, box.data, errors=box.folders("every", every, box.lit), shown=1, device="cpu"
    )
    assert report.body["errors"][0]["wrong"] == TARGET


def test_the_same_seed_tells_the_same(box: Box):
    first, again = (
        explain(box.model, box.data, errors=box.errors, shown=1, seed=3, device="cpu")
        for _ in range(2)
    )
    assert first.attachments == again.attachments
    assert first.body["errors"] == again.body["errors"]


def test_progress_goes_on_through_all_stages(box: Box):
    told: list[tuple[str, float]] = []
    explain(
        box.model, box.data, errors=box.errors, shown=1, device="cpu",
        progress=lambda what, share: told.append((what, share)),
    )  # fmt: skip
    stages = list(dict.fromkeys(what for what, _ in told))
    assert stages == [
        "searching companions", "locating error-inducing weights", "drawing what classes look like"
    ]  # fmt: skip
    for stage in stages:
        shares = [share for what, share in told if what == stage]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1.0)
