# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: it fits a phone, follows light and dark, and loads nothing.

The pictures stay in pytest's temporary folder, to be looked at.
"""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from gate_report import hostile, mixed
from PIL import Image

from lancet_onnx.report import to_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip
PROBE = """<script>
parent.document.title = JSON.stringify([document.documentElement.scrollWidth, window.innerWidth,
  performance.getEntriesByType("resource").map(entry => entry.name)]);
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed here")


def browse(page: Path, folder: Path, *more: str) -> str:
    line = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *more, page.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


@pytest.mark.parametrize("width", [390, 1100])
def test_the_page_fits_its_window_and_loads_nothing(width: int, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for report in (mixed(), hostile()):
        inside = html.escape(to_html(report, "a gate", "lancet-onnx gate") + PROBE)
        # A frame, since no window of a headless browser is narrower than 500.
        page.write_text(
            f'<title></title><iframe width="{width}" srcdoc="{inside}" frameborder="0">'
        )
        dom = browse(page, tmp_path, "--dump-dom", "--window-size=1300,1200")
        (told,) = re.findall(r"<title>\[(\d+),(\d+),\[(.*?)\]\]</title>", dom)
        scrolled, inner, loaded = int(told[0]), int(told[1]), told[2]
        assert inner == width
        assert scrolled <= inner, "no scrolling to the side"
        assert loaded == ""


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
