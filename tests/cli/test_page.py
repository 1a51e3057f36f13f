# SPDX-License-Identifier: Apache-2.0
"""The HTML page stands alone, and hostile names do nothing in it or on a terminal."""

from html.parser import HTMLParser
from pathlib import Path

import onnx
import pytest
from support import Warm, box, once

NODE = "<script>alert(1)</script>\x1b[31mred\x1b[0m"
WEIGHT = '"><img src=x onerror=alert(2)>[bold]b[/bold]\x1b]0;title\x07'


class Page(HTMLParser):
    """Collects the elements of a page and every address that it would load or lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def hostile(folder: Path) -> None:
    box(folder)
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:
        node.name = f"{node.name}{NODE}"
        for i, name in enumerate(node.input):
            if name.startswith("fc.weight"):
                node.input[i] = WEIGHT
    for tensor in model.graph.initializer:
        if tensor.name == "fc.weight":
            tensor.name = WEIGHT
    onnx.save(model, folder / "model.onnx")


@pytest.fixture
def told(common: Path, warm: Warm) -> tuple[Path, dict]:
    """Every command on the model with hostile names."""

    def make(folder: Path) -> dict:
        hostile(folder)
        line = ("--trigger", "t.png", "--data", "val.npz")
        name = "<b>&'x'.html"
        return {
            "inspect": warm("inspect", "model.onnx", "-o", "inspect.html", cwd=folder),
            "inspect text": warm("inspect", "model.onnx", cwd=folder),
            "scan": warm("scan", "model.onnx", *line, "-o", name, "-o", "s.txt", cwd=folder),
            "repair": warm("repair", "model.onnx", *line, "-o", "f.onnx", "--report", "r.html",
                           cwd=folder),
            "explain": warm("explain", "model.onnx", "--data", "val.npz", "--show", "1", "-o",
                            "e.html", cwd=folder),
            "missing": warm("inspect", "\x1b[31m<gone>.onnx", cwd=folder),
            "unsupported": warm("scan", "model.onnx", "--trigger", "\x1b[2J.png", "--data",
                                "val.npz", cwd=folder),
        }  # fmt: skip

    return once(common, "hostile", make)


def test_pages_stand_alone_and_escape(told: tuple[Path, dict]) -> None:
    folder, results = told
    assert [results[name].code for name in ("inspect", "scan", "repair")] == [0, 1, 0], results
    assert results["explain"].code == 0, results
    pages = sorted(folder.glob("*.html"))
    assert len(pages) == 4
    for path in pages:
        text = path.read_text()
        assert len(text) < 500_000
        assert "\x1b" not in text
        page = Page(text)
        assert not {"script", "iframe", "object", "embed", "link", "base"} & set(page.tags), path
        assert page.handlers == [], path
        assert all(address.startswith("data:image/png") for address in page.addresses), path
        assert "url(" not in text
        assert "@import" not in text
    shown = (folder / "r.html").read_text()
    assert "&lt;script&gt;alert(1)" in shown
    assert "Before and after" in shown
    assert "read otherwise now" in shown
    line = "lancet-onnx repair model.onnx --trigger t.png --data val.npz -o f.onnx --report r.html"
    assert f"<pre>{line}</pre>" in shown
    assert "&lt;script&gt;alert(1)" in (folder / "e.html").read_text()


def test_terminals_get_names_without_control_sequences(told: tuple[Path, dict]) -> None:
    folder, results = told
    texts = {name: r.stdout + r.stderr for name, r in results.items()}
    texts["file"] = (folder / "s.txt").read_text()
    for name, text in texts.items():
        assert not set(text) & {"\x1b", "\x07", "\r"}, name
    for name in ("inspect text", "scan", "repair", "explain", "file"):
        joined = "".join(line.strip() for line in texts[name].split())
        assert "<script>" in joined, (name, joined)
    assert results["missing"].stderr.startswith("error: ")
    assert results["unsupported"].code == 3
