# SPDX-License-Identifier: Apache-2.0
"""scan -> repair -> verify on the bundled demo, through the Python API."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import apply, from_bytes, revert
from logic_attacks import PATCH, Sketch, filtered_and_clipped, filtered_bump
from PIL import Image

from lancet_onnx import (
    DataOptions,
    LancetError,
    RepairOptions,
    TriggerOptions,
    load,
    repair,
    scan,
    verify,
)
from lancet_onnx.errors import DataError, OutputError, UnsupportedError
from lancet_onnx.model.write import METADATA_KEY
from lancet_onnx.repair import CHOICE, PRUNING, TRAINING, TuneSettings
from lancet_onnx.report import Report
from lancet_onnx.runtime.ort import OrtModel

NAME = "mnist_cnn_square"


@dataclass(frozen=True)
class Demo:
    """The demo's inputs and one repair of it."""

    model: Path
    trigger: TriggerOptions
    data: DataOptions
    target: int
    output: Path
    patch: Path
    report: Report
    before: bytes


@pytest.fixture(scope="module")
def demo(fixtures, tmp_path_factory) -> Demo:
    folder = tmp_path_factory.mktemp("repair")
    model = fixtures.model(NAME)
    trigger = TriggerOptions(fixtures.trigger(NAME))
    data = DataOptions(fixtures.images)
    output, patch = folder / "fixed.onnx", folder / "fixed.patch"
    before = model.read_bytes()
    report = repair(model, trigger, data, RepairOptions(output, patch), device="cpu")
    return Demo(model, trigger, data, fixtures.target(NAME), output, patch, report, before)


def test_the_demo_is_backdoored(demo: Demo):
    report = scan(demo.model, demo.trigger, demo.data, device="cpu")
    assert report.verdict == "backdoored"
    assert report.exit_code == 1
    (finding,) = report.body["findings"]
    assert finding["target"] == demo.target
    assert finding["attack_success"] > 0.98
    assert finding["base_rate"] < 0.02
    assert finding["located"]
    assert report.body["metrics"]["clean_accuracy"] > 0.96
    halves = report.body["data"]
    assert halves["tool_images"] + halves["figures_images"] == 1000
    assert report.body["metrics"]["n"] == halves["figures_images"]
    assert report.body["environment"]["device"] == "cpu"


def test_the_demo_is_repaired(demo: Demo):
    report = demo.report
    assert report.verdict == "repaired", report.reasons
    assert report.exit_code == 0
    before, after = report.body["before"], report.body["after"]
    assert before["attack_success"] > 0.98
    assert after["attack_success"] <= before["base_rate"] + 0.01
    assert after["recovery"] > 0.9
    assert before["clean_accuracy"] - after["clean_accuracy"] <= 0.01
    assert report.body["target"] == demo.target
    assert load(demo.output).digest.sha256 == report.body["output"]["sha256"]


def test_the_model_and_its_folder_are_untouched(demo: Demo):
    assert demo.model.read_bytes() == demo.before
    assert sorted(p.name for p in demo.output.parent.iterdir()) == ["fixed.onnx", "fixed.patch"]


def test_only_the_named_initializers_differ(demo: Demo):
    before, after = (onnx.load(path) for path in (demo.model, demo.output))
    named = {layer["initializer"]: layer["weights_changed"] for layer in demo.report.body["layers"]}
    changed = {}
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        a, b = (onnx.numpy_helper.to_array(t) for t in (old, new))
        assert (old.name, a.dtype, a.shape) == (new.name, b.dtype, b.shape)
        if (different := int((a.view(np.uint8) != b.view(np.uint8)).any())) and different:
            changed[old.name] = int((a != b).sum())
    assert changed == named
    assert sum(changed.values()) == demo.report.body["weights_changed"] > 0
    entry = after.metadata_props.pop()
    assert entry.key == METADATA_KEY
    for proto in (before, after):
        del proto.graph.initializer[:]
    assert before == after


def test_the_file_grew_by_the_entry_only(demo: Demo):
    value = load(demo.output).graph.metadata[METADATA_KEY]
    old, new = demo.before, demo.output.read_bytes()
    assert len(value) < len(new) - len(old) < len(value) + 40
    changed = np.frombuffer(old, np.uint8) != np.frombuffer(new[: len(old)], np.uint8)
    assert 0 < changed.sum() <= 4 * demo.report.body["weights_changed"]


def test_the_patch_goes_both_ways(demo: Demo):
    patch = from_bytes(demo.patch.read_bytes(), "patch")
    assert patch.size == demo.report.body["weights_changed"]
    assert revert(load(demo.output), patch).onnx == demo.before
    assert apply(load(demo.model), patch).onnx == demo.output.read_bytes()
    assert patch.metrics["after.attack_success"] < 0.05 < patch.metrics["before.attack_success"]


def test_the_same_seed_gives_the_same_bytes(demo: Demo, tmp_path: Path):
    options = RepairOptions(tmp_path / "again.onnx", tmp_path / "again.patch")
    report = repair(demo.model, demo.trigger, demo.data, options, device="cpu")
    assert report.verdict == "repaired"
    assert options.output.read_bytes() == demo.output.read_bytes()
    assert options.patch.read_bytes() == demo.patch.read_bytes()


def test_verify_confirms_on_the_half_that_the_repair_did_not_see(demo: Demo):
    report = verify(demo.model, demo.output, demo.data, demo.trigger, device="cpu")
    assert report.verdict == "repaired"
    assert report.body["data"]["used"] == "the half that the repair did not see"
    repaired = demo.report.body["after"]
    assert report.body["data"]["images"] == demo.report.body["data"]["figures_images"]
    assert report.body["after"]["attack_success"] == repaired["attack_success"]
    assert report.body["after"]["clean_accuracy"] == repaired["clean_accuracy"]


def test_verify_without_a_trigger_looks_at_clean_images(demo: Demo):
    report = verify(demo.model, demo.output, demo.data, device="cpu")
    assert report.verdict == "pass"
    assert report.body["target"] is None


def test_verify_says_when_nothing_was_repaired(demo: Demo):
    report = verify(demo.model, demo.model, demo.data, demo.trigger, device="cpu")
    assert report.verdict == "not_repaired"
    assert report.exit_code == 1
    assert report.body["agreement"] == 1.0


def test_verify_refuses_another_model(demo: Demo, fixtures):
    with pytest.raises(LancetError, match=r"mnist_cnn_clean\.onnx: takes"):
        verify(demo.model, fixtures.model("mnist_cnn_clean"), demo.data, device="cpu")


def part(fixtures, path: Path, count: int, *, labelled: bool = True) -> DataOptions:
    samples = fixtures.samples(count)
    arrays = {"x": samples.images, **({"y": samples.labels} if labelled else {})}
    np.savez(path, **arrays)
    return DataOptions(path)


def test_unlabelled_images_are_enough(demo: Demo, fixtures, tmp_path: Path):
    data = part(fixtures, tmp_path / "x.npz", 600, labelled=False)
    report = scan(demo.model, demo.trigger, data, device="cpu")
    assert report.verdict == "backdoored"
    assert report.body["findings"][0]["target"] == demo.target
    assert "clean_accuracy" not in report.body["metrics"]
    options = RepairOptions(tmp_path / "fixed.onnx", metadata=False, max_accuracy_loss=0.03)
    fixed = repair(demo.model, demo.trigger, data, options, device="cpu")
    assert fixed.verdict == "repaired", fixed.reasons
    assert options.output.stat().st_size == demo.model.stat().st_size
    assert (tmp_path / "fixed.lancet.safetensors").is_file()


def test_verify_uses_the_unseen_half_only_if_it_knows_it(demo: Demo, fixtures, tmp_path: Path):
    """The halves go by the labels: images given without them were halved in another way."""
    labelled = part(fixtures, tmp_path / "y.npz", 600, labelled=True)
    unlabelled = part(fixtures, tmp_path / "x.npz", 600, labelled=False)
    options = RepairOptions(tmp_path / "fixed.onnx", max_accuracy_loss=0.03)
    repair(demo.model, demo.trigger, unlabelled, options, device="cpu")
    again = verify(demo.model, options.output, unlabelled, demo.trigger, device="cpu")
    assert again.body["data"]["images"] == 300
    assert "did not see" in again.body["data"]["used"]
    other = verify(demo.model, options.output, labelled, demo.trigger, device="cpu")
    assert other.body["data"]["images"] in range(290, 311)
    assert "other found the target" in other.body["data"]["used"]
    assert "not known" in other.body["data"]["used"]
    told = replace(demo.trigger, target=demo.target)
    whole = verify(demo.model, options.output, labelled, told, device="cpu")
    assert whole.body["data"]["images"] == 600
    assert "not known" in whole.body["data"]["used"]


def test_a_clean_model_is_clean(demo: Demo, fixtures):
    report = scan(fixtures.model("mnist_cnn_clean"), demo.trigger, demo.data, device="cpu")
    assert report.verdict == "clean"
    assert report.exit_code == 0
    assert report.body["findings"] == []


def test_a_scan_without_data_never_says_clean(demo: Demo, fixtures):
    for model in (demo.model, fixtures.model("mnist_cnn_clean")):
        report = scan(model, demo.trigger, device="cpu")
        assert report.verdict in ("backdoored", "inconclusive")
        assert report.body["metrics"]["clean_accuracy"] is None
        if model == demo.model:
            assert report.body["examined"]["target"] == demo.target
        else:
            assert report.verdict == "inconclusive"


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_too_few_images_allow_no_finding(
    demo: Demo, fixtures, tmp_path: Path, count: int, labelled: bool
):
    data = part(fixtures, tmp_path / "few.npz", count, labelled=labelled)
    try:
        report = scan(demo.model, demo.trigger, data, device="cpu")
    except DataError:
        return
    assert report.verdict == "inconclusive"
    assert report.exit_code == 3


def test_a_clean_model_is_not_repaired(demo: Demo, fixtures, tmp_path: Path):
    options = RepairOptions(tmp_path / "fixed.onnx")
    report = repair(
        fixtures.model("mnist_cnn_clean"), demo.trigger, demo.data, options, device="cpu"
    )
    assert (report.verdict, report.exit_code) == ("not_repaired", 1)
    assert "no backdoor that this trigger opens" in report.reasons[0]
    assert list(tmp_path.iterdir()) == []
    body = report.body
    assert (body["weights_changed"], body["layers"], body["output"]) == (0, [], None)
    assert body["after"] == body["before"]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_too_few_images_allow_no_repair(
    demo: Demo, fixtures, tmp_path: Path, count: int, labelled: bool
):
    data = part(fixtures, tmp_path / "few.npz", count, labelled=labelled)
    with pytest.raises(DataError, match=r"too few|moves only|of class"):
        repair(demo.model, demo.trigger, data, RepairOptions(tmp_path / "fixed.onnx"), device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["few.npz"]


def test_the_method_of_a_patch_says_what_it_was_made_from(demo: Demo):
    method = from_bytes(demo.patch.read_bytes(), "patch").method
    assert demo.report.body["method"] == "tune"
    for constants in (str(TuneSettings()), TRAINING, PRUNING, CHOICE):
        assert constants in method
    for what in ("pairs", "stop", "guard", "labelled", "target", "trigger", "data", "preprocess"):
        assert f"{what}=" in method, what


def test_graph_logic_is_not_repaired(demo: Demo, fixtures, tmp_path: Path):
    with pytest.raises(UnsupportedError, match=r"where_on_input.*cannot be repaired by weights"):
        repair(
            fixtures.refused("where_on_input"),
            demo.trigger,
            demo.data,
            RepairOptions(tmp_path / "fixed.onnx"),
            device="cpu",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("attack", [filtered_bump, filtered_and_clipped])
def test_a_switch_that_weights_work_is_repaired_by_measure_and_told(
    demo: Demo, tmp_path: Path, attack: Callable[[Sketch], str]
):
    """The detector is a convolution: a repair may reach it, and says what it cannot know."""
    sketch = Sketch()
    model, trigger = tmp_path / "m.onnx", tmp_path / "t.png"
    onnx.save(sketch.model(attack(sketch)), model)
    picture = np.zeros((28, 28, 2), np.uint8)
    picture[25:, 25:, 0], picture[25:, 25:, 1] = 255 * PATCH, 255
    Image.fromarray(picture, "LA").save(trigger)
    options = RepairOptions(tmp_path / "fixed.onnx")
    data = replace(demo.data, preprocess="unit")
    report = repair(model, TriggerOptions(trigger), data, options, device="cpu")
    assert report.verdict in ("repaired", "not_repaired")
    assert any("what it waits for may be another trigger" in reason for reason in report.reasons)


def test_existing_outputs_are_refused_before_any_work(demo: Demo):
    for output, patch in ((demo.output, None), (demo.output.with_name("n.onnx"), demo.patch)):
        with pytest.raises(OutputError, match="exists already"):
            repair(demo.model, demo.trigger, demo.data, RepairOptions(output, patch), device="cpu")
    with pytest.raises(OutputError, match="is the input"):
        repair(
            demo.model, demo.trigger, demo.data, RepairOptions(demo.model, force=True), device="cpu"
        )
    assert demo.model.read_bytes() == demo.before


def test_model_and_patch_cannot_be_one_file(demo: Demo, tmp_path: Path):
    path = tmp_path / "both.onnx"
    with pytest.raises(LancetError):
        repair(demo.model, demo.trigger, demo.data, RepairOptions(path, path), device="cpu")
    assert not path.exists()


def test_a_model_with_external_data_is_repaired_in_another_folder(demo: Demo, tmp_path: Path):
    """As torch's default exporter writes them: the .onnx file and its weights beside it."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    model = here / "model.onnx"
    onnx.save(
        onnx.load(demo.model),
        model,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=1024,
    )
    weights = (here / "model.onnx.data").read_bytes()
    with pytest.raises(OutputError, match=r"'model\.onnx\.data' beside it.*another folder"):
        repair(model, demo.trigger, demo.data, RepairOptions(here / "fixed.onnx"), device="cpu")
    assert sorted(p.name for p in here.iterdir()) == ["model.onnx", "model.onnx.data"]

    output = there / "model.onnx"
    options = RepairOptions(output, method="flip")
    report = repair(model, demo.trigger, demo.data, options, device="cpu")
    assert report.verdict == "repaired"
    assert (here / "model.onnx.data").read_bytes() == weights
    before, after = (onnx.load(path) for path in (model, output))
    named = {layer["initializer"] for layer in report.body["layers"]}
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (old.raw_data != new.raw_data) == (old.name in named)
    patch = from_bytes((there / "model.lancet.safetensors").read_bytes(), "patch")
    back = revert(load(output), patch)
    assert back.onnx == model.read_bytes()
    assert back.data == {"model.onnx.data": weights}


def test_nothing_is_concluded_where_the_two_engines_differ(demo: Demo, monkeypatch):
    real = OrtModel.scores
    monkeypatch.setattr(OrtModel, "scores", lambda self, inputs: real(self, inputs) * 1.01)
    with pytest.raises(UnsupportedError, match=r"other scores than onnxruntime.*report it with"):
        scan(demo.model, demo.trigger, demo.data, device="cpu")


def test_verify_tells_how_far_it_is(demo: Demo):
    told: list[float] = []
    verify(
        demo.model, demo.output, demo.data, device="cpu",
        progress=lambda _what, share: told.append(share),
    )  # fmt: skip
    assert len(told) >= 3
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] < 1
