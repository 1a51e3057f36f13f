# SPDX-License-Identifier: Apache-2.0
"""The wrong preprocessing is named, not scanned with."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import info, model_bytes, tensor
from onnx import helper

from lancet_onnx.errors import DataError
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.samples import PRESETS, Samples
from lancet_onnx.types import TensorSpec, ValueName
from lancet_onnx.verify.preprocessing import recorded, resolve, trials

IMAGE = TensorSpec(ValueName("input"), "float32", ("N", 1, 28, 28))


@pytest.fixture
def demo(fixtures) -> OrtModel:
    return OrtModel(fixtures.model("mnist_cnn_square"), IMAGE, "cpu")


def colour_model(scale: float, color: str) -> OrtModel:
    """Tells dark-to-bright red from blue: right only for inputs of one scale and channel order.

    Class 0: red is over half of the scale, class 1: blue is, class 2: neither.
    """
    red = 0 if color == "rgb" else 2
    weight = np.zeros((3, 3), np.float32)
    weight[red, 0] = weight[2 - red, 1] = 1 / scale
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], "g"),
    ]
    data = model_bytes(
        nodes,
        [tensor("w", weight), tensor("b", np.array([0, 0, 0.5], np.float32))],
        [info("x", ["N", 3, 1, 1])],
        [info("y", ["N", 3])],
    )
    return OrtModel(data, TensorSpec(ValueName("x"), "float32", ("N", 3, 1, 1)), "cpu")


def colour_samples(rng, count: int = 120) -> Samples:
    labels = np.arange(count) % 3
    images = np.zeros((count, 1, 1, 3), np.uint8)
    images[..., 1] = rng.integers(0, 255, (count, 1, 1))
    images[labels == 0, ..., 0] = rng.integers(140, 255, (count // 3, 1, 1))
    images[labels == 1, ..., 2] = rng.integers(140, 255, (count // 3, 1, 1))
    return Samples(images, labels, False, "colours")


def test_the_right_one_is_taken_with_the_models_layout(demo: OrtModel, fixtures):
    found = resolve(demo, fixtures.samples(200), PRESETS["unit"], "nchw", "m")
    assert found == PRESETS["unit"]


@pytest.mark.parametrize("preset", ["imagenet", "uint8", "minus1to1"])
def test_a_wrong_preset_passes_only_if_the_model_does_not_mind(
    demo: OrtModel, fixtures, preset: str
):
    samples = fixtures.samples(400)
    rates = {str(t.preprocess): t.accuracy.value for t in trials(demo, samples, "nchw")}
    if rates["unit"] - rates[preset] > 0.1:
        with pytest.raises(DataError, match=f"'{preset}' gives .* --preprocess "):
            resolve(demo, samples, PRESETS[preset], "nchw", "m")
    else:
        assert resolve(demo, samples, PRESETS[preset], "nchw", "m").name == preset


@pytest.mark.parametrize(
    ("chosen", "scale", "color", "flags"),
    [
        ("unit", 255.0, "rgb", "uint8"),
        ("unit", 1.0, "bgr", "unit --color bgr"),
        ("minus1to1", 1.0, "rgb", "unit"),
    ],
)
def test_a_clearly_better_one_is_named(rng, chosen: str, scale: float, color: str, flags: str):
    model = colour_model(scale, color)
    with pytest.raises(DataError) as caught:
        resolve(model, colour_samples(rng), PRESETS[chosen], "nchw", "m.onnx")
    message = str(caught.value)
    assert f"Give --preprocess {flags}. " in message
    assert "gives 100.0%" in message
    for name in ("unit", "minus1to1", "imagenet", "uint8"):
        assert name in message
    right = replace(PRESETS[flags.split()[0]], color=color)
    assert resolve(model, colour_samples(rng), right, "nchw", "m") == right


def test_near_chance_is_refused(demo: OrtModel, fixtures, rng):
    samples = fixtures.samples(300)
    shuffled = Samples(samples.images, rng.permutation(samples.labels), False, "shuffled")
    with pytest.raises(
        DataError, match=r"near chance \(1\d\.\d%\); are the labels in the model's order"
    ):
        resolve(demo, shuffled, PRESETS["unit"], "nchw", "m.onnx")


def test_none_given_lists_what_was_tried(demo: OrtModel, fixtures):
    with pytest.raises(DataError) as caught:
        resolve(demo, fixtures.samples(100), None, "nchw", "m.onnx")
    message = str(caught.value)
    assert "m.onnx: how images must be prepared is not known" in message
    assert "Tried on the data (clean accuracy): " in message
    for name in ("unit", "minus1to1", "imagenet", "uint8"):
        assert f"{name} " in message


def test_none_given_without_labels_lists_the_usual_ones(demo: OrtModel, fixtures):
    samples = fixtures.samples(20)
    unlabelled = Samples(samples.images, None, False, "s")
    with pytest.raises(DataError, match=r"nothing could be tried.*unit, minus1to1, imagenet"):
        resolve(demo, unlabelled, None, "nchw", "m")
    assert resolve(demo, unlabelled, PRESETS["uint8"], "nchw", "m") == PRESETS["uint8"]


def test_raw_inputs_need_none(demo: OrtModel, fixtures):
    raw = Samples(fixtures.inputs(5), None, True, "s")
    assert resolve(demo, raw, None, "nchw", "m") == PRESETS["none"]


def test_trials_are_best_first_and_try_both_colour_orders(rng):
    found = trials(colour_model(1.0, "bgr"), colour_samples(rng), "nchw")
    assert len(found) == 8
    assert found[0].preprocess == replace(PRESETS["unit"], color="bgr")
    rates = [t.accuracy.value for t in found]
    assert rates == sorted(rates, reverse=True)


def test_recorded_in_the_model_or_beside_it(tmp_path: Path):
    path = tmp_path / "m.onnx"
    assert recorded(path, {}) is None
    assert recorded(path, {"lancet.preprocess": "imagenet"}) == PRESETS["imagenet"]
    noted = recorded(path, {"lancet.preprocess": json.dumps({"mean": [0.5], "std": [0.5]})})
    assert (noted.mean, noted.std) == ((0.5,), (0.5,))
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"mean": [0.1], "std": [0.2]}}')
    assert recorded(path, {}).mean == (0.1,)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.3], "image_std": [1]}')
    assert recorded(path, {}).mean == (0.3,)
    assert recorded(path, {"lancet.preprocess": "unit"}) == PRESETS["unit"]


@pytest.mark.parametrize("note", ["unknown", "{", "[1]", "5", '"unit"', "{}", "null"])
def test_notes_that_say_nothing_are_refused(tmp_path: Path, note: str):
    with pytest.raises(DataError, match=r"lancet\.preprocess"):
        recorded(tmp_path / "m.onnx", {"lancet.preprocess": note})


def test_other_configs_beside_the_model_are_passed_over(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    assert recorded(tmp_path / "m.onnx", {}) is None
    (tmp_path / "preprocessor_config.json").write_text("broken")
    with pytest.raises(DataError, match="preprocessor_config"):
        recorded(tmp_path / "m.onnx", {})
