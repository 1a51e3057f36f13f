# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lancet_onnx_cli.choices import Color, Device, Format, Layout, Mode, Resize

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)]
TriggerPath = Annotated[
    Path | None,
    typer.Option("--trigger", metavar="FILE", help="Trigger picture, or .npz (mask, pattern)."),
]
Mask = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Grey picture: the trigger's opacity.")
]
TriggerMode = Annotated[
    Mode | None, typer.Option(metavar="MODE", help="Stamp it so: replace, blend or add.")
]
Position = Annotated[
    str | None,
    typer.Option(metavar="LEFT,TOP", help="Of a small trigger; else bottom right."),
]
Target = Annotated[
    int | None, typer.Option(metavar="CLASS", help="The attacker's class; else found out.")
]
Classes = Annotated[
    str | None,
    typer.Option(metavar="0,3,7", help="Without --trigger: only these classes."),
]
Budget = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Without --trigger: verdict in this time."),
]
State = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Without --trigger: to go on from later."),
]
DataPath = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="Folder of classes, flat folder, .npz, CSV."),
]
PreprocessOption = Annotated[
    str | None,
    typer.Option(metavar="HOW", help="unit minus1to1 imagenet uint8 none FILE."),
]
Mean = Annotated[
    str | None, typer.Option(metavar="M,M,M", help="Means, instead of --preprocess's.")
]
Std = Annotated[str | None, typer.Option(metavar="S,S,S", help="Deviations, likewise.")]
ColorOption = Annotated[
    Color | None, typer.Option(metavar="rgb|bgr", help="Channel order the model wants.")
]
LayoutOption = Annotated[
    Layout | None, typer.Option(metavar="nchw|nhwc", help="Axis order the model wants.")
]
ResizeOption = Annotated[
    Resize | None,
    typer.Option(
        metavar="squash|shortest",
        help="How pictures are fitted (default: squash, or the policy's).",
    ),
]
Answer = Annotated[
    str | None,
    typer.Option("--output", metavar="NAME", help="The model's output with the scores."),
]
DeviceOption = Annotated[
    Device, typer.Option(metavar="auto|cpu|cuda", help="Where onnxruntime runs.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of all random choices.")]
Formats = Annotated[
    list[Format] | None,
    typer.Option(
        "-f",
        "--format",
        metavar="FORM",
        help="text json html sarif junit markdown github.",
    ),
]
OutputPath = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE",
        help="Report: .html .json .txt .sarif .xml .md.",
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no tables.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Also the time of each stage.")]
Loss = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, metavar="SHARE", help="Clean images that may be lost."),
]
Errors = Annotated[
    Path | None,
    typer.Option("--errors", metavar="FILE", help="Errors with labels; else those in --data."),
]
Regression = Annotated[
    float | None,
    typer.Option(metavar="SHARE", min=0.0, max=1.0, help="Right ones that may break."),
]
PairCount = Annotated[
    int, typer.Option("--pairs", min=4, metavar="K", help="To locate weights on.")
]
StopCount = Annotated[
    int,
    typer.Option("--stop", min=1, metavar="R", help="Images that end flips."),
]
GuardCount = Annotated[
    int,
    typer.Option("--guard", min=1, metavar="G", help="Images to learn from."),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option("--report", metavar="FILE", help="Report: .html .json .txt .sarif .xml .md."),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Most memory of a child, e.g. 4G; 0: any."),
]
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Most time of a child process; 0: any."),
]
