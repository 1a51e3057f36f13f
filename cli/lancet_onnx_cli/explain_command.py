# SPDX-License-Identifier: Apache-2.0
"""``lancet-onnx explain``: pictures of where errors come from, and of what the weights look for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lancet_onnx_cli.arguments import data_of
from lancet_onnx_cli.options import (
    Answer,
    ColorOption,
    DataPath,
    DeviceOption,
    Errors,
    Formats,
    LayoutOption,
    Mean,
    MemoryLimit,
    Model,
    OutputPath,
    PreprocessOption,
    Quiet,
    ResizeOption,
    Seed,
    Std,
    Timeout,
    Verbose,
)
from lancet_onnx_cli.output import Output, emit, spare
from lancet_onnx_cli.running import limits_of, run


def explain_command(
    model: Model,
    data: DataPath = None,
    errors: Errors = None,
    patch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Show the weights that this patch changes, and its effect."
        ),
    ] = None,
    shown: Annotated[
        int, typer.Option("--show", min=1, max=8, metavar="N", help="Errors to show, at most.")
    ] = 8,
    preprocess: PreprocessOption = None,
    mean: Mean = None,
    std: Std = None,
    color: ColorOption = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    answer: Answer = None,
    device: DeviceOption = "auto",
    seed: Seed = 0,
    formats: Formats = None,
    outputs: OutputPath = None,
    memory_limit: MemoryLimit = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Where do errors come from? A page of pictures (-o PAGE.html)."""
    output = Output.of(formats, outputs, quiet=quiet, verbose=verbose, pages=True)
    limits = limits_of(memory_limit, timeout, usual=True)
    options = data_of(data, preprocess, mean, std, color, layout, resize, answer)
    if options.path is None:
        raise typer.BadParameter("explain needs --data: images that the model takes")
    spare(output, model, options.path, errors, patch, attaching=True)
    arguments: dict[str, object] = {
        "model": model,
        "data": options,
        "errors": errors,
        "patch": patch,
        "shown": shown,
        "device": device,
        "seed": seed,
    }
    return emit(run("explain", arguments, limits, output), output)
