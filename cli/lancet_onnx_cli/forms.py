# SPDX-License-Identifier: Apache-2.0
"""A report in each form that people and pipelines read, and how it gets into a file."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from lancet_onnx_cli.attaching import keeps
from lancet_onnx_cli.choices import Format

if TYPE_CHECKING:
    from lancet_onnx.report import Checkout, Report


def content(report: Report, form: Format) -> str:
    """Return the report in a form; of a page, with the command line that is running now."""
    if form == Format.json:
        return report.to_json()
    if form in _PIPELINES:
        return _for_pipelines(report, form)
    if form == Format.html:
        from lancet_onnx.report import to_html

        command = "lancet-onnx " + shlex.join(sys.argv[1:])
        model = report.body.get("model")
        name = Path(str(model["path"])).name if isinstance(model, Mapping) else ""
        page = to_html(report, f"lancet-onnx {report.command} {name}".strip(), command)
        return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in page)
    from lancet_onnx_cli.render import render_text

    text = io.StringIO()
    render_text(report, Console(file=text, width=120))
    return text.getvalue()


_PIPELINES = (Format.sarif, Format.junit, Format.markdown, Format.github)


def _for_pipelines(report: Report, form: Format) -> str:
    from lancet_onnx.report import to_annotations, to_junit, to_markdown, to_sarif

    if form == Format.junit:
        return to_junit(report)
    if form == Format.markdown:
        return to_markdown(report)
    if form == Format.sarif:
        return to_sarif(report, _checkout(), os.environ.get("LANCET_DOCS", "").rstrip("/"))
    return to_annotations(report, _checkout())


def _checkout() -> Checkout:
    """Return where we are: the checkout of a workflow, or this folder."""
    from lancet_onnx.report import Checkout

    here = Path.cwd()
    return Checkout(Path(os.environ.get("GITHUB_WORKSPACE") or here), here)


def by_suffix(path: Path) -> Format:
    """Return the form that the end of a name says.

    Raises:
        BadParameter: it says none.
    """
    forms: dict[str, Format] = {
        ".json": Format.json,
        ".html": Format.html,
        ".txt": Format.text,
        ".sarif": Format.sarif,
        ".xml": Format.junit,
        ".md": Format.markdown,
    }
    if path.suffix not in forms:
        raise typer.BadParameter(f"{path}: expected a name that ends in {', '.join(forms)}")
    return forms[path.suffix]


def write(text: str, path: Path) -> None:
    """Write a report: a file completely or not at all, a device or pipe as it is.

    Raises:
        OutputError: no space, no permission.
    """
    from lancet_onnx.errors import OutputError
    from lancet_onnx.model.files import save

    if keeps(path):
        save(text.encode(), path)
        return
    try:
        path.write_text(text)  # a device or pipe, such as /dev/null
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
