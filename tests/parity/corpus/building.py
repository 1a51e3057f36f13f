# SPDX-License-Identifier: Apache-2.0
"""The build: each recipe in a forked child with a limit on time and memory, resumable."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from corpus.store import Made, Recipe, Record, paths, save_inputs, write

SECONDS = 180
BYTES = 20 << 30
_TICK = 0.05


def say(text: str) -> None:
    """Write one line for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def build(
    recipes: Iterable[Recipe],
    cache: Path,
    *,
    again: bool = False,
    force: bool = False,
    seconds: int = SECONDS,
    stop_at: float | None = None,
) -> dict[str, int]:
    """Make what is not there yet; `again` retries what failed, `force` makes everything anew.

    Children are forked from a parent that has the exporters loaded: an import costs more than
    most exports. After `stop_at` (time.monotonic) nothing new is started.
    """
    done = {"made": 0, "failed": 0, "there": 0, "left": 0}
    entries = list(recipes)
    usable = {name: _importable(name) for recipe in entries for name in recipe.needs}
    if usable.get("onnxscript"):
        _warm()
    for recipe in sorted(entries, key=lambda entry: entry.slow):
        record_file = paths(cache, recipe.name)[2]
        there = record_file.exists() and not force
        if there and not (again and json.loads(record_file.read_text())["error"]):
            done["there"] += 1
            continue
        if not all(usable[name] for name in recipe.needs) or (
            stop_at is not None and time.monotonic() > stop_at
        ):
            done["left"] += 1
            continue
        record = _one(recipe, cache, seconds * (4 if recipe.slow else 1))
        done["failed" if record.error else "made"] += 1
        outcome = record.error or f"{record.bytes / 1e6:8.1f} MB {record.note}"
        say(f"{time.strftime('%H:%M:%S')} {record.seconds:6.1f} s  {recipe.name}  {outcome}")
    return done


def _importable(name: str) -> bool:
    if importlib.util.find_spec(name) is None:
        return False
    importlib.import_module(name)
    return True


def _warm() -> None:
    """Let the exporter fill its tables once, so that no child has to."""
    import torch

    from corpus.torch_export import export

    with tempfile.TemporaryDirectory() as folder:
        example = (torch.zeros(4, 2),)
        export(
            torch.nn.Linear(2, 2), example, Path(folder) / "m.onnx", dynamo=True, opset=20, batch=1
        )


def _one(recipe: Recipe, cache: Path, seconds: int) -> Record:
    model, _inputs, record_file = paths(cache, recipe.name)
    model.parent.mkdir(parents=True, exist_ok=True)
    for old in model.parent.glob(model.name + "*"):
        old.unlink()
    base = Record(recipe.name, recipe.exporter, recipe.opset)
    start = time.monotonic()
    reason = in_child(lambda: _child(recipe, base, cache), seconds)
    if reason or not record_file.exists():
        write(cache, replace(base, error=reason or "the exporting process died"))
    record = Record(**json.loads(record_file.read_text()))
    record.seconds = round(time.monotonic() - start, 1)
    if record.error:
        for old in model.parent.glob(model.name + "*"):
            old.unlink()
    write(cache, record)
    return record


def in_child(work: Callable[[], object], seconds: int) -> str:
    """Do a piece of work in a process of its own; return what stopped it, if anything did."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return _wait_for(child, start, seconds)


def _wait_for(child: int, start: float, seconds: int) -> str:
    """Wait for a child with limits on time and memory; return what stopped it, if anything did."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            killed = os.WIFSIGNALED(status)
            return f"died by signal {os.WTERMSIG(status)}" if killed else ""
        reason = ""
        if time.monotonic() - start > seconds:
            reason = f"not exported within {seconds} s"
        elif _resident(child) > BYTES:
            reason = f"took more than {BYTES >> 30} GiB"
        if reason:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return reason
        time.sleep(_TICK)


def _resident(process: int) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _child(recipe: Recipe, base: Record, cache: Path) -> None:
    """Run the recipe and write its record: the file's name and inputs, or the exporter's words."""
    model, inputs, _ = paths(cache, recipe.name)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        made: Made = recipe.build(model)
        save_inputs(inputs, made.inputs)
        size = sum(f.stat().st_size for f in model.parent.glob(model.name + "*"))
        record = replace(
            base,
            file=str(model.relative_to(cache)),
            inputs=list(made.inputs),
            batch=made.batch,
            kind=made.kind,
            note=made.note,
            mixes=made.mixes,
            shared=list(made.shared),
            bytes=size,
        )
    except BaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
        record = replace(base, error=f"{text} ({Path(where.filename).name}:{where.lineno})")
    write(cache, record)
