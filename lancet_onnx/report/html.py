# SPDX-License-Identifier: Apache-2.0
"""One self-contained page, readable without JavaScript, with the pictures inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from lancet_onnx.report.explained import explained_view
from lancet_onnx.report.figures import FIGURES, figure_of
from lancet_onnx.report.gate_view import gate_view
from lancet_onnx.report.report import Report
from lancet_onnx.report.search import COLUMNS, found_triggers, search_view
from lancet_onnx.report.surroundings import surroundings

if TYPE_CHECKING:
    import jinja2

MOST_JSON = 150_000
"""Characters of JSON that a page has room for."""


def to_html(report: Report, title: str, command: str) -> str:
    """Return the page; `command` is the line that made the report, shown for repetition.

    Everything from the model or the data is escaped: names in an untrusted file are hostile text.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for picture in report.pictures:
        source = "data:image/png;base64," + base64.b64encode(picture.png).decode()
        groups.setdefault(picture.group, []).append({"source": source, "caption": picture.caption})
    data, whole = report.to_dict(), html.escape(report.to_json(), quote=False)
    return _template().render(
        title=title,
        command=command,
        report=data,
        figures=_figures(data),
        groups=groups,
        search=search_view(data),
        columns=COLUMNS,
        triggers=found_triggers(data),
        explained=explained_view(data, {name: each[0]["source"] for name, each in groups.items()}),
        gate=gate_view(report),
        around=surroundings(data),
        whole=whole if len(whole) <= MOST_JSON else "",
    )


def _figures(data: Mapping[str, object]) -> list[dict[str, object]]:
    sides = [data.get("before"), data.get("after")]
    if not isinstance(sides[0], Mapping):
        sides = [data.get("metrics")]
    found: list[dict[str, object]] = []
    for name, heading, meaning in FIGURES:
        cells = [figure_of(side, name) for side in sides]
        if any(cells):
            found.append({"heading": heading, "meaning": meaning, "cells": cells})
    return found


@cache
def _template() -> jinja2.Template:
    import jinja2  # only who wants a page waits for it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lancet_onnx.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja")
