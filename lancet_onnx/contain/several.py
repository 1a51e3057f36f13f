# SPDX-License-Identifier: Apache-2.0
"""A gate on several models, each in a child process of its own, some of them at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lancet_onnx.api.gate_report import broken, is_look, together
from lancet_onnx.api.policy import Policy
from lancet_onnx.contain.limits import Limits
from lancet_onnx.contain.parent import ChildError, contained
from lancet_onnx.errors import LancetError, ModelError
from lancet_onnx.report.report import Report
from lancet_onnx.rules import CRASH, Rule
from lancet_onnx.types import Progress, no_progress


def gated(
    models: Sequence[Path],
    policy: Policy,
    limits: Limits,
    *,
    jobs: int = 1,
    progress: Progress = no_progress,
    done: Callable[[Report], None] = lambda _report: None,
) -> Report:
    """Look at each model in a child process and return one report on all of them.

    How one model's look ends, by a crash, a limit or a bug, is that model's own result.

    Args:
        models: each once.
        policy: what is asked of each.
        limits: on memory and time, for each.
        jobs: how many are looked at at the same time, 1 or more.
        progress: called with what is being done, and the share of all models that is done.
        done: called with the report on those looked at so far, first of all with none.

    Raises:
        KeyboardInterrupt: the children are ended; `done` has had all that was known.
    """
    started = time.monotonic()
    stop = threading.Event()
    reports: dict[int, Report] = {}
    shares = _Shares(len(models), progress)

    def look(number: int) -> Report:
        model, begin = models[number], time.monotonic()
        rule: Rule | None
        arguments = {"model": model, "policy": policy}
        try:
            told = shares.of(number, model.name)
            report = contained("gate", arguments, limits, told, stop.is_set)
            if is_look(report, model):
                return report
            rule = CRASH
            reason = (
                f"{model}: the process that ran the model answered what is no report on it, as "
                "hostile code in it could; nothing can be said about it. Do not run it anywhere"
            )
        except ModelError as error:
            rule, reason = error.rule, error.text
        except (LancetError, OSError) as error:
            rule, reason = None, str(error)
        except ChildError as error:
            rule, reason = None, f"{model}: a bug in lancet-onnx: {error}; please report it"
        return broken(model, policy, rule, reason, time.monotonic() - begin)

    def so_far() -> Report:
        known = [reports[number] for number in sorted(reports)]
        missing = len(models) - len(known)
        return together(known, policy, time.monotonic() - started, missing=missing)

    done(so_far())
    pool = ThreadPoolExecutor(jobs)
    try:
        waiting = {pool.submit(look, number): number for number in range(len(models))}
        for ended in as_completed(waiting):
            reports[waiting[ended]] = ended.result()
            done(so_far())
    finally:
        stop.set()  # whoever is still at work has nobody to work for
        pool.shutdown(cancel_futures=True)
    return so_far()


class _Shares:
    """Progress of several models as that of one thing."""

    def __init__(self, count: int, progress: Progress) -> None:
        self._done = [0.0] * count
        self._progress = progress
        self._lock = threading.Lock()

    def of(self, number: int, name: str) -> Progress:
        """Return what a model's own progress is told to."""

        def tell(what: str, share: float) -> None:
            with self._lock:
                self._done[number] = min(max(share, 0.0), 1.0)
                shown = f"{name}: {what}" if len(self._done) > 1 else what
                self._progress(shown, sum(self._done) / len(self._done))

        return tell
