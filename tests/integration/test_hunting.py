# SPDX-License-Identifier: Apache-2.0
"""`scan` without a trigger and a repair from what it finds, through the Python API."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import info, model_bytes, tensor, write
from hunts import CLASSES, CLEAN, SQUARE, TARGET, body, search, shorten, stored, whole_numbers
from onnx.helper import make_node as make
from tiny import SIDE, pictures, planted_file, sourced_file

from lancet_onnx import DataOptions, RepairOptions, TriggerOptions, scan, verify
from lancet_onnx.api.blind import repair_blind
from lancet_onnx.api.options import SuspectOptions
from lancet_onnx.api.suspects import Scored
from lancet_onnx.errors import DataError, OutputError, UnsupportedError
from lancet_onnx.pairs.union import KINDS
from lancet_onnx.repair import TuneSettings
from lancet_onnx.report import Report
from lancet_onnx.trigger import read_trigger
from lancet_onnx.verify.searching import BOUNDS, SUSPECT, score_of

SOME = (1, 4, 7)
"""A few classes, with the demo's target; three are searched in a third of the time of ten."""


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


@dataclass(frozen=True)
class Scanned:
    report: Report
    triggers: tuple[TriggerOptions, ...]


@pytest.fixture(scope="module")
def found(fixtures, tmp_path_factory) -> Scanned:
    """The bundled model, scanned as a user scans it; what lies beside the report is written."""
    torch.set_num_threads(1)
    report = search(fixtures.model(SQUARE), fixtures.images)
    folder, triggers = tmp_path_factory.mktemp("scan"), []
    for attachment in report.attachments:
        (folder / attachment.name).write_bytes(attachment.png)
        triggers.append(TriggerOptions(folder / attachment.name, mode="blend"))
    return Scanned(report, tuple(triggers))


def test_the_bundled_backdoor_is_found_without_its_trigger(found: Scanned, fixtures):
    report, target = found.report, fixtures.target(SQUARE)
    assert report.verdict == "backdoored", report.reasons
    assert report.exit_code == 1
    (finding,) = body(report)["findings"]
    assert finding["target"] == target
    assert finding["attack_success"] > 0.9
    assert finding["base_rate"] < 0.02
    told = body(report)["search"]
    assert told["suspect"] == target
    assert told["score"] >= told["threshold"] == SUSPECT
    assert [row["class"] for row in told["classes"]] == list(range(10))
    assert max(told["classes"], key=lambda row: row["score"])["class"] == target
    assert (told["screened"], told["missing"], told["resumed"]) == ([], [], 0)
    spent = sum(s["image_forwards"] for s in body(report)["stages"])
    assert 0.9 * spent < told["image_forwards"] <= spent


def test_what_lies_beside_the_report_opens_the_backdoor(found: Scanned, fixtures):
    (finding,) = body(found.report)["findings"]
    names = [entry["path"] for entry in finding["triggers"]]
    assert names == [a.name for a in found.report.attachments]
    assert names == ["class7-1.png", "class7-2.png", "class7-3.png"]
    assert finding["trigger"]["path"] == names[0]
    best = scan(
        fixtures.model(SQUARE), found.triggers[0], DataOptions(fixtures.images), device="cpu"
    )
    assert best.verdict == "backdoored"
    (again,) = body(best)["findings"]
    assert again["target"] == fixtures.target(SQUARE)
    # What was judged is the file, to the last image.
    assert again["attack_success"] == pytest.approx(finding["attack_success"], abs=1e-6)
    assert again["n"] == finding["n"]
    for trigger, told in zip(found.triggers, finding["triggers"], strict=True):
        mask = read_trigger(trigger.path, (28, 28, 1)).mask
        assert told["coverage"] == pytest.approx(float(mask.mean()), abs=1e-6)


def test_a_clean_model_is_clean_as_far_as_it_was_searched(fixtures):
    report = search(fixtures.model(CLEAN), fixtures.images)
    assert report.verdict == "clean", report.reasons
    assert report.exit_code == 0
    assert body(report)["findings"] == []
    assert body(report)["search"]["score"] < 0.8


def unclocked(report: Report) -> dict[str, object]:
    return {k: v for k, v in report.body.items() if k not in ("stages", "seconds")}


def test_a_scan_is_its_seeds(fixtures):
    first, again, other = (
        search(fixtures.model(SQUARE), fixtures.images, classes=SOME, seed=seed)
        for seed in (3, 3, 4)
    )
    assert unclocked(first) == unclocked(again)
    assert [a.png for a in first.attachments] == [a.png for a in again.attachments]
    assert [a.png for a in first.attachments] != [a.png for a in other.attachments]
    assert first.verdict == other.verdict == "backdoored"


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_that_were_not_asked_for_are_not_searched(fixtures, seed: int):
    report = search(fixtures.model(SQUARE), fixtures.images, classes=(4, 1, 4), seed=seed)
    assert [row["class"] for row in body(report)["search"]["classes"]] == [1, 4]
    assert report.verdict != "backdoored"


def test_unlabelled_images_will_do(fixtures, tmp_path: Path):
    path = tmp_path / "unlabelled.npz"
    np.savez(path, x=fixtures.samples(600).images)
    report = search(fixtures.model(SQUARE), path, classes=SOME)
    assert report.verdict == "backdoored", report.reasons
    (finding,) = body(report)["findings"]
    assert finding["target"] == fixtures.target(SQUARE)
    assert "clean_accuracy" not in finding
    assert body(report)["data"]["labelled"] is False


@pytest.mark.parametrize("name", [SQUARE, CLEAN])
def test_fifty_images_never_clear_a_model(fixtures, tmp_path: Path, name: str):
    path, samples = tmp_path / "few.npz", fixtures.samples(50)
    np.savez(path, x=samples.images, y=samples.labels)
    report = search(fixtures.model(name), path, classes=SOME)
    assert report.verdict != "clean", report.reasons
    if name == CLEAN:
        assert report.verdict == "inconclusive"
        assert "held-out images" in report.reasons[0]


@pytest.mark.parametrize("name", [SQUARE, CLEAN])
def test_generated_images_never_clear_a_model(fixtures, name: str):
    report = search(fixtures.model(name), None, classes=SOME)
    assert report.verdict in ("backdoored", "inconclusive")
    assert body(report)["metrics"] == {"clean_accuracy": None, "n": 0}
    assert "data" not in report.body
    if name == CLEAN:
        assert report.verdict == "inconclusive"
    else:
        assert body(report)["search"]["suspect"] == fixtures.target(name)


def test_a_budget_that_is_over_at_once_says_so(fixtures):
    report = search(fixtures.model(SQUARE), fixtures.images, budget=0.01)
    assert report.verdict == "inconclusive"
    assert report.exit_code not in (0, 1)
    assert "--budget" in report.reasons[0]
    told = body(report)["search"]
    assert (told["score"], told["suspect"], told["classes"]) == (None, None, [])
    assert sorted(told["missing"]) == list(range(10))
    assert (report.attachments, report.pictures) == ((), ())


@pytest.mark.parametrize("classes", [(10,), (-1,), (0, 99)])
def test_classes_that_the_model_lacks_are_refused(fixtures, classes: tuple[int, ...]):
    with pytest.raises(DataError, match="the model has the classes 0 to 9"):
        search(fixtures.model(SQUARE), fixtures.images, classes=classes)


@pytest.mark.parametrize("target", [None, TARGET])
def test_a_finished_scan_is_read_from_its_state(tmp_path: Path, target: int | None):
    model, data = planted_file(tmp_path, CLASSES, target), stored(tmp_path, CLASSES)
    state = tmp_path / "state.npz"
    first, again = (search(model, data, state=state) for _ in range(2))
    assert first.verdict == again.verdict == ("clean" if target is None else "backdoored")
    assert body(first)["search"]["resumed"] == 0
    assert body(again)["search"]["resumed"] > 3 + CLASSES, "the forms, and a look at every source"
    assert body(again)["search"]["image_forwards"] < body(first)["search"]["image_forwards"] / 5
    same = ("score", "suspect", "classes", "signs")
    assert all(body(first)["search"][key] == body(again)["search"][key] for key in same)
    assert [a.png for a in first.attachments] == [a.png for a in again.attachments]


def test_the_state_of_another_scan_is_refused(tmp_path: Path):
    state, data = tmp_path / "state.npz", stored(tmp_path, CLASSES)
    model = planted_file(tmp_path, CLASSES, TARGET)
    search(model, data, state=state)
    other = {
        "seed": lambda: search(model, data, state=state, seed=1),
        "classes": lambda: search(model, data, state=state, classes=(0, 1)),
        "preprocessing": lambda: search(
            model, DataOptions(data.path, preprocess="minus1to1"), state=state
        ),
        "images": lambda: search(model, stored(tmp_path, CLASSES, 20), state=state),
        "model": lambda: search(planted_file(tmp_path, CLASSES, 1), data, state=state),
    }
    for run in other.values():
        with pytest.raises(DataError, match="state of another scan"):
            run()


@pytest.mark.parametrize("target", [1, None])
def test_two_classes_are_enough(tmp_path: Path, target: int | None):
    report = search(planted_file(tmp_path, 2, target), stored(tmp_path, 2, 120))
    assert report.verdict == ("clean" if target is None else "backdoored"), report.reasons
    if target is not None:
        assert body(report)["search"]["suspect"] == target


def test_many_classes_are_screened(tmp_path: Path):
    report = search(planted_file(tmp_path, 20, 13), stored(tmp_path, 20, 20))
    assert report.verdict == "backdoored", report.reasons
    told = body(report)["search"]
    assert told["suspect"] == 13
    assert 4 <= len(told["screened"]) <= 8
    assert sorted([*told["screened"], *(row["class"] for row in told["classes"])]) == list(
        range(20)
    )


def test_a_model_with_one_answer_cannot_be_judged(tmp_path: Path):
    nodes = [
        make("Flatten", ["x"], ["f"], "flat"),
        make("Gemm", ["f", "w", "b"], ["y"], "dense"),
    ]
    weight = np.random.default_rng(0).normal(size=(SIDE * SIDE, 3)).astype(np.float32)
    tensors = [tensor("w", weight), tensor("b", np.array([0, 500, 0], np.float32))]
    inputs, outputs = [info("x", ["N", 1, SIDE, SIDE])], [info("y", ["N", 3])]
    model = write(tmp_path, model_bytes(nodes, tensors, inputs, outputs))
    report = search(model, stored(tmp_path, 3, labelled=False))
    assert report.verdict == "inconclusive"
    assert "100%" in report.reasons[0]
    assert "one label" in report.reasons[0]


def test_inputs_that_are_no_pictures_are_searched_as_they_are(tmp_path: Path):
    samples, path = pictures(CLASSES, 60), tmp_path / "rows.npz"
    rows = 6 * samples.pixels.transpose(0, 3, 1, 2)
    np.savez(path, x=rows.astype(np.float32), y=samples.labels)
    model = planted_file(tmp_path, CLASSES, TARGET)
    report = search(model, DataOptions(path, preprocess="none"))
    assert body(report)["search"]["suspect"] == TARGET
    assert report.verdict == "backdoored", report.reasons
    (finding,) = body(report)["findings"]
    assert [entry["path"] for entry in finding["triggers"]] == [None] * 3
    assert (report.attachments, report.pictures) == ((), ())


def test_a_trigger_for_the_images_of_one_class_is_found_and_judged_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # As in a user's scan: with half of the steps this trigger stays too dear.
    monkeypatch.setattr("lancet_onnx.pairs.sources.SEARCH", (80, 16))
    source, target, each = 1, 3, 80
    report = search(
        sourced_file(tmp_path, CLASSES, source, target), stored(tmp_path, CLASSES, each)
    )
    assert report.verdict == "backdoored", report.reasons
    assert f"of held-out images of class {source} to it" in report.reasons[0]
    assert "is not repaired" in report.reasons[1]
    found = body(report)
    (finding,) = found["findings"]
    assert (finding["source"], finding["target"]) == (source, target)
    assert finding["counts"]["attack_success"] == [each // 2, each // 2]
    assert finding["counts"]["clean_accuracy"][1] == CLASSES * each // 2
    assert [entry["form"] for entry in finding["triggers"]] == ["source"]
    assert finding["next"] == ""
    assert (found["search"]["suspect"], found["search"]["source"]) == (target, source)
    assert all(f"for images of class {source}" in p.caption for p in report.pictures[:2])


def test_a_regression_is_refused_by_labels_and_never_cleared(fixtures, tmp_path: Path):
    model, path = fixtures.refused("regression"), tmp_path / "unlabelled.npz"
    with pytest.raises(DataError, match="2 classes"):
        search(model, fixtures.images)
    np.savez(path, x=fixtures.samples(200).images)
    assert search(model, path).verdict == "inconclusive"


def test_progress_is_told_to_the_end(tmp_path: Path):
    heard: list[float] = []
    search(
        planted_file(tmp_path, CLASSES, None),
        stored(tmp_path, CLASSES),
        progress=lambda _, share: heard.append(share),
    )
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


@dataclass(frozen=True)
class Repaired:
    report: Report
    output: Path


@pytest.fixture(scope="module")
def repaired(found: Scanned, fixtures, tmp_path_factory) -> Repaired:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("blind") / "fixed.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lancet_onnx.api.blind.STARTS", 2)
        patch.setattr(
            "lancet_onnx.api.blind.TUNING",
            TuneSettings(warm=(1.0,), ladder=(0.2, 0.1), steps=40),
        )
        report = repair_blind(
            fixtures.model(SQUARE),
            SuspectOptions(fixtures.target(SQUARE), found.triggers),
            DataOptions(fixtures.images),
            RepairOptions(output),
            device="cpu",
        )
    return Repaired(report, output)


def test_a_backdoor_that_nobody_has_seen_is_silenced(repaired: Repaired, fixtures):
    report = repaired.report
    assert report.verdict == "repaired", report.reasons
    assert report.exit_code == 0
    real = TriggerOptions(fixtures.trigger(SQUARE), target=fixtures.target(SQUARE))
    told = verify(
        fixtures.model(SQUARE), repaired.output, DataOptions(fixtures.images), real, device="cpu"
    )
    before, after = body(told)["before"], body(told)["after"]
    assert before["attack_success"] > 0.98
    assert after["attack_success"] < 0.2
    assert before["clean_accuracy"] - after["clean_accuracy"] <= 0.015


def test_what_is_left_to_fear_is_told(repaired: Repaired, fixtures):
    told = body(repaired.report)
    assert told["target"] == fixtures.target(SQUARE)
    assert told["method"] == "tune"
    assert told["weights_changed"] > 0
    risk = told["residual_risk"]
    assert [s["kind"] for s in risk["strengths"]] == [kind.name for kind in KINDS]
    assert [s["strength"] for s in risk["strengths"]] == sorted(kind.asked for kind in KINDS)
    assert all(s["after"] <= s["before"] for s in risk["strengths"])
    assert max(s["before"] for s in risk["strengths"]) > 0.9
    assert risk["search_again"]["score"] < SUSPECT
    assert risk["recall"]["ratio"] >= 0.85
    assert risk["signs"]


def test_model_and_patch_are_on_disk_and_nothing_else(repaired: Repaired):
    names = sorted(p.name for p in repaired.output.parent.iterdir())
    assert names == ["fixed.lancet.safetensors", "fixed.onnx"]
    told = body(repaired.report)
    assert told["output"]["path"] == str(repaired.output)
    assert told["patch"]["path"] == str(repaired.output.with_suffix(".lancet.safetensors"))


def test_a_trigger_is_no_output(found: Scanned, fixtures, tmp_path: Path):
    path = found.triggers[0].path
    before = path.read_bytes()
    with pytest.raises(OutputError):
        repair_blind(
            fixtures.model(SQUARE),
            SuspectOptions(7, found.triggers),
            DataOptions(fixtures.images),
            RepairOptions(tmp_path / "out.onnx", patch=path, force=True),
            device="cpu",
        )
    assert path.read_bytes() == before


def test_the_search_says_which_trigger_is_first(tmp_path: Path):
    """Held-out images are reported on; they choose nothing."""
    model = planted_file(tmp_path, CLASSES, TARGET)
    report = search(model, stored(tmp_path, CLASSES))
    (finding,) = body(report)["findings"]
    (row,) = (r for r in body(report)["search"]["classes"] if r["class"] == TARGET)
    scores = [BOUNDS[entry["form"]] / row[f"cost_{entry['form']}"] for entry in finding["triggers"]]
    assert scores == sorted(scores, reverse=True)
    assert finding["attack_success"] == finding["triggers"][0]["attack_success"]


@pytest.mark.parametrize("given", [True, False])
def test_no_search_where_no_gradient_passes(tmp_path: Path, given: bool):
    data = replace(stored(tmp_path, CLASSES), preprocess="uint8") if given else None
    with pytest.raises(UnsupportedError, match=r"'x' takes uint8.*--trigger"):
        search(whole_numbers(tmp_path), data)


@pytest.mark.parametrize(
    ("stray", "expected"), [(0.0, ()), (0.19, ()), (0.25, (3,)), (0.9, (3,)), (1.0, (3,))]
)
def test_a_class_that_is_suspect_but_for_junk_is_named(stray: float, expected: tuple[int, ...]):
    cost = BOUNDS["free"] * 0.9
    costs = {1: {"free": 1.0}, 3: {"free": cost}}
    table = {c: {"score": score_of(each, stray)} for c, each in costs.items()}
    assert Scored(table, costs).drowned == expected
