# SPDX-License-Identifier: Apache-2.0
"""The policy that `--init` writes is one, fits the model, and says nothing that the model wants."""

from pathlib import Path

import pytest

from lancet_onnx.api.inspecting import inspect
from lancet_onnx.api.options import DataOptions
from lancet_onnx.api.policy import Policy, read_policy
from lancet_onnx.api.policy_keys import SECTIONS
from lancet_onnx.api.starting import starting_policy

SEEN = {
    "classes": 10,
    "layout": "nchw",
    "preprocess": None,
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 3, 32, 32]}],
    "outputs": [{"name": "y"}],
    "answer": {"output": "y"},
}


def start(folder: Path, model: Path = Path("m.onnx"), data: DataOptions | None = None,
          **seen: object) -> Policy:  # fmt: skip
    text = starting_policy(model, {**SEEN, **seen}, data or DataOptions(), folder)
    (folder / "lancet.toml").write_text(text)
    return read_policy(folder / "lancet.toml")


def test_it_is_a_policy_for_this_model(fixtures, tmp_path: Path):
    model = fixtures.model("mnist_cnn_square")
    text = starting_policy(model, inspect(model).body, DataOptions(), tmp_path)
    (tmp_path / "lancet.toml").write_text(text)
    policy = read_policy(tmp_path / "lancet.toml")
    assert policy.models == (model,)
    assert policy.asked.min_clean_accuracy == 0.9
    assert "10 classes" in text
    assert "1 x 28 x 28" in text


def test_every_key_is_in_it_with_what_it_does(tmp_path: Path):
    text = starting_policy(Path("m.onnx"), SEEN, DataOptions(), tmp_path)
    for section in SECTIONS:
        assert section.header in text
        for key in section.keys:
            assert f"{key.name} = " in text


def test_the_commented_keys_are_valid_too(tmp_path: Path):
    text = starting_policy(Path("m.onnx"), SEEN, DataOptions(), tmp_path)
    lines = [line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")]
    (tmp_path / "lancet.toml").write_text("\n".join(lines))
    assert read_policy(tmp_path / "lancet.toml").allow[0].rule == "LNC203"


def test_what_is_known_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ci").mkdir()
    told = DataOptions(Path("val.npz"), "imagenet", (0.5,), None, "bgr", "nhwc", "shortest")
    text = starting_policy(Path("m.onnx"), SEEN, told, Path("ci"))
    (tmp_path / "ci" / "lancet.toml").write_text(text)
    policy = read_policy(Path("ci/lancet.toml"))
    assert policy.models == (Path("ci/../m.onnx"),)
    assert policy.data == DataOptions(
        Path("ci/../val.npz"), "imagenet", (0.5,), None, "bgr", "nhwc", "shortest"
    )


@pytest.mark.parametrize(
    ("seen", "preprocess"),
    [({}, "unit"), ({"layout": None}, "none"), ({"preprocess": "imagenet"}, None)],
)
def test_the_preprocessing_is_asked_for_where_nothing_says_it(
    tmp_path: Path, seen: dict[str, object], preprocess: str | None
):
    assert start(tmp_path, **seen).data.preprocess == preprocess


def test_one_of_several_outputs_is_named(tmp_path: Path):
    several = [{"name": "features"}, {"name": "y"}]
    assert start(tmp_path, outputs=several).data.output == "y"
    assert start(tmp_path).data.output is None


@pytest.mark.parametrize("name", ['a"b\\c', "a\n[gate]\nscan = true", "\x1b[31m\x7f", "é"])
def test_names_of_a_hostile_model_stay_names(tmp_path: Path, name: str):
    several = [{"name": "features"}, {"name": name}]
    shape = [{"name": name, "dtype": "float32", "shape": [name, 3]}]
    answer = {"output": name}
    policy = start(tmp_path, inputs=shape, outputs=several, answer=answer, preprocess=name)
    assert policy.data.output == name
    assert not policy.asked.scan
    assert "\x1b" not in (tmp_path / "lancet.toml").read_text()
