# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: it fits a phone, follows light and dark, and loads nothing.

These are made by hand; tests/cli/test_pages_in_browser.py has what commands write.
"""

from pathlib import Path

import pytest
from browser import CHROMIUM, browse, seen
from gate_report import hostile, mixed
from PIL import Image

from lancet_onnx.report import to_html

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here")


@pytest.mark.parametrize("width", [390, 1100])
def test_the_page_fits_its_window_and_loads_nothing(width: int, tmp_path: Path) -> None:
    for report in (mixed(), hostile()):
        told = seen(to_html(report, "a gate", "lancet-onnx gate"), width, tmp_path)
        assert told.window == width
        assert told.width <= width, "no scrolling to the side"
        assert told.loaded == ""


@pytest.mark.parametrize(("mode", "scheme"), [("light", 1), ("dark", 0)])
def test_the_page_follows_light_and_dark(mode: str, scheme: int, tmp_path: Path) -> None:
    page, shot = tmp_path / "page.html", tmp_path / f"{mode}.png"
    page.write_text(to_html(mixed(), "a gate", "lancet-onnx gate"))
    browse(
        page, tmp_path, f"--screenshot={shot}", "--window-size=390,1200",
        f"--blink-settings=preferredColorScheme={scheme}",
    )  # fmt: skip
    with Image.open(shot) as picture:
        grey = picture.convert("L")
        assert (grey.getpixel((1, 1)) > 128) == (mode == "light")
        low, high = grey.getextrema()
        assert high - low > 150, "words stand out from the ground"
