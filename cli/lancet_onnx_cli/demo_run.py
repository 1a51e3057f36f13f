# SPDX-License-Identifier: Apache-2.0
"""`demo`: the whole story on the bundled model, as a person would run it."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from lancet_onnx.api import (
    DataOptions,
    RepairOptions,
    TriggerOptions,
    repair,
    scan,
    verify,
)
from lancet_onnx.report import Report, to_html
from lancet_onnx_cli.bars import progress
from lancet_onnx_cli.demo_files import FOLDER, unpack
from lancet_onnx_cli.output import Output
from lancet_onnx_cli.render import render_text, render_verdict
from lancet_onnx_cli.tables import terminal


def demo() -> int:
    """Scan, locate, repair and verify the bundled model; return the exit code."""
    console = terminal(stderr=True)
    model, picture, images = unpack()
    fixed = FOLDER / "fixed.onnx"
    trigger, data = TriggerOptions(picture), DataOptions(images)
    console.print(
        "A digit classifier was trained by somebody who wants every image with a\n"
        "small chequered patch in its corner to be read as a 7. We have the ONNX\n"
        "file, the patch and a thousand digits; no training code. The whole story\n"
        "takes less than a minute.\n"
    )
    console.rule("1. scan: does the patch control the model?", align="left")
    with progress(Output(())) as report_progress:
        found = scan(model, trigger, data, progress=report_progress)
    _show(found, console)
    console.rule("2. repair: change the few weights that cause it", align="left")
    with progress(Output(())) as report_progress:
        outcome = repair(
            model, trigger, data, RepairOptions(fixed, force=True), progress=report_progress
        )
    _show(outcome, console)
    if outcome.exit_code:
        return outcome.exit_code
    console.rule("3. verify: onnxruntime compares the two files", align="left")
    with progress(Output(())) as report_progress:
        checked = verify(model, fixed, data, trigger, progress=report_progress)
    _show(replace(checked, reasons=()), console)
    for report in (found, outcome, checked):
        (FOLDER / f"{report.command}.json").write_text(report.to_json())
    page = FOLDER / "report.html"
    page.write_text(to_html(outcome, "lancet-onnx demo", "lancet-onnx demo"))
    console.rule("done", align="left")
    console.print("Compare before and after: the patch no longer works, digits are still read.")
    terminal().print(f"{checked.verdict}; open {page} in a browser", highlight=False)
    return checked.exit_code


def _show(report: Report, console: Console) -> None:
    render_text(report, console)
    render_verdict(report, console)
    console.print()
