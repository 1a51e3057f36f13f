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
    typer.Option("--trigger", help="Trigger picture (or .npz with mask and pattern)."),
]
Mask = Annotated[Path | None, typer.Option(help="Grey picture: the trigger's opacity.")]
TriggerMode = Annotated[
    Mode | None, typer.Option(help="How to stamp, instead of what the picture implies.")
]
Position = Annotated[
    str | None,
    typer.Option(help="LEFT,TOP of a trigger smaller than the input (default bottom-right)."),
]
Target = Annotated[
    int | None, typer.Option(help="The attacker's class (default: the one the trigger leads to).")
]
Classes = Annotated[
    str | None,
    typer.Option(metavar="0,3,7", help="Without --trigger: look at these classes only."),
]
Budget = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Without --trigger: the best verdict in this time (default: all)."
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Without --trigger: keep the search here; go on from it if it is there.",
    ),
]
DataPath = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of class folders, flat folder, .npz (x, y) or CSV."),
]
PreprocessOption = Annotated[
    str | None,
    typer.Option(
        help="unit, minus1to1, imagenet, uint8, none, a .toml or a preprocessor_config.json."
    ),
]
Mean = Annotated[str | None, typer.Option(help="Comma-separated means, overriding --preprocess.")]
Std = Annotated[str | None, typer.Option(help="Comma-separated deviations, likewise.")]
ColorOption = Annotated[Color | None, typer.Option(help="Channel order the model wants.")]
LayoutOption = Annotated[Layout | None, typer.Option(help="Axis order the model wants.")]
ResizeOption = Annotated[Resize, typer.Option(help="How pictures of another size are fitted.")]
Answer = Annotated[
    str | None,
    typer.Option("--output", metavar="NAME", help="Which of the model's outputs holds the scores."),
]
DeviceOption = Annotated[Device, typer.Option(help="Where onnxruntime runs.")]
Seed = Annotated[int, typer.Option(help="Of the split and every other random choice.")]
Formats = Annotated[
    list[Format] | None,
    typer.Option(
        "-f", "--format", metavar="FORMAT", help="text, json or html; repeatable, with -o for each."
    ),
]
OutputPath = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE",
        help="Where a report goes: .json, .html or .txt; with -f, the last -f first served.",
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no tables.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Also the time of each stage.")]
Loss = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Budget: share of clean images that may be lost."),
]
PairCount = Annotated[
    int, typer.Option("--pairs", min=4, metavar="K", help="Pairs to locate weights on.")
]
StopCount = Annotated[
    int,
    typer.Option("--stop", min=1, metavar="R", help="Triggered images that end a search of flips."),
]
GuardCount = Annotated[
    int,
    typer.Option("--guard", min=1, metavar="G", help="Images that are learnt from or kept as is."),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", metavar="FILE", help="Also write the report here (.html, .json or .txt)."
    ),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Run in a child process with at most this memory, e.g. 4G; 0 for no limit. "
        "Default: 3/4 of the machine's for scan and explain, no limit for others.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Run in a child process for at most this long; 0 for no limit. "
        "Default: 3600 for scan, on top of --budget, and explain; no limit for others.",
    ),
]
