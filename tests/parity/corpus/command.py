# SPDX-License-Identifier: Apache-2.0
"""Arguments of `tests/parity/corpus.py`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

CACHE = Path.home() / ".cache" / "lancet-onnx" / "corpus"


def main(arguments: list[str] | None = None) -> int:
    """Parse and do; return the exit code."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write the models and their inputs into the cache")
    build.add_argument("--again", action="store_true", help="retry what failed")
    build.add_argument("--force", action="store_true", help="make what is there anew")
    build.add_argument("--seconds", type=int, default=180, help="for one export")
    build.add_argument("--minutes", type=float, help="start nothing new after this")
    check = commands.add_parser("check", help="compare lancet-onnx with onnxruntime")
    check.add_argument("--write", type=Path, help="write the table as Markdown")
    check.add_argument("--again", action="store_true", help="also rows that passed before")
    check.add_argument("--seconds", type=int, default=240, help="for one row")
    logic = commands.add_parser("logic", help="look for graph-logic backdoors: there are none")
    part = commands.add_parser("slice", help="build and check a small set with every operator")
    part.add_argument("--choose", action="store_true", help="print a covering set instead")
    for command in (build, check, logic, part):
        command.add_argument("--cache", type=Path, default=CACHE if command is not part else None)
    for command in (build, check, logic):
        command.add_argument("--only", action="append", help="names that hold this; repeatable")
    options = parser.parse_args(arguments)
    if options.command == "build":
        from corpus.building import build as run
        from corpus.building import say
        from corpus.catalogue import recipes

        limit = time.monotonic() + 60 * options.minutes if options.minutes else None
        done = run(
            recipes(options.only),
            options.cache,
            again=options.again,
            force=options.force,
            seconds=options.seconds,
            stop_at=limit,
        )
        say(", ".join(f"{name}: {count}" for name, count in done.items()))
        return 0
    if options.command == "check":
        from corpus.checking import check as look

        return look(
            options.cache,
            options.only,
            again=options.again,
            seconds=options.seconds,
            target=options.write,
        )
    if options.command == "logic":
        from corpus.alarms import alarms

        return alarms(options.cache, options.only)
    from corpus.slicing import choose, run_slice

    return choose(options.cache) if options.choose else run_slice(options.cache)
