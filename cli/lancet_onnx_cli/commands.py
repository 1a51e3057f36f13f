# SPDX-License-Identifier: Apache-2.0
"""The commands: parse into frozen options, one call of the library, hand over to `output`.

The library is imported by the command that runs: loading torch takes seconds, which `--help` and
usage errors need not wait for.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from lancet_onnx_cli.arguments import data_of, place_of, refuse, search_of, trigger_of
from lancet_onnx_cli.choices import Method
from lancet_onnx_cli.explain_command import explain_command
from lancet_onnx_cli.gate_command import gate_command
from lancet_onnx_cli.options import (
    Answer,
    Budget,
    Classes,
    ColorOption,
    DataPath,
    DeviceOption,
    Errors,
    Formats,
    GuardCount,
    LayoutOption,
    Loss,
    Mask,
    Mean,
    MemoryLimit,
    Model,
    OutputPath,
    PairCount,
    Position,
    PreprocessOption,
    Quiet,
    Regression,
    Reports,
    ResizeOption,
    Seed,
    State,
    Std,
    StopCount,
    Target,
    Timeout,
    TriggerMode,
    TriggerPath,
    Verbose,
)
from lancet_onnx_cli.output import Output, emit, spare, spare_by
from lancet_onnx_cli.patch_commands import patch_app
from lancet_onnx_cli.running import limits_of, run
from lancet_onnx_cli.scanned import from_scan as suspected
from lancet_onnx_cli.signature_commands import signature_app

app = typer.Typer(
    name="lancet-onnx",
    help="Find backdoors in ONNX classifiers, locate the weights that cause them, repair those.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (works anywhere).")
    ] = False,
) -> None:
    """Print the version on demand; `app.main` has taken --debug out before."""
    if show:
        typer.echo(f"lancet-onnx {metadata.version('lancet-onnx')}")
        raise typer.Exit(0)


@app.command("demo")
def demo_command(
    files: Annotated[
        bool, typer.Option("--files", help="Only write the model, its trigger and images there.")
    ] = False,
) -> int:
    """The whole story on a bundled model; writes ./lancet-demo/."""
    if files:
        from lancet_onnx_cli.demo_files import unpack

        typer.echo(", ".join(map(str, unpack())))
        return 0
    from lancet_onnx_cli.demo_run import demo

    return demo()


@app.command("scan")
def scan_command(
    model: Model,
    trigger: TriggerPath = None,
    data: DataPath = None,
    target: Target = None,
    mask: Mask = None,
    trigger_mode: TriggerMode = None,
    position: Position = None,
    preprocess: PreprocessOption = None,
    mean: Mean = None,
    std: Std = None,
    color: ColorOption = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    answer: Answer = None,
    classes: Classes = None,
    budget: Budget = None,
    state: State = None,
    device: DeviceOption = "auto",
    seed: Seed = 0,
    formats: Formats = None,
    outputs: OutputPath = None,
    memory_limit: MemoryLimit = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Is there a backdoor, for a given trigger or any, and where?

    It runs in a child process: three quarters of the memory and an hour (beside --budget) at most.
    """
    output = Output.of(formats, outputs, quiet=quiet, verbose=verbose)
    place = place_of(position)
    if trigger is None:
        why = "is of a given trigger; give --trigger as well"
        refuse(why, mask=mask, trigger_mode=trigger_mode, position=place)
        refuse(f"{target} is of a given trigger; --classes {target} looks for one", target=target)
    else:
        why = "is of a search for unknown triggers, which --trigger makes needless"
        refuse(why, classes=classes, budget=budget, state=state)
    search = search_of(classes, budget, state, timeout)
    limits = limits_of(memory_limit, timeout, usual=True, budget=budget)
    options = data_of(data, preprocess, mean, std, color, layout, resize, answer)
    spare(output, model, trigger, mask, options.path, state, attaching=trigger is None)
    if state is not None:
        spare_by(state, model, options.path)
    arguments: dict[str, object] = {
        "model": model,
        "trigger": trigger and trigger_of(trigger, mask, trigger_mode, place, target),
        "data": options,
        **({} if trigger else {"search": search}),
        "device": device,
        "seed": seed,
    }
    return emit(run("scan", arguments, limits, output), output)


@app.command("repair")
def repair_command(
    model: Model,
    output_path: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="FILE", help="The repaired model.", show_default=False),
    ],
    trigger: TriggerPath = None,
    from_scan: Annotated[
        Path | None,
        typer.Option("--from", metavar="SCAN.json", help="Triggers that a scan found."),
    ] = None,
    errors: Errors = None,
    data: DataPath = None,
    method: Annotated[
        Method, typer.Option(metavar="HOW", help="auto, flip, mute or tune.")
    ] = "auto",
    as_published: Annotated[
        bool, typer.Option("--as-published", help="The paper's rules, to the letter.")
    ] = False,
    compensate: Annotated[
        bool, typer.Option(help="Move biases to keep the mean.", show_default=False)
    ] = True,
    max_accuracy_loss: Loss = 0.01,
    max_regression: Regression = None,
    pairs: PairCount = 20,
    stop: StopCount = 500,
    guard: GuardCount = 1000,
    patch: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The patch; else beside the model.")
    ] = None,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Add no entry to the model's metadata.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write the best even if not_repaired.")
    ] = False,
    target: Target = None,
    mask: Mask = None,
    trigger_mode: TriggerMode = None,
    position: Position = None,
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
    reports: Reports = None,
    memory_limit: MemoryLimit = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Change the few weights that cause it; write a new model."""
    shown = Output.of(formats, None, quiet=quiet, verbose=verbose, reports=reports)
    place = place_of(position)
    options = data_of(data, preprocess, mean, std, color, layout, resize, answer)
    if options.path is None:
        raise typer.BadParameter(
            "repair needs --data: clean images, labelled or not (labelled where errors are "
            "repaired)"
        )
    known = trigger or from_scan
    if known is None:
        why = "is of a trigger; give --trigger or --from as well, or leave it away to repair errors"
        refuse(why, mask=mask, trigger_mode=trigger_mode, position=place, target=target)
    else:
        why = "is of errors on honest images; leave --trigger and --from away"
        refuse(why, errors=errors, max_regression=max_regression)
    spare(shown, model, trigger, mask, options.path, from_scan, errors, output_path, patch)
    from lancet_onnx.api import CorrectOptions, RepairOptions, Sizes, SuspectOptions

    call = "repair"
    against: dict[str, object]
    if from_scan is not None:
        found = suspected(from_scan, model, trigger, mask, trigger_mode, place, target)
        blind = isinstance(found, SuspectOptions)
        call = "repair_blind" if blind else call
        against = {"suspects" if blind else "trigger": found}
    elif trigger is not None:
        against = {"trigger": trigger_of(trigger, mask, trigger_mode, place, target)}
    else:
        call = "repair_errors"
        allowed = {} if max_regression is None else {"max_regression": max_regression}
        against = {"correct": CorrectOptions(errors, **allowed)}
    arguments = {
        "model": model,
        **against,
        "data": options,
        "options": RepairOptions(
            output_path,
            patch,
            method,
            as_published,
            compensate,
            max_accuracy_loss,
            force,
            keep,
            not no_metadata,
            Sizes(pairs, stop, guard),
        ),
        "device": device,
        "seed": seed,
    }
    limits = limits_of(memory_limit, timeout, usual=False)
    return emit(run(call, arguments, limits, shown), shown)


@app.command("verify")
def verify_command(
    model: Model,
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="The repaired .onnx file.")],
    data: DataPath = None,
    trigger: TriggerPath = None,
    target: Target = None,
    mask: Mask = None,
    trigger_mode: TriggerMode = None,
    position: Position = None,
    preprocess: PreprocessOption = None,
    mean: Mean = None,
    std: Std = None,
    color: ColorOption = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    answer: Answer = None,
    max_accuracy_loss: Loss = 0.01,
    device: DeviceOption = "auto",
    formats: Formats = None,
    outputs: OutputPath = None,
    memory_limit: MemoryLimit = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Compare a repaired model with the original, by onnxruntime."""
    output = Output.of(formats, outputs, quiet=quiet, verbose=verbose)
    place = place_of(position)
    options = data_of(data, preprocess, mean, std, color, layout, resize, answer)
    if options.path is None:
        raise typer.BadParameter("verify needs --data: images, labelled or not")
    spare(output, model, fixed, trigger, mask, options.path)
    stamp = trigger_of(trigger, mask, trigger_mode, place, target) if trigger else None
    arguments = {
        "model": model,
        "fixed": fixed,
        "data": options,
        "trigger": stamp,
        "max_accuracy_loss": max_accuracy_loss,
        "device": device,
    }
    limits = limits_of(memory_limit, timeout, usual=False)
    return emit(run("verify", arguments, limits, output), output)


app.command("gate")(gate_command)
app.command("explain")(explain_command)
app.add_typer(patch_app)
app.add_typer(signature_app)


@app.command("inspect")
def inspect_command(
    model: Model,
    answer: Answer = None,
    formats: Formats = None,
    outputs: OutputPath = None,
    memory_limit: MemoryLimit = None,
    timeout: Timeout = None,
) -> int:
    """Inputs, layers, editable weights, what is not supported."""
    output = Output.of(formats, outputs)
    spare(output, model)
    limits = limits_of(memory_limit, timeout, usual=False)
    return emit(run("inspect", {"path": model, "output": answer}, limits, output), output)


@app.command("doctor")
def doctor_command(formats: Formats = None, outputs: OutputPath = None) -> int:
    """Versions, what would run where, and how to mend it."""
    output = Output.of(formats, outputs)
    spare(output)
    return emit(run("doctor", {}, None, output), output)
