# SPDX-License-Identifier: Apache-2.0
"""Pixels to inputs: presets, files of others, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lancet_onnx.errors import DataError
from lancet_onnx.samples import PRESETS, Preprocess
from lancet_onnx.samples.preprocess import from_file, from_mapping, named, to_channels

PIXEL = np.array([[[[0.0, 0.5, 1.0]]]], np.float32)
"""One image of one pixel, red 0, green a half, blue 1."""


def apply(preprocess: Preprocess, pixels: np.ndarray = PIXEL) -> list[float]:
    return preprocess.apply(pixels).reshape(-1).tolist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unit", [0, 0.5, 1]),
        ("minus1to1", [-1, 0, 1]),
        ("uint8", [0, 127.5, 255]),
        ("imagenet", [-0.485 / 0.229, 0.044 / 0.224, 0.594 / 0.225]),
        ("none", [0, 0.5, 1]),
    ],
)
def test_presets(name: str, expected: list[float]):
    assert apply(PRESETS[name]) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert named(name) is PRESETS[name]


def test_layout_and_colour():
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    nchw = PRESETS["unit"].apply(pixels)
    assert nchw.shape == (2, 3, 4, 5)
    assert nchw.flags.c_contiguous
    assert nchw[1, 2, 3, 4] == pixels[1, 3, 4, 2]
    nhwc = replace(PRESETS["unit"], layout="nhwc").apply(pixels)
    np.testing.assert_array_equal(nhwc, pixels)
    bgr = replace(PRESETS["unit"], color="bgr").apply(pixels)
    np.testing.assert_array_equal(bgr, nchw[:, ::-1])


def test_means_are_in_the_models_channel_order():
    told = Preprocess("p", mean=(0.1, 0.2, 0.3), color="bgr")
    assert apply(told) == pytest.approx([0.9, 0.3, -0.3])


def test_passthrough_touches_nothing():
    raw = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert PRESETS["none"].apply(raw) is raw


def test_a_grey_model_takes_the_brightness_of_three_means():
    grey = PRESETS["imagenet"].apply(np.full((1, 1, 1, 1), 0.5, np.float32))
    mean = 0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406
    std = 0.299 * 0.229 + 0.587 * 0.224 + 0.114 * 0.225
    assert grey.item() == pytest.approx((0.5 - mean) / std, rel=1e-5)
    bgr = replace(PRESETS["unit"], color="bgr").apply(np.full((1, 1, 1, 1), 0.5, np.float32))
    assert bgr.item() == 0.5


def test_means_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="has 2 means"):
        apply(Preprocess("p", mean=(0.1, 0.2)))


def test_names():
    assert str(PRESETS["unit"]) == "unit"
    assert (
        str(replace(PRESETS["unit"], color="bgr", layout="nhwc")) == "unit, color bgr, layout nhwc"
    )
    assert str(PRESETS["none"]) == "none"


def write(folder: Path, name: str, content: object) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)
    return folder / name


def test_toml(tmp_path: Path):
    text = 'scale = 255\nmean = [1, 2.5, 3]\nstd = 2\ncolor = "BGR"\nlayout = "nhwc"\n'
    path = write(tmp_path, "p.toml", text)
    found = named(str(path))
    assert found == Preprocess(str(path), 255.0, (1.0, 2.5, 3.0), (2.0,), "bgr", "nhwc")


def test_hugging_face(tmp_path: Path):
    path = write(
        tmp_path,
        "preprocessor_config.json",
        {
            "image_mean": [0.5] * 3,
            "image_std": [0.25] * 3,
            "do_rescale": True,
            "do_normalize": True,
        },
    )
    assert apply(from_file(path)) == pytest.approx([-2, 0, 2], abs=1e-6)
    plain = write(tmp_path, "a.json", {"rescale_factor": 1 / 255, "do_normalize": False})
    assert apply(from_file(plain)) == pytest.approx([0, 0.5, 1])
    unscaled = write(
        tmp_path, "b.json", {"do_rescale": False, "image_mean": [100.0], "image_std": [10.0]}
    )
    assert apply(from_file(unscaled)) == pytest.approx([-10, 2.75, 15.5])
    unnormalised = write(tmp_path, "c.json", {"image_mean": [9.0], "do_normalize": False})
    assert apply(from_file(unnormalised)) == pytest.approx([0, 0.5, 1])


def test_timm(tmp_path: Path):
    content = {"architecture": "x", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    assert apply(from_file(write(tmp_path, "config.json", content))) == pytest.approx([-1, 0, 1])


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({"mean": "grey"}, "expected a number, found 'grey'"),
        ({"mean": [0.1, None, 0.2]}, "expected a number, found None"),
        ({"mean": [True]}, "expected a number, found True"),
        ({"mean": []}, "expected a number"),
        ({"scale": "big"}, "expected a number"),
        ({"std": [1, 0, 1]}, "deviation of 0"),
        ({"image_mean": [0.5], "image_std": [0.0]}, "deviation of 0"),
        ({"color": "cmyk"}, "expected one of rgb, bgr"),
        ({"layout": 3}, "expected one of nchw, nhwc"),
        ({"other": 1}, "no preprocessing in this file"),
        ([1, 2], "no preprocessing in this file"),
        ("{", "cannot be read"),
    ],
    ids=str,
)
def test_refused_files(tmp_path: Path, content: object, cause: str):
    with pytest.raises(DataError, match=cause):
        from_file(write(tmp_path, "p.json", content))


def test_refused_names(tmp_path: Path):
    for name in ("unknown", str(tmp_path / "missing.toml"), str(tmp_path), ""):
        with pytest.raises(DataError, match=r"is neither a file.*unit, minus1to1"):
            named(name)
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe not text")
    with pytest.raises(DataError, match="cannot be read"):
        named(str(tmp_path / "p.toml"))


def test_a_mapping_of_something_else_is_none():
    assert from_mapping({"hello": 1}, "n") is None


def test_channels():
    grey, colour = np.full((2, 2, 1), 0.5), np.zeros((2, 2, 3))
    colour[..., 1] = 1
    assert to_channels(grey, 3).shape == (2, 2, 3)
    assert to_channels(grey, 3).min() == 0.5
    np.testing.assert_allclose(to_channels(colour, 1), 0.587, atol=1e-6)
    np.testing.assert_array_equal(to_channels(colour, 3), colour)
    with pytest.raises(DataError, match="4 channels cannot serve"):
        to_channels(np.zeros((2, 2, 4)), 3)
