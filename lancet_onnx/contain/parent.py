# SPDX-License-Identifier: Apache-2.0
"""The parent's side: start the child, listen, and say in a sentence how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lancet_onnx import errors
from lancet_onnx.contain.codec import report_from_plain, to_plain
from lancet_onnx.contain.limits import Limits, resident
from lancet_onnx.errors import LancetError, LimitError, ModelError
from lancet_onnx.report.report import Report
from lancet_onnx.rules import CRASH, MEMORY, RULES, TIME
from lancet_onnx.types import Progress, no_progress

CHILD = ("-m", "lancet_onnx.contain.child")
LARGEST_ANSWER = 256 << 20
_TICK = 0.2
_GRACE = 3.0
"""Seconds that a child has to end by itself, and once more after it was asked to."""

_MEMORY_MARGIN = 1.25
"""Memory that is counted by pages in use comes in larger steps than the kernel's own count."""


class ChildError(Exception):
    """A bug in lancet-onnx that showed in the child; `traceback` is the child's."""

    def __init__(self, message: str, traceback: str) -> None:
        """Keep what the child said."""
        super().__init__(message)
        self.traceback = traceback


def contained(
    command: str,
    arguments: Mapping[str, object],
    limits: Limits,
    progress: Progress = no_progress,
    stopped: Callable[[], bool] = lambda: False,
) -> Report:
    """Call `lancet_onnx.<command>(**arguments)` in a child process and return its report.

    Args:
        command: one of `child.COMMANDS`.
        arguments: by name; paths, frozen options and plain values.
        limits: on memory and time.
        progress: called with what the child reports.
        stopped: asked now and then; true ends the child, as an interruption does.

    Raises:
        KeyboardInterrupt: it was stopped.
        LimitError: the child was over a limit, or died.
        LancetError: as the call itself raises.
        ChildError: the call failed for a reason that is a bug.
    """
    request = {
        "command": command,
        "arguments": {name: to_plain(value) for name, value in arguments.items()},
        "limits": [limits.memory, limits.seconds],
    }
    model = str(arguments.get("model") or arguments.get("path"))
    child = subprocess.Popen(  # noqa: S603 - our own module in our own interpreter
        [sys.executable, *CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert child.stdin is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        answer = _listen(child, limits, progress, model, stopped)
    except BaseException:
        _signal(child, signal.SIGTERM)  # over a limit, or interrupted: no need to wait for it
        raise
    finally:
        _end(child, arguments)
    if answer is None:
        raise _died(child.returncode, limits, model)
    return _outcome(answer, limits, model)


def _listen(
    child: subprocess.Popen[bytes],
    limits: Limits,
    progress: Progress,
    model: str,
    stopped: Callable[[], bool],
) -> dict[str, object] | None:
    """Return the child's last message, None if it died without one."""
    deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
    for line in _lines(child, deadline, limits, model, stopped):
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            return None
        if "progress" not in message:
            return message
        with contextlib.suppress(TypeError, ValueError):
            what, share = message["progress"]
            progress(str(what), float(share))
    return None


def _lines(
    child: subprocess.Popen[bytes],
    deadline: float | None,
    limits: Limits,
    model: str,
    stopped: Callable[[], bool],
) -> Iterator[bytes]:
    assert child.stdout is not None  # noqa: S101 - a pipe was asked for
    held, seen = bytearray(), 0
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if stopped():
                raise KeyboardInterrupt
            if deadline is not None and time.monotonic() > deadline:
                raise LimitError(
                    f"{model}: running the model took longer than {limits.seconds:g} s; "
                    "--timeout gives it more",
                    TIME,
                )
            if limits.memory is not None and resident(child.pid) > _MEMORY_MARGIN * limits.memory:
                raise _no_memory(limits, model)
            if not selector.select(_TICK):
                continue
            part = os.read(child.stdout.fileno(), 1 << 16)
            if not part:
                return
            seen += len(part)
            if seen > LARGEST_ANSWER:
                raise LimitError(f"{model}: the process that ran the model talks too much", CRASH)
            held += part
            while (end := held.find(b"\n")) >= 0:
                yield bytes(held[:end])
                del held[: end + 1]


def _end(child: subprocess.Popen[bytes], arguments: Mapping[str, object]) -> None:
    """Let the child and all it started go: by itself, asked to tidy up, or killed."""
    try:
        for ask in (None, signal.SIGTERM, signal.SIGKILL):
            if ask is not None:
                _signal(child, ask)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(None if ask is signal.SIGKILL else _GRACE)
                break
    finally:
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
    _remove_temporary(Path(tempfile.gettempdir()), child.pid)
    for name, field in (("options", "output"), ("search", "state")):
        path = getattr(arguments.get(name), field, None)
        if isinstance(path, Path):
            _remove_temporary(path.parent, child.pid)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _remove_temporary(folder: Path, process: int) -> None:
    """Remove what a killed child was writing; names as `model.files` makes them."""
    for path in folder.glob(f".lancet-{process}-*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _died(code: int, limits: Limits, model: str) -> LimitError:
    if code == -getattr(signal, "SIGXCPU", 0):
        return LimitError(
            f"{model}: running the model took more processor time than --timeout allows", TIME
        )
    name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    room = "" if limits.memory is None else f", at most {_size(limits.memory)} of memory"
    return LimitError(
        f"{model}: the process that ran the model died ({name}{room}); nothing can be said about "
        "it. If it needs more memory, --memory-limit gives it more",
        CRASH,
    )


def _no_memory(limits: Limits, model: str) -> LimitError:
    room = "there is" if limits.memory is None else f"the {_size(limits.memory)} that it may take"
    return LimitError(
        f"{model}: running the model needs more memory than {room}; --memory-limit gives it more",
        MEMORY,
    )


def _outcome(answer: Mapping[str, object], limits: Limits, model: str) -> Report:
    if answer.get("no_memory") == "card":
        raise LimitError(
            f"{model}: running the model needs more memory than the graphics card has free; "
            "--device cpu does without the card",
            MEMORY,
        )
    if answer.get("no_memory"):
        raise _no_memory(limits, model)
    failure = answer.get("error")
    if isinstance(failure, Mapping):
        raise _failed(failure)
    try:
        return report_from_plain(answer)
    except ValueError as error:
        raise LimitError(f"{model}: {error}; nothing can be said about the model", CRASH) from error


def _failed(failure: Mapping[str, object]) -> Exception:
    kind = getattr(errors, str(failure.get("type")), None)
    text = str(failure.get("text"))
    if not failure.get("known") or not isinstance(kind, type) or not issubclass(kind, LancetError):
        return ChildError(f"{failure.get('type')}: {text}", str(failure.get("traceback")))
    if issubclass(kind, ModelError):
        return kind(text, RULES.get(str(failure.get("rule"))))
    return kind(text)


def _size(memory: int) -> str:
    return f"{memory / (1 << 30):.3g} GiB"
