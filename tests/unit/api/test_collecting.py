# SPDX-License-Identifier: Apache-2.0
"""Files, folders and patterns stand for models, each file once."""

from pathlib import Path

import pytest

from lancet_onnx.api.collecting import find_models
from lancet_onnx.errors import ModelError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.onnx", "a.onnx", "deep/1/model.onnx", ".cache/c.onnx", "deep/.x.onnx", "n.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given: str) -> list[str]:
    return [str(path) for path in find_models(map(Path, given))]


def test_a_file_is_itself_whatever_its_name(place: Path):
    assert names("n.txt", "a.onnx") == ["n.txt", "a.onnx"]


def test_a_folder_stands_for_the_models_below_it(place: Path):
    assert names(".") == ["a.onnx", "b.onnx", "deep/1/model.onnx"]
    assert names("deep") == ["deep/1/model.onnx"]


def test_patterns(place: Path):
    assert names("*.onnx") == ["a.onnx", "b.onnx"]
    assert names("**/model.onnx") == ["deep/1/model.onnx"]
    assert names("dee?") == ["deep/1/model.onnx"]


def test_a_file_whose_name_is_a_pattern_is_that_file(place: Path):
    (place / "a*.onnx").write_bytes(b"")
    assert names("a*.onnx") == ["a*.onnx"]


def test_each_file_once(place: Path):
    assert names("b.onnx", ".", "./b.onnx") == ["b.onnx", "a.onnx", "deep/1/model.onnx"]


def test_a_link_stands_for_its_model(place: Path):
    (place / "latest.onnx").symlink_to("b.onnx")
    assert names("latest.onnx") == ["latest.onnx"]
    assert names(".") == ["a.onnx", "b.onnx", "deep/1/model.onnx"], "the file, not the link to it"


def test_a_folder_may_link_to_models_elsewhere(place: Path):
    (place / "set").mkdir()
    (place / "set" / "x.onnx").symlink_to("../b.onnx")
    (place / "set" / "gone.onnx").symlink_to("../gone.onnx")
    (place / "set" / "round.onnx").symlink_to("round.onnx")
    assert names("set") == ["set/gone.onnx", "set/round.onnx", "set/x.onnx"]


def test_links_to_folders_are_not_followed(place: Path):
    (place / "deep" / "up").symlink_to("..")
    assert names("deep") == ["deep/1/model.onnx"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("gone.onnx", "No such file or folder; correct the path"),
        ("*.pt", "no model matches this pattern.*; correct"),
        ("empty", "no .onnx file in this folder.*; give one that holds models"),
        ("away.onnx", "a link that leads nowhere; give the model"),
    ],
)
def test_nothing_to_judge_is_an_error(place: Path, given: str, words: str):
    (place / "empty").mkdir()
    (place / "away.onnx").symlink_to("gone.onnx")
    with pytest.raises(ModelError, match=words) as caught:
        find_models([Path("a.onnx"), Path(given)])
    assert str(caught.value).startswith(given)
