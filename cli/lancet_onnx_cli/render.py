# SPDX-License-Identifier: Apache-2.0
"""A `Report` for people: rich tables on stderr or stdout, JSON and HTML for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lancet_onnx.report import Report
from lancet_onnx.report.html import FIGURES

_COLOUR = {
    "backdoored": "bold red",
    "not_repaired": "bold red",
    "fail": "bold red",
    "clean": "bold green",
    "repaired": "bold green",
    "pass": "bold green",
    "done": "bold",
}


def render_text(report: Report, console: Console) -> None:
    """Print the report as text and tables."""
    data = report.to_dict()
    if report.command == "inspect":
        _inspect(data, console)
    elif report.command == "doctor":
        _doctor(data, console)
    else:
        _figures(data, console)
        _changed(data, console)
        _located(data, console)
    _graph_logic(data, console)
    if not console.stderr:
        render_verdict(report, console)
    for reason in report.reasons:
        console.print(f"  {_text(reason)}", soft_wrap=True)
    for key, what in (("output", "repaired model"), ("patch", "patch")):
        written = data.get(key)
        if isinstance(written, Mapping):
            console.print(f"{what}: {_text(written['path'])}", soft_wrap=True)
    if report.command == "inspect" and data.get("next"):
        console.print(f"next: {_text(data['next'])}", soft_wrap=True)


def render_verdict(report: Report, console: Console) -> None:
    """Print the verdict, one word."""
    if report.command not in ("inspect", "doctor"):
        console.print(f"[{_COLOUR.get(report.verdict, 'bold yellow')}]{report.verdict}[/]")


def _figures(data: Mapping[str, object], console: Console) -> None:
    before, after = data.get("before"), data.get("after")
    sides = [("before", before), ("after", after)] if before else [("", data.get("metrics"))]
    shown = [(heading, side) for heading, side in sides if isinstance(side, Mapping)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("figure")
    for heading, _ in shown:
        table.add_column(heading or "value", justify="right")
        table.add_column("95 % interval")
        table.add_column("images", justify="right")
    for name, heading, _ in FIGURES:
        if data["command"] == "scan" and name == "agreement":
            continue
        cells = [cell for _, side in shown for cell in _cells(side, name)]
        if any(cells):
            table.add_row(heading, *cells)
    if table.row_count:
        console.print(table)
        console.print()


def _cells(side: Mapping[str, object], name: str) -> Sequence[str]:
    value, intervals, counts = side.get(name), side.get("intervals"), side.get("counts")
    if not isinstance(value, (int, float)) or not isinstance(intervals, Mapping):
        return ("", "", "")
    low, high = intervals[name]
    total = counts[name][1] if isinstance(counts, Mapping) else ""
    return (f"{value:.1%}", f"{low:.1%} to {high:.1%}", str(total))


def _changed(data: Mapping[str, object], console: Console) -> None:
    layers = data.get("layers")
    if not isinstance(layers, list) or not layers:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("changed in node", "initializer"):
        table.add_column(column)
    for column in ("weights", "share"):
        table.add_column(column, justify="right")
    for layer in layers:
        table.add_row(
            _text(layer["node"]),
            _text(layer["initializer"]),
            str(layer["weights_changed"]),
            f"{layer['share']:.2%}",
        )
    console.print(table)
    console.print()


def _located(data: Mapping[str, object], console: Console) -> None:
    findings = data.get("findings")
    if not isinstance(findings, list) or not findings:
        return
    console.print(
        f"target class {findings[0]['target']}, trigger {_text(findings[0]['trigger']['path'])}"
    )
    layers = findings[0]["located"]
    if not layers:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("where it sits: node")
    table.add_column("initializer")
    for column in ("weights", "pairs located", "share needed"):
        table.add_column(column, justify="right")
    for layer in layers:
        share = f"{layer['share']:.2%}" if layer["pairs_located"] else ""
        table.add_row(
            _text(layer["node"]) + (" *" if layer["chosen"] else ""),
            _text(layer["initializer"]),
            str(layer["weights"]),
            f"{layer['pairs_located']}/{layer['pairs']}",
            share,
        )
    console.print(table)
    console.print()


def _graph_logic(data: Mapping[str, object], console: Console) -> None:
    branches = data.get("graph_logic")
    if isinstance(branches, list):
        for branch in branches:
            console.print(f"[bold red]graph logic:[/] {_text(branch)}", soft_wrap=True)


def _inspect(data: Mapping[str, object], console: Console) -> None:
    inputs, outputs = data["inputs"], data["outputs"]
    for word, specs in (("input", inputs), ("output", outputs)):
        if isinstance(specs, list):
            for spec in specs:
                shape = " x ".join(str(d if d is not None else "?") for d in spec["shape"])
                console.print(f"{word}  {_text(spec['name'])}: {spec['dtype']} {_text(shape)}")
    batch = data["fixed_batch"]
    console.print(f"classes {data['classes'] or 'unknown'}, batch {batch or 'free'}")
    console.print(
        f"opsets {_text(data['opsets'])}, "
        f"preprocessing {_text(data['preprocess'] or 'not recorded')}"
    )
    layers = data["layers"]
    if isinstance(layers, list) and layers:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("node", "operator", "initializer", "shape"):
            table.add_column(column)
        table.add_column("weights", justify="right")
        table.add_column("bias")
        for layer in layers:
            table.add_row(
                _text(layer["node"]),
                layer["operator"],
                _text(layer["initializer"]),
                " x ".join(map(str, layer["shape"])),
                str(layer["weights"]),
                _text(layer["bias"] or ""),
            )
        console.print(table)
    console.print(f"editable weights: {data['editable_weights']}")


def _doctor(data: Mapping[str, object], console: Console) -> None:
    session = data["onnxruntime_session"]
    console.print(f"python {data['python']} on {data['platform']}")
    if isinstance(session, Mapping) and session:
        for name, version in session["versions"].items():
            console.print(f"{name} {version}")
        console.print(f"a model would run on: {session['device']} ({session['provider']})")
    console.print(f"onnxruntime distributions: {_text(data['onnxruntime_distributions'])}")
    console.print(f"torch sees a GPU: {'yes' if data['torch_cuda'] else 'no'}")


def _text(value: object) -> str:
    """Show text from a model or path: no markup, no terminal control sequences."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in str(value)))
