# SPDX-License-Identifier: Apache-2.0
"""The comparison of repair methods: what each baseline does in two steps, tables and plot."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from builders import info, model_bytes, open_bytes, tensor
from onnx.helper import make_node as make

from lancet_onnx.api.options import TriggerOptions
from lancet_onnx.api.subject import Subject, read_trigger_for
from lancet_onnx.errors import LancetError
from lancet_onnx.repair import to_patch
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import find_layers

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench import baselines, baselines_blind  # noqa: E402
from tests.bench.baselines import Setting, published_layer, random_weights, trainable  # noqa: E402
from tests.bench.compare import Job, find_cases, run_job  # noqa: E402
from tests.bench.compare_plot import MARKERS, plot  # noqa: E402
from tests.bench.compare_runs import FUNCTIONS, Bench, Case  # noqa: E402
from tests.bench.compare_table import (  # noqa: E402
    BASELINES,
    TOOL,
    Summary,
    meets_both,
    per_model,
    read_lines,
    tables,
)

IMAGES = 100
TWO_STEPS = 3_400
"""Enough for two steps of the dearest method and what it does before them."""


def setting_of(fixtures, name: str) -> tuple[Subject, Setting]:
    subject = Subject.open(fixtures.model(name), "cpu")
    samples = fixtures.samples(IMAGES)
    mode = fixtures.manifest[name]["trigger_mode"]
    options = TriggerOptions(fixtures.trigger(name), mode=mode)
    stamped = read_trigger_for(subject, options, None, samples).stamp(samples)
    clean, bad = (
        torch.from_numpy(np.ascontiguousarray(s.pixels.transpose(0, 3, 1, 2)))
        for s in (samples, stamped)
    )
    labels = torch.from_numpy(samples.labels)
    start = subject.classifier.forwards
    target = fixtures.target(name)
    return subject, Setting(subject.classifier, clean, bad, labels, target, 0, TWO_STEPS, 30, start)


@pytest.fixture
def cnn(fixtures) -> tuple[Subject, Setting]:
    return setting_of(fixtures, "mnist_cnn_square")


@pytest.fixture
def resnet(fixtures) -> tuple[Subject, Setting]:
    return setting_of(fixtures, "mnist_resnet_scattered")


def changed(subject: Subject, leaves: dict[Any, torch.Tensor]) -> int:
    return to_patch(subject.model, leaves, "test", 0, {}).size


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_changes_weights_within_its_budget(cnn, monkeypatch, method: str):
    subject, setting = cnn
    last = find_layers(setting.classifier)[-1].param
    monkeypatch.setattr(baselines, "published_layer", lambda _: last)
    dear = method in ("i-bau", "fine-pruning")
    setting = replace(setting, budget=TWO_STEPS if dear else 700)
    before = {name: leaf.clone() for name, leaf in setting.classifier.module.leaves.items()}
    leaves = FUNCTIONS[method](setting)
    assert setting.spent <= setting.budget
    assert changed(subject, leaves) or method == "clp"
    for name, leaf in leaves.items():
        assert leaf.shape == before[name].shape
    assert all(torch.equal(before[n], t) for n, t in setting.classifier.module.leaves.items())


def test_every_method_has_a_function_a_row_and_a_marker():
    assert list(FUNCTIONS) == list(BASELINES)
    assert list(MARKERS) == [*TOOL, *BASELINES]


def test_random_flip_turns_as_many_signs_as_asked(cnn):
    subject, setting = cnn
    leaves = baselines.random_flip(setting)
    for name, leaf in leaves.items():
        old = setting.classifier.module.leaves[name]
        moved = leaf != old
        assert torch.equal(leaf[moved], -old[moved])
    assert changed(subject, leaves) == setting.count
    again = random_weights(setting)
    assert sum(int(mask.sum()) for mask in again.values()) == setting.count


def test_random_tune_keeps_to_its_mask(cnn):
    _, setting = cnn
    masks = random_weights(setting)
    for name, leaf in baselines.random_tune(setting).items():
        old = setting.classifier.module.leaves[name]
        assert torch.equal(leaf[~masks[name]], old[~masks[name]])


def test_normalisations_are_trained_but_not_their_statistics(resnet):
    _, setting = resnet
    names = set(trainable(setting.classifier))
    assert {"norm.weight", "norm.bias", "head.bias", "stem.weight"} <= names
    assert not any("running" in name for name in names)


def test_the_published_location_chooses_a_layer(cnn):
    _, setting = cnn
    assert published_layer(setting) in {n.param for n in find_layers(setting.classifier)}


def test_what_fine_pruning_prunes_stays_zero(cnn):
    _, setting = cnn
    leaves = baselines_blind.fine_pruning(setting)
    last = [n for n in find_layers(setting.classifier) if n.node.op_type == "Conv"][-1]
    assert (leaves[last.param].flatten(1).abs().amax(1) == 0).any()


def test_clp_prunes_the_channel_that_stands_out_with_its_normalisation(tmp_path: Path, rng):
    scale = np.ones(16, np.float32)
    scale[3] = 1e3  # the kernels are alike: the normalisation makes the channel stand out
    arrays = {"g": scale, "b": scale, "m": 0 * scale, "v": scale**0}
    arrays |= {"w": rng.normal(size=(16, 2, 3, 3)), "fc": rng.normal(size=(16, 3))}
    nodes = [
        make("Conv", ["x", "w"], ["c"], "conv"),
        make("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"], "norm"),
        make("Relu", ["n"], ["r"], "relu"),
        make("GlobalAveragePool", ["r"], ["p"], "pool"),
        make("Flatten", ["p"], ["f"], "flatten"),
        make("MatMul", ["f", "fc"], ["y"], "fc"),
    ]
    tensors = [tensor(name, array.astype(np.float32)) for name, array in arrays.items()]
    data = model_bytes(nodes, tensors, [info("x", ["N", 2, 6, 6])], [info("y", ["N", 3])])
    classifier = Classifier(open_bytes(tmp_path, data).graph)
    none = torch.zeros(0)
    found = baselines_blind.clp(Setting(classifier, none, none, none, 0, 0, 0, 0, 0))
    assert found.keys() == {"w", "g", "b"}  # without the shift a muted channel would say its mean
    for leaf in found.values():
        assert [int(n) for n in (leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None]).any(1)] == [
            int(channel != 3) for channel in range(16)
        ]


def test_numbers_that_are_not_finite_are_not_written(cnn):
    subject, setting = cnn
    name, leaf = next(iter(setting.classifier.module.leaves.items()))
    with pytest.raises(LancetError, match="NaN or infinity"):
        changed(subject, {name: leaf * float("nan")})


def test_a_job_appends_a_line_for_each_method(fixtures, tmp_path: Path):
    entry = fixtures.manifest["mnist_cnn_square"]
    case = Case(ROOT, {**entry, "model": entry["path"], "data": entry["images"]})
    results = tmp_path / "results.jsonl"
    run_job(Job(case, ("random-flip", "unlearning"), results, 1_000, 0))
    (line,) = read_lines(results)
    assert line["method"] == "unlearning"
    assert 0 < line["trigger_share"] < 0.2
    assert line["excess"] == pytest.approx(line["attack_success"] - line["base_rate"])
    assert 0 < line["weights_changed"] <= line["weights_total"]
    assert line["attack_before"] > 0.9
    with results.open("a") as file:
        file.write(json.dumps({**line, "method": "auto", "weights_changed": 30}) + "\n")
    run_job(Job(case, ("random-flip",), results, 1_000, 0))
    assert read_lines(results)[-1]["weights_changed"] == 30


def test_only_backdoored_models_of_the_known_attacks_are_taken(tmp_path: Path):
    entries = [
        {"name": "a", "backdoored": True, "target": 1},
        {"name": "b", "backdoored": True, "target": 1, "attack": "spread"},
        {"name": "c", "backdoored": True, "target": 1, "attack": "warp"},
        {"name": "d", "backdoored": True, "target": None},
        {"name": "e", "backdoored": False, "target": None},
    ]
    (tmp_path / "cases.json").write_text(json.dumps(entries))
    assert [case.name for case in find_cases([tmp_path], [])] == ["a", "b"]
    assert [case.name for case in find_cases([tmp_path], ["b"])] == ["b"]
    assert [case.name for case in find_cases([tmp_path], [], ["b"])] == ["a"]


def test_figures_are_of_further_images_where_there_are(fixtures, tmp_path: Path):
    entry = fixtures.manifest["mnist_cnn_square"]
    entry = {**entry, "model": entry["path"], "data": entry["images"]}
    half = Bench.open(Case(ROOT, entry), 0)
    further = fixtures.samples(IMAGES)
    np.savez(tmp_path / "more.npz", x=further.images, y=further.labels)
    bench = Bench.open(Case(ROOT, {**entry, "unseen": str(tmp_path / "more.npz")}), 0)
    assert np.array_equal(bench.split.figures.images, further.images)
    assert len(half.split.figures) != IMAGES
    assert np.array_equal(bench.split.tool.images, half.split.tool.images)


def made_up(model: str, method: str, excess: float, change: float, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "method": method,
        "trigger_share": 0.02,
        "verdict": "repaired",
        "attack_before": 1.0,
        "attack_success": excess + 0.01,
        "base_rate": 0.01,
        "excess": excess,
        "accuracy_before": 0.9,
        "accuracy_after": 0.9 + change,
        "accuracy_change": change,
        "recovery": 0.8,
        "counts": {"attack_success": [9, 900], "clean_accuracy": [900, 1000]},
        "intervals": {"attack_success": [0.0, 0.02], "clean_accuracy": [0.88, 0.92]},
        "weights_changed": 50,
        "weights_total": 10_000,
        "seconds": 3.21,
        "image_forwards": 12_345,
        **more,
    }


LINES = [
    made_up("m1", "auto", 0.0, -0.002),
    made_up("m2", "auto", 0.04, -0.03, verdict="not_repaired", recovery=0.6),
    made_up("m3", "auto", -0.001, 0.0, trigger_share=0.31, recovery=0.1),
    made_up("m1", "fine-tune", 0.95, 0.001, recovery=0.0),
    {"model": "m2", "method": "clp", "trigger_share": 0.02, "error": "ValueError: no convolution"},
]


def test_the_tables_say_what_the_lines_say():
    text = tables(LINES)
    (row,) = [r for r in text.splitlines() if r.startswith("| **auto** |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["trigger", "3"]
    assert cells[3].startswith("+1.3 [")
    assert cells[3].endswith("] / +0.0 / +4.0")
    assert cells[4].endswith("/ -0.2 / -3.0")
    assert cells[5].startswith("70.0 [")  # the large trigger is left out
    assert cells[5].endswith("/ 60.0")
    assert cells[6] == "2 of 3"
    assert "| auto | 50 (0.50%) | 3.2 | 12,345 |" in text
    assert "| auto | 3 | 1 | 2 | 0 |" in text
    assert "- m2, clp: ValueError: no convolution" in text
    assert "| fine-tune | blind | 1 |" in text


def test_the_table_of_one_method_has_a_row_a_model():
    rows = per_model(LINES, "auto").splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| m1", "| m2", "| m3"]
    assert "90.0% -> 87.0% of 1000" in rows[1]
    assert "-" in per_model([], "auto")


def test_an_interval_holds_the_mean_and_is_the_same_each_time():
    values = [0.0, 0.1, 0.02, 0.4]
    one, two = Summary.of(values, max), Summary.of(values, max)
    assert one == two
    assert one.low < one.mean < one.high
    assert one.worst == 0.4
    assert "-0.0" not in Summary.of([-0.0001], max).points("+")


@pytest.mark.parametrize(
    ("excess", "change", "good"),
    [(0.02, -0.01, True), (0.0201, 0.0, False), (0.0, -0.0101, False), (-0.01, 0.1, True)],
)
def test_both_targets_are_inclusive(excess: float, change: float, good: bool):
    assert meets_both(made_up("m", "auto", excess, change)) is good


@pytest.mark.parametrize("lines", [LINES, LINES[:1], []])
def test_the_plot_is_valid_and_inside_its_frame(lines: list[dict[str, Any]]):
    root = ElementTree.fromstring(plot(lines))  # noqa: S314 - our own text
    space = "{http://www.w3.org/2000/svg}"
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for circle in root.iter(f"{space}circle"):
        assert 0 < float(circle.attrib["cx"]) < width
        assert 0 < float(circle.attrib["cy"]) < height
    corners = [p for shape in root.iter(f"{space}polygon") for p in shape.attrib["points"].split()]
    for corner in corners:
        x, y = map(float, corner.split(","))
        assert 0 < x < width
        assert 0 < y < height
    texts = [element.text for element in root.iter(f"{space}text")]
    assert "clean accuracy lost, points" in texts
    shown = {line["method"] for line in lines if "error" not in line}
    assert shown <= set(texts)
    assert ("fine-tune" in texts) == ("fine-tune" in shown)
