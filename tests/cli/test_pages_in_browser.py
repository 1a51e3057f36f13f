# SPDX-License-Identifier: Apache-2.0
"""The pages that commands write, in a real browser: on a phone and on a desk.

The pictures stay in build/screenshots/, to be looked at.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, seen, shoot
from PIL import Image
from support import REFUSED, ROOT, Warm, once
from test_explain import patched, spot
from test_gate import HERE, filled

SHOTS = ROOT / "build" / "screenshots"
PAGES = ("gate", "gate-several", "repair", "scan", "explain")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here")


@pytest.fixture
def written(common: Path, warm: Warm) -> tuple[Path, dict[str, Any]]:
    """A page of each command, of models with something to be told."""

    def make(folder: Path) -> dict[str, Any]:
        filled(folder)
        spot(folder / "spot")
        patched(folder / "spot")
        shutil.copy(REFUSED / "nan_weight.onnx", folder / "nan.onnx")
        shutil.copy(ROOT / "fixtures" / "mnist_cnn_clean.onnx", folder / "clean.onnx")
        line = ("model.onnx", "--trigger", "t.png", "--data", "val.npz")
        both = ("model.onnx", "fixed.onnx", "-o", "fix.patch")
        return {
            "gate": warm("gate", "model.onnx", *HERE, "-o", "gate.html", cwd=folder),
            "gate-several": warm(
                "gate", "model.onnx", "nan.onnx", "clean.onnx", "-o", "gate-several.html",
                cwd=folder,
            ),
            "scan": warm("scan", *line, "-o", "scan.html", cwd=folder),
            "repair": warm("repair", *line, "-o", "fixed.onnx", "--report", "repair.html",
                           cwd=folder),
            "patch": warm("patch", "diff", *both, cwd=folder / "spot"),
            "explain": warm(
                "explain", "model.onnx", "--data", "val.npz", "--errors", "errors.npz",
                "--patch", "fix.patch", "--preprocess", "unit", "--show", "2", *HERE,
                "-o", "../explain.html", cwd=folder / "spot",
            ),
        }  # fmt: skip

    return once(common, "browsed", make)


@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_loads_nothing(
    name: str, width: int, written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, results = written
    page = folder / f"{name}.html"
    assert page.is_file(), results
    text = page.read_text()
    told = seen(text, width, tmp_path)
    SHOTS.mkdir(parents=True, exist_ok=True)
    shoot(text, width, told.height, SHOTS / f"{name}-{width}.png", tmp_path)
    assert told.window == width
    assert told.width <= width, "no scrolling to the side"
    assert told.cut == 0, "nothing that has room is cut off"
    assert told.loaded == ""
    with Image.open(SHOTS / f"{name}-{width}.png") as picture:
        assert picture.width == width
        low, high = picture.convert("L").getextrema()
        assert high - low > 150, "words stand out from the ground"
