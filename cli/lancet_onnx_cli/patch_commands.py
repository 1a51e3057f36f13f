# SPDX-License-Identifier: Apache-2.0
"""``lancet-onnx patch ...``: look at patches, apply and revert them, make them from two models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lancet_onnx_cli.options import Formats, Model, OutputPath, Quiet, Reports
from lancet_onnx_cli.output import Output, emit, spare
from lancet_onnx_cli.running import run

patch_app = typer.Typer(
    name="patch",
    help="Show, apply, revert, make and join patches; runs no model.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PatchFile = Annotated[
    Path, typer.Argument(metavar="PATCH", help="A .lancet.safetensors file.", show_default=False)
]
NewModel = Annotated[
    Path,
    typer.Option(
        "-o", "--out", metavar="FILE", help="Where the new model goes.", show_default=False
    ),
]
NewPatch = Annotated[
    Path,
    typer.Option("-o", "--out", metavar="FILE", help="Where the patch goes.", show_default=False),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing file (never a data file).")
]


@patch_app.command("show")
def show_command(patch: PatchFile, formats: Formats = None, outputs: OutputPath = None) -> int:
    """What it changes, where, by how much; who made it."""
    output = Output.of(formats, outputs)
    spare(output, patch)
    return emit(run("show_patch", {"path": patch}, None, output), output)


@patch_app.command("apply")
def apply_command(
    model: Model,
    patch: PatchFile,
    out: NewModel,
    force: Force = False,
    formats: Formats = None,
    reports: Reports = None,
    quiet: Quiet = False,
) -> int:
    """Write the model that PATCH makes of MODEL."""
    output = Output.of(formats, None, quiet=quiet, reports=reports)
    spare(output, model, patch, out)
    arguments = {"model": model, "patch": patch, "output": out, "force": force}
    return emit(run("apply_patch", arguments, None, output), output)


@patch_app.command("revert")
def revert_command(
    model: Model,
    patch: PatchFile,
    out: NewModel,
    force: Force = False,
    formats: Formats = None,
    reports: Reports = None,
    quiet: Quiet = False,
) -> int:
    """Write the model that PATCH was applied to, byte for byte."""
    output = Output.of(formats, None, quiet=quiet, reports=reports)
    spare(output, model, patch, out)
    arguments = {"model": model, "patch": patch, "output": out, "force": force}
    return emit(run("revert_patch", arguments, None, output), output)


@patch_app.command("diff")
def diff_command(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="An .onnx file.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another of the same graph.")],
    out: NewPatch,
    force: Force = False,
    formats: Formats = None,
    reports: Reports = None,
    quiet: Quiet = False,
) -> int:
    """Make a patch of two models that differ only in weights."""
    output = Output.of(formats, None, quiet=quiet, reports=reports)
    spare(output, before, after, out)
    arguments = {"before": before, "after": after, "output": out, "force": force}
    return emit(run("diff_models", arguments, None, output), output)


@patch_app.command("compose")
def compose_command(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A patch.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="One for FIRST's result.")],
    out: NewPatch,
    force: Force = False,
    formats: Formats = None,
    reports: Reports = None,
    quiet: Quiet = False,
) -> int:
    """Make one patch of two that follow each other."""
    output = Output.of(formats, None, quiet=quiet, reports=reports)
    spare(output, first, second, out)
    arguments = {"first": first, "second": second, "output": out, "force": force}
    return emit(run("compose_patches", arguments, None, output), output)
