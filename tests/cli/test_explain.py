# SPDX-License-Identifier: Apache-2.0
"""`explain` as people call it: a page with its pictures beside it, and what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import from_array, to_array
from PIL import Image
from support import Result, Warm, lancet, once, one_error, untouched
from test_page import Page
from tiny import saved, spotted, spotted_file

LINE = ("explain", "model.onnx", "--data", "val.npz", "--show", "2", "--preprocess", "unit")
HERE = ("--memory-limit", "0", "--timeout", "0")
"""No child process, which takes seconds to start."""


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "val.npz") as found:
        return found["x"], found["y"]


CLASSES, TARGET = 4, 2


def spot(folder: Path, each: int = 2) -> None:
    """A model that takes images with a bright spot for the target; such images, and others."""
    folder.mkdir(parents=True, exist_ok=True)
    spotted_file(folder, CLASSES, TARGET)
    samples = spotted(CLASSES, 10)
    half = len(samples) // 2
    saved(folder / "val.npz", samples.take(np.arange(half)))
    others = half + np.flatnonzero(samples.labels[half:] != TARGET)[: each * (CLASSES - 1)]
    saved(folder / "errors.npz", samples.take(others))
    saved(folder / "mixed.npz", samples.take(np.r_[others, :20]))


def patched(folder: Path) -> None:
    """The model without what leads from the spot to the target, as another file."""
    (folder / "other").mkdir()
    spotted_file(folder / "other", CLASSES, TARGET, push=0.0)
    shutil.move(folder / "other" / "model.onnx", folder / "fixed.onnx")


@pytest.fixture
def told(common: Path, warm: Warm) -> tuple[Path, dict[str, Result]]:
    """The page of images with a trigger; JSON and page of the same with a patch."""

    def make(folder: Path) -> dict[str, Result]:
        spot(folder)
        patched(folder)
        errors = ("--errors", "errors.npz")
        more = (*errors, "--patch", "fix.patch", *HERE)
        return {
            "diff": warm("patch", "diff", "model.onnx", "fixed.onnx", "-o", "fix.patch",
                         cwd=folder),
            "page": warm(*LINE, *errors, "-o", "page.html", cwd=folder),
            "both": warm(*LINE, *more, "-o", "e.json", "-o", "other.html", cwd=folder),
            "stream": warm(*LINE, "--errors", "mixed.npz", *more[2:], "-f", "json",
                           cwd=folder),
        }  # fmt: skip

    return once(common, "explained", make)


def test_a_page_stands_alone_and_its_pictures_lie_beside_it(
    told: tuple[Path, dict[str, Result]],
) -> None:
    folder, results = told
    result = results["page"]
    assert (result.code, result.stdout) == (0, "done\n"), result
    assert "taken for" in result.stderr
    assert "not kept" not in result.stderr
    text = (folder / "page.html").read_text()
    assert len(text) < 2_000_000
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "link", "base"} & set(page.tags)
    assert page.handlers == []
    beside = sorted(p.name for p in folder.glob("page-*.png"))
    assert page.addresses
    assert all(a.startswith("data:image/png;base64,") for a in page.addresses)
    assert len(page.addresses) == len(beside)
    assert [n for n in beside if n.startswith("page-error")] == [
        f"page-error{n}-{part}.png" for n in (1, 2) for part in ("companion", "image", "mask")
    ]
    for name in beside:
        with Image.open(folder / name) as picture:
            assert picture.size == (112, 112)
    assert page.tags.count("polyline") == 4
    words = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    for said in (
        "How to read this page",
        "Where the error comes from, in red",
        "What the model looks for",
    ):
        assert said in words


def pictures_of(number: int) -> dict[str, str]:
    return {part: f"error{number}-{part}.png" for part in ("image", "mask", "companion")}


def test_json_names_the_pictures_beside_it(told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    assert (results["both"].code, results["both"].stdout) == (0, "done\n"), results["both"]
    body = json.loads((folder / "e.json").read_text())
    assert body["errors"] == [
        {**row, "pictures": {k: f"e-{v}" for k, v in shown.items()}}
        for row, shown in zip(body["errors"], map(pictures_of, (1, 2)), strict=True)
    ]
    rows = [*body["errors"], *body["classes"]]
    named = [name for row in rows for name in row["pictures"].values() if name]
    assert sorted(named) == sorted(p.name for p in folder.glob("e-*.png"))
    assert list(folder.glob("other-*.png")) == [], "once is enough"
    assert len(body["errors"]) == 2
    assert all(row["patched"]["label"] != TARGET for row in body["errors"])
    assert "after" in (folder / "other.html").read_text()


def test_on_a_stream_pictures_are_not_kept_and_that_is_told(
    told: tuple[Path, dict[str, Result]],
) -> None:
    result = told[1]["stream"]
    assert result.code == 0
    assert result.stderr == (
        "the pictures are not kept; -o FILE.json or FILE.html keeps them beside it\n"
    )
    body = result.json
    rows = [*body["errors"], *body["classes"]]
    assert {name for row in rows for name in row["pictures"].values()} == {None}
    assert body["located_by"] == "patch"
    counts = body["counts"]
    assert (counts["images"], counts["errors"], counts["not_errors"]) == (26, 6, 20)
    assert any(reason.startswith("20 of the images given") for reason in body["reasons"])
    assert [row["located"] for row in body["located"]] == [4]


def test_tables_say_what_was_found(told: tuple[Path, dict[str, Result]]) -> None:
    shown = told[1]["both"].stderr
    for words in (
        "patched",
        "changed by the patch: node",
        "dense",
        "class 2",
        "the 2 shown errors",
    ):
        assert words in shown, shown
    assert max(map(len, shown.partition("the model gets")[0].splitlines())) <= 80


def right_only(folder: Path) -> None:
    x, y = arrays(folder)
    np.savez(folder / "bad.npz", x=np.repeat(x[:1], 3, axis=0), y=np.repeat(y[:1], 3))


def unlabelled(folder: Path) -> None:
    np.savez(folder / "bad.npz", x=arrays(folder)[0])


def strange_label(folder: Path) -> None:
    x, y = arrays(folder)
    np.savez(folder / "bad.npz", x=x, y=np.where(np.arange(len(y)) == 5, 10, y))


def other_size(folder: Path) -> None:
    np.savez(folder / "bad.npz", x=np.zeros((5, 32, 32, 1), np.uint8), y=np.arange(5))


def raw(folder: Path) -> None:
    x, y = arrays(folder)
    np.savez(folder / "bad.npz", x=(x / 255).astype(np.float32).transpose(0, 3, 1, 2), y=y)


def other_patch(folder: Path) -> None:
    shutil.copy(folder / "model.onnx", folder / "a.onnx")
    model = onnx.load(folder / "model.onnx")
    for name in ("a", "b"):
        (bias,) = (t for t in model.graph.initializer if t.name == "fc.bias")
        bias.CopyFrom(from_array(to_array(bias) + 1, "fc.bias"))
        onnx.save(model, folder / f"{name}.onnx")
    done = lancet("patch", "diff", "a.onnx", "b.onnx", "-o", "bad.patch", cwd=folder)
    assert done.code == 0, done


def no_patch(folder: Path) -> None:
    (folder / "bad.patch").write_bytes(b"no patch")


def picture_folder(folder: Path) -> None:
    (folder / "bad").mkdir()
    Image.fromarray(arrays(folder)[0][0, :, :, 0]).save(folder / "bad" / "a.png")


def nothing(_: Path) -> None:
    pass


ERRORS = ("--errors", "bad.npz")
CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], int, tuple[str, ...]]] = {
    "nothing is wrong": (right_only, ERRORS, 3, ("bad.npz", "all 3 images right", "--errors")),
    "unlabelled data": (unlabelled, ("--data", "bad.npz"), 3, ("have no labels", "--errors")),
    "unlabelled errors": (unlabelled, ERRORS, 3, ("bad.npz", "have no labels")),
    "a strange label": (strange_label, ERRORS, 3, ("image 5 has the label 10", "10 classes")),
    "another size": (other_size, ERRORS, 3, ("32 x 32", "28 x 28")),
    "no pictures": (raw, ("--data", "bad.npz", "--preprocess", "none"), 3, ("no pictures",)),
    "a patch of another model": (other_patch, ("--patch", "bad.patch"), 3, ("another model",)),
    "no patch": (no_patch, ("--patch", "bad.patch"), 3, ("bad.patch",)),
    "a missing patch": (nothing, ("--patch", "gone.patch"), 3, ("gone.patch",)),
    "missing errors": (nothing, ("--errors", "gone"), 3, ("gone", "no such file")),
    "a flat folder": (picture_folder, ("--errors", "bad"), 3, ("bad", "have no labels")),
    "a page among the images": (
        picture_folder, ("--errors", "bad", "-o", "bad/page.html"), 3, ("among the images",)
    ),
    "an unknown suffix": (nothing, ("-o", "page.pdf"), 2, (".html",)),
    "none to show": (nothing, ("--show", "0"), 2, ("--show",)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_message_and_no_file(case: str, small: Path, warm: Warm) -> None:
    make, more, code, parts = CASES[case]
    make(small)
    output = () if "-o" in more else ("-o", "page.html")
    with untouched(small):
        result = warm(*LINE, *HERE, *more, *output, cwd=small)
        one_error(result, code, *parts)


def test_it_needs_images(small: Path, warm: Warm) -> None:
    with untouched(small):
        one_error(warm("explain", "model.onnx", cwd=small), 2, "explain needs --data")
