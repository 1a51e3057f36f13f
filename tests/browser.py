# SPDX-License-Identifier: Apache-2.0
"""A page in headless Chromium: how wide it is, what it loads, and a picture of it."""

import html
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip
PROBE = """<script>
parent.document.title = JSON.stringify([document.documentElement.scrollWidth, window.innerWidth,
  document.documentElement.scrollHeight,
  [...document.querySelectorAll(".scroll, pre")].filter(e => e.scrollWidth > e.clientWidth).length,
  performance.getEntriesByType("resource").map(entry => entry.name)]);
</script>"""
TALLEST = 12_000


@dataclass(frozen=True)
class Seen:
    """What a browser says of a page in a window.

    Attributes:
        width: of all that is there, in pixels; more than the window has means scrolling.
        window: what the page has to itself.
        height: of the whole page.
        cut: how many tables and commands show a part only, until they are scrolled.
        loaded: addresses that it fetched, as JSON.
    """

    width: int
    window: int
    height: int
    cut: int
    loaded: str


def browse(page: Path, folder: Path, *more: str) -> str:
    """Open a page with more options of Chromium; return its standard output."""
    line = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *more, page.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def seen(text: str, width: int, folder: Path) -> Seen:
    """Return what a browser says of a page's text in a window of that width."""
    page = _framed(text + PROBE, width, 1200, folder)
    dom = browse(page, folder, "--dump-dom", "--window-size=1300,1200")
    (told,) = re.findall(r"<title>\[(\d+),(\d+),(\d+),(\d+),\[(.*?)\]\]</title>", dom)
    return Seen(*map(int, told[:4]), told[4])


def shoot(text: str, width: int, height: int, goal: Path, folder: Path) -> None:
    """Write a picture of a page's text in a window of that size."""
    height = min(height, TALLEST)
    page = _framed(text, width, height, folder)
    browse(page, folder, f"--screenshot={goal}", f"--window-size={max(width, 500)},{height}")
    with Image.open(goal) as picture:
        cut = picture.crop((0, 0, width, height))
    cut.save(goal)


def _framed(text: str, width: int, height: int, folder: Path) -> Path:
    """Write a page with the text in a frame: no window of a headless browser is under 500 wide."""
    page = folder / "framed.html"
    page.write_text(
        f'<title></title><body style="margin:0"><iframe width="{width}" height="{height}" '
        f'srcdoc="{html.escape(text)}" frameborder="0" style="display:block">'
    )
    return page
