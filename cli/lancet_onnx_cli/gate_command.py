# SPDX-License-Identifier: Apache-2.0
"""``lancet-onnx gate``: one verdict on one model or many, by a policy."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lancet_onnx_cli.arguments import told_data
from lancet_onnx_cli.bars import progress
from lancet_onnx_cli.choices import Device
from lancet_onnx_cli.options import (
    Answer,
    ColorOption,
    DataPath,
    Formats,
    LayoutOption,
    Mean,
    MemoryLimit,
    OutputPath,
    PreprocessOption,
    Quiet,
    ResizeOption,
    Std,
    Timeout,
    Verbose,
)
from lancet_onnx_cli.output import Output, emit, save_reports, spare, spare_by
from lancet_onnx_cli.running import limits_of, run
from lancet_onnx_cli.tables import printable

if TYPE_CHECKING:
    from lancet_onnx.api import DataOptions, Policy
    from lancet_onnx.contain import Limits
    from lancet_onnx.report import Report

Models = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Models, folders of them, quoted patterns (default: those of the policy).",
        show_default=False,
    ),
]
PolicyPath = Annotated[
    Path | None,
    typer.Option(
        "--policy", metavar="FILE", help="Default: ./lancet.toml, or [tool.lancet] in pyproject."
    ),
]
Start = Annotated[
    bool, typer.Option("--init", help="Write a commented policy that fits MODEL, and stop.")
]
Jobs = Annotated[
    int, typer.Option("--jobs", min=1, metavar="N", help="Models looked at at the same time.")
]
DeviceAsked = Annotated[
    Device | None,
    typer.Option(
        metavar="auto|cpu|cuda", help="Where onnxruntime runs (default: auto, or the policy's)."
    ),
]
SeedAsked = Annotated[
    int | None,
    typer.Option(metavar="N", help="Of the split and the search (default: 0, or the policy's)."),
]


def gate_command(
    models: Models = None,
    policy: PolicyPath = None,
    init: Start = False,
    jobs: Jobs = 1,
    data: DataPath = None,
    preprocess: PreprocessOption = None,
    mean: Mean = None,
    std: Std = None,
    color: ColorOption = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    answer: Answer = None,
    device: DeviceAsked = None,
    seed: SeedAsked = None,
    formats: Formats = None,
    outputs: OutputPath = None,
    memory_limit: MemoryLimit = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """One verdict for CI: does MODEL hold to the policy?"""
    output = Output.of(formats, outputs, quiet=quiet, verbose=verbose)
    told = told_data(data, preprocess, mean, std, color, layout, resize, answer)
    if init:
        limits = limits_of(memory_limit, timeout, usual=True)
        return _init(models or [], policy, told, limits, output)
    rules = _overridden(_policy(policy), told, device, seed)
    from lancet_onnx.api import check_policy, find_models

    if not models and not rules.models:
        raise typer.BadParameter("gate needs a MODEL, or [model] path in the policy")
    found = find_models(models or rules.models)
    triggers = [each.options for each in rules.triggers]
    masks = [each.mask for each in triggers]
    used = [rules.path, rules.baseline, rules.data.path, *(each.path for each in triggers), *masks]
    spare(output, *found, *used)
    check_policy(rules, found)
    limits = _limits(rules, memory_limit, timeout, min(jobs, len(found)))
    return emit(_run(found, rules, limits, jobs, output), output)


def _run(
    models: tuple[Path, ...], policy: Policy, limits: Limits, jobs: int, output: Output
) -> Report:
    """Look at all models; what is known of them is put into every file now and then."""
    with _kept(output) as keep:
        if len(models) == 1 and not limits:  # asked for: then nothing stands between, as elsewhere
            from lancet_onnx.api.gate_report import together

            keep(together([], policy, 0.0, missing=1))
            return run("gate", {"model": models[0], "policy": policy}, limits, output)
        from lancet_onnx.contain.several import gated

        with progress(output) as told:
            return gated(models, policy, limits, jobs=jobs, progress=told, done=keep)


_RARELY = 10
"""After a writing so many times as long passes before the next: that of thousands of models takes
its time."""


@contextmanager
def _kept(output: Output) -> Iterator[Callable[[Report], None]]:
    """Yield what keeps a report on some of the models; if that is all there will be, say where."""
    parts = replace(
        output, targets=tuple(each for each in output.targets if each[1] in output.files)
    )
    last: Report | None = None
    due = 0.0

    def keep(report: Report) -> None:
        nonlocal last, due
        if not report.body["partial"]:  # whole, it is written like every other report
            return
        last, begun = report, time.monotonic()
        if begun < due:
            return
        failed = save_reports(parts, lambda _: report)
        if report.body["models"]:
            due = time.monotonic() + _RARELY * (time.monotonic() - begun)
        elif failed is not None:
            raise failed  # while there is no verdict to lose; later it is told at the end

    try:
        yield keep
    except KeyboardInterrupt:
        if last is not None and parts.targets:
            report = last
            save_reports(parts, lambda _: report)  # it may have come between two of the files
            names = printable(", ".join(map(str, parts.files)))
            typer.echo(f"{names}: what was known until then, marked partial", err=True)
        raise


def _policy(path: Path | None) -> Policy:
    from lancet_onnx.api import find_policy, read_policy

    found = path or find_policy(Path())
    if found is None:
        raise typer.BadParameter(
            "no policy: neither lancet.toml nor [tool.lancet] in pyproject.toml is here; "
            "--policy FILE names one, and gate --init MODEL writes one"
        )
    return read_policy(found)


def _overridden(
    policy: Policy, told: DataOptions, device: Device | None, seed: int | None
) -> Policy:
    from lancet_onnx_cli.policy_file import completed

    asked = replace(
        policy.asked,
        device=device or policy.asked.device,
        seed=policy.asked.seed if seed is None else seed,
    )
    return replace(policy, data=completed(told, policy.data), asked=asked)


def _limits(policy: Policy, memory: str | None, seconds: float | None, jobs: int) -> Limits:
    """Return the limits of one model; the usual memory is shared among those at work.

    Raises:
        BadParameter: no size or time, or less time than the policy's search may take.
    """
    asked = policy.asked
    budget = asked.scan_budget if asked.scan else None
    size = asked.memory_limit if memory is None else memory
    time = asked.timeout if seconds is None else seconds
    if budget and time and time <= budget:
        raise typer.BadParameter(
            f"a timeout of {time:g} s with a scan_budget of {budget:g} s: the search would be "
            "ended before it has a verdict; give more time"
        )
    limits = limits_of(size, time, usual=True, budget=budget)
    if size is None and limits.memory is not None:
        limits = replace(limits, memory=limits.memory // jobs)
    return limits


def _init(
    models: list[Path], path: Path | None, told: DataOptions, limits: Limits, output: Output
) -> int:
    if len(models) != 1:
        raise typer.BadParameter("--init needs one MODEL, which the policy is to fit")
    from lancet_onnx.api import starting_policy
    from lancet_onnx.errors import LancetError, OutputError
    from lancet_onnx.model.files import save

    (model,), goal = models, path or Path("lancet.toml")
    if goal.exists() or goal.is_symlink():
        raise OutputError(f"{goal}: exists already; remove it, or give another with --policy")
    spare_by(goal, model)
    seen = run("inspect", {"path": model, "output": told.output}, limits, output)
    if seen.exit_code:
        raise LancetError("; ".join(seen.reasons))
    save(starting_policy(model, seen.body, told, goal.parent).encode(), goal)
    if not output.quiet:
        named = f" --policy {shlex.quote(str(goal))}" if path else ""
        typer.echo(f"{goal}: written; look it through, then: lancet-onnx gate{named}", err=True)
    return 0
