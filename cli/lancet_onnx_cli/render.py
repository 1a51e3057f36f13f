# SPDX-License-Identifier: Apache-2.0
"""A `Report` for people: rich tables on stderr or stdout, JSON and HTML for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from lancet_onnx.report import Report
from lancet_onnx.report.figures import FIGURES, Figure, figure_of
from lancet_onnx.report.untrusted import as_rows, as_table
from lancet_onnx_cli.render_corrections import corrections
from lancet_onnx_cli.render_explained import explained
from lancet_onnx_cli.render_gate import render_gate
from lancet_onnx_cli.render_search import residual_risk, search
from lancet_onnx_cli.tables import plain_table, safe

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
    elif report.command.startswith("patch "):
        _patch(data, console)
    elif report.command == "gate":
        render_gate(report, console)
    elif report.command.startswith("signature "):
        _signature(data, console)
    elif report.command == "explain":
        explained(data, console)
    else:
        search(data, console)
        _figures(data, console)
        residual_risk(data, console)
        corrections(data, console)
        _changed(data, console)
        _located(data, console)
    _graph_logic(data, console)
    if not console.stderr:
        render_verdict(report, console)
    problem = "problem: " if report.command == "inspect" else ""
    for reason in () if report.command in ("doctor", "gate") else report.reasons:
        console.print(f"  {problem}{safe(reason)}", soft_wrap=True)
    new = "repaired model" if report.command == "repair" else "new model"
    made = ("repair", "patch diff", "patch compose")
    for key, what in (("output", new), *((("patch", "patch"),) if report.command in made else ())):
        written = data.get(key)
        if isinstance(written, Mapping):
            console.print(f"{what}: {safe(written['path'])}", soft_wrap=True)
    if report.command == "repair" and not data.get("output"):
        console.print("nothing was written (--keep writes the best that was found)")
    if report.command == "inspect" and data.get("next"):
        console.print(f"next: {safe(data['next'])}", soft_wrap=True)


_SHOWN = 12
"""Weights that are named one by one; transformers have dozens of tables that are not edited."""


DESCRIBING = ("inspect", "doctor", "patch show")
"""Commands whose tables are the result."""


def render_verdict(report: Report, console: Console) -> None:
    """Print the verdict, one word."""
    if report.command not in DESCRIBING:
        console.print(f"[{_COLOUR.get(report.verdict, 'bold yellow')}]{report.verdict}[/]")


def _figures(data: Mapping[str, object], console: Console) -> None:
    before, after = data.get("before"), data.get("after")
    sides = [("before", before), ("after", after)] if before else [("", data.get("metrics"))]
    shown = [(heading, side) for heading, side in sides if isinstance(side, Mapping)]
    table = plain_table("figure")
    for heading, _ in shown:
        table.add_column(heading or "value", justify="right", no_wrap=True)
        table.add_column("95 % interval", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    for name, heading, _ in FIGURES:
        if data["command"] == "scan" and name == "agreement":
            continue
        found = [figure_of(side, name) for _, side in shown]
        if any(found):
            cells = [cell for figure in found for cell in _cells(figure)]
            table.add_row(heading, *cells, _images(found))
    if table.row_count:
        console.print(table)
        console.print()


def _cells(figure: Figure | None) -> Sequence[str]:
    if figure is None:
        return ("", "")
    return (f"{figure.value:.1%}", f"{figure.low:.1%} to {figure.high:.1%}")


def _images(found: Sequence[Figure | None]) -> str:
    """Return how many images a figure is of; before and after are of the same ones."""
    counts = [figure.n for figure in found if figure and figure.n is not None]
    return str(counts[-1]) if counts else ""


def _changed(data: Mapping[str, object], console: Console) -> None:
    layers = data.get("layers")
    if not isinstance(layers, list) or not layers:
        return
    table = plain_table("changed in node", "initializer")
    for column in ("weights", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in layers:
        table.add_row(
            safe(layer["node"]),
            safe(layer["initializer"]),
            str(layer["weights_changed"]),
            f"{layer['share']:.2%}",
        )
    console.print(table)
    console.print()


def _located(data: Mapping[str, object], console: Console) -> None:
    findings = data.get("findings")
    if not isinstance(findings, list) or not findings:
        return
    path = findings[0]["trigger"]["path"]
    what = "found by the search" if path is None else safe(path)
    console.print(f"target class {findings[0]['target']}, trigger {what}", soft_wrap=True)
    layers = findings[0]["located"]
    if not layers:
        return
    table = plain_table("where it sits: node", "initializer")
    for column in ("weights", "pairs located", "share needed"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in layers:
        share = f"{layer['share']:.2%}" if layer["pairs_located"] else ""
        table.add_row(
            safe(layer["node"]) + (" *" if layer["chosen"] else ""),
            safe(layer["initializer"]),
            str(layer["weights"]),
            f"{layer['pairs_located']}/{layer['pairs']}",
            share,
        )
    console.print(table)
    if any(layer["chosen"] for layer in layers):
        console.print("* explains the pairs with the fewest weights")
    console.print()


def _graph_logic(data: Mapping[str, object], console: Console) -> None:
    branches = data.get("graph_logic")
    if isinstance(branches, list):
        for branch in branches:
            console.print(
                f"[bold red]graph logic ({branch['rule']}):[/] {safe(branch['text'])}",
                soft_wrap=True,
            )
            if branch["path"]:
                console.print(f"  by way of {safe(' > '.join(branch['path']))}", soft_wrap=True)


def _inspect(data: Mapping[str, object], console: Console) -> None:
    inputs, outputs = data["inputs"], data["outputs"]
    for word, specs in (("input", inputs), ("output", outputs)):
        if isinstance(specs, list):
            for spec in specs:
                shape = " x ".join(str(d if d is not None else "?") for d in spec["shape"])
                console.print(f"{word}  {safe(spec['name'])}: {spec['dtype']} {safe(shape)}")
    batch, layout = data["fixed_batch"], data["layout"] or "no picture"
    console.print(
        f"classes: {data['classes'] or 'unknown'}, batch size: {batch or 'free'}, layout: {layout}"
    )
    answer = data["answer"]
    if isinstance(answer, Mapping):
        console.print(
            f"answer: {safe(answer['form'])} in '{safe(answer['output'])}', "
            f"logits: '{safe(answer['logits'])}'",
            soft_wrap=True,
        )
    opsets = data["opsets"]
    if isinstance(opsets, Mapping):
        named = ", ".join(f"{safe(d)} {v}".strip() for d, v in opsets.items())
        console.print(
            f"opset: {named}, preprocessing: {safe(data['preprocess'] or 'not recorded')}"
        )
    if data["preprocess_note"]:
        console.print(f"  {safe(data['preprocess_note'])}", soft_wrap=True)
    layers = data["layers"]
    if isinstance(layers, list) and layers:
        table = plain_table("node", "initializer")
        for column in ("operator", "shape", "type"):
            table.add_column(column, no_wrap=True)
        table.add_column("weights", justify="right", no_wrap=True)
        table.add_column("bias", no_wrap=True)
        for layer in layers:
            table.add_row(
                safe(layer["node"]),
                safe(layer["initializer"]),
                safe(layer["operator"]),
                "x".join(map(str, layer["shape"])),
                str(layer["dtype"]),
                str(layer["weights"]),
                "yes" if layer["bias"] else "",
            )
        console.print(table)
    console.print(f"editable weights: {data['editable_weights']}")
    for key, what in (("not_edited", "not edited"), ("no_gradient", "no gradient")):
        reasons = data[key]
        if isinstance(reasons, Mapping):
            for name, reason in list(reasons.items())[:_SHOWN]:
                console.print(f"{what}: '{safe(name)}', {safe(reason)}", soft_wrap=True)
            if len(reasons) > _SHOWN:
                console.print(f"{what}: {len(reasons) - _SHOWN} more, see -f json")


def _signature(data: Mapping[str, object], console: Console) -> None:
    files, signature = data["files"], data["signature"]
    if isinstance(files, list) and isinstance(signature, Mapping):
        console.print(f"signature: {safe(signature['path'])}", soft_wrap=True)
        console.print(f"signed: {safe(', '.join(files))}", soft_wrap=True)


def _patch(data: Mapping[str, object], console: Console) -> None:
    if data["command"] == "patch show":
        for key, what in (
            ("base", "made for"),
            ("result", "gives"),
            ("tool", "made by"),
            ("method", "method"),
            ("seed", "seed"),
        ):
            console.print(f"{what}: {safe(data[key])}", soft_wrap=True)
    targets = data.get("targets")
    if isinstance(targets, list) and targets:
        table = plain_table("initializer")
        for column in ("type", "shape"):
            table.add_column(column, no_wrap=True)
        for column in ("changed", "share", "sign only", "mean change", "largest"):
            table.add_column(column, justify="right", no_wrap=True)
        for target in targets:
            table.add_row(
                safe(target["initializer"]),
                str(target["dtype"]),
                "x".join(map(str, target["shape"])),
                str(target["weights_changed"]),
                f"{target['share']:.2%}",
                str(target["flipped"]),
                f"{target['mean_change']:.3g}",
                f"{target['largest_change']:.3g}",
            )
        console.print(table)
    console.print(f"numbers changed: {data['weights_changed']}")
    metrics = data.get("metrics")
    if isinstance(metrics, Mapping) and metrics:
        table = plain_table("measured when it was made")
        table.add_column("value", justify="right", no_wrap=True)
        for name, value in metrics.items():
            table.add_row(safe(name), f"{value:.4g}")
        console.print(table)


def _doctor(data: Mapping[str, object], console: Console) -> None:
    console.print(f"python {data['python']} on {data['platform']}")
    for name, version in as_table(data["versions"]).items():
        console.print(f"{name} {safe(version)}")
    installed = as_table(data["onnxruntime_distributions"])
    named = ", ".join(f"{name} {version}" for name, version in installed.items())
    console.print(f"onnxruntime installed as: {safe(named or 'nothing')}")
    if session := as_table(data["onnxruntime_session"]):
        console.print(f"a model would run on: {session['device']} ({session['provider']})")
    console.print(f"torch sees a GPU: {'yes' if data['torch_cuda'] else 'no'}")
    for problem in as_rows(data["problems"]):
        console.print(f"[bold red]problem:[/] {safe(problem['text'])}", soft_wrap=True)
        console.print(f"  mend it with: {safe(problem['command'])}", soft_wrap=True)
