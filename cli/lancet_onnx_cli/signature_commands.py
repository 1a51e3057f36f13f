# SPDX-License-Identifier: Apache-2.0
"""``lancet-onnx signature ...``: sign a folder with model, patch and report, and check that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lancet_onnx_cli.options import Formats, OutputPath, Quiet, Reports
from lancet_onnx_cli.output import Output, emit, spare
from lancet_onnx_cli.running import run

signature_app = typer.Typer(
    name="signature",
    help="Sign a model folder, or check its signature.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Holds model, patch, report.", show_default=False)
]


@signature_app.command("make")
def make_command(
    folder: Folder,
    key: Annotated[
        Path,
        typer.Option("--key", metavar="FILE", help="Private key of an elliptic curve, PEM."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="The signature (default FOLDER/model.sig)."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older signature.")] = False,
    formats: Formats = None,
    reports: Reports = None,
    quiet: Quiet = False,
) -> int:
    """Sign every file in FOLDER."""
    output = Output.of(formats, None, quiet=quiet, reports=reports)
    spare(output, key, out)
    arguments = {"folder": folder, "key": key, "signature": out, "force": force}
    return emit(run("sign", arguments, None, output), output)


@signature_app.command("check")
def check_command(
    folder: Folder,
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="Public key of an elliptic curve, PEM.")
    ],
    signature: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The signature (default FOLDER/model.sig)."),
    ] = None,
    formats: Formats = None,
    outputs: OutputPath = None,
    quiet: Quiet = False,
) -> int:
    """Are the files in FOLDER those that were signed?"""
    output = Output.of(formats, outputs, quiet=quiet)
    spare(output, key, signature)
    arguments = {"folder": folder, "key": key, "signature": signature}
    return emit(run("check_signature", arguments, None, output), output)
