# SPDX-License-Identifier: Apache-2.0
"""The child process: limits first, then one call of the library, its outcome as a line of JSON."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import IO, get_type_hints

from lancet_onnx.contain.codec import from_plain, report_to_plain
from lancet_onnx.contain.limits import Limits, gpu_present, limit_this_process
from lancet_onnx.errors import LancetError, ModelError

COMMANDS = (
    "scan",
    "repair",
    "repair_blind",
    "repair_errors",
    "verify",
    "inspect",
    "gate",
    "explain",
)
NO_MEMORY = (
    "bad_alloc",
    "allocate memory",
    "failed to allocate",
    "out of memory",
    "failed to map segment",  # of a library that is being loaded
)
"""What torch, onnxruntime and the C++ library say when there is no more memory."""


def main() -> None:
    """Read one request from stdin, serve it, answer on what was stdout."""
    # Whatever native code prints must not get between the lines of the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of it and decides
    signal.signal(signal.SIGTERM, _interrupt)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limits = Limits(*request["limits"])
    device = _device(request["arguments"])
    limit_this_process(limits, gpu=device != "cpu" and gpu_present())
    try:
        _answer(answers, _serve(request["command"], request["arguments"], answers))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        _answer(answers, _failure(error))
    os._exit(0)  # all is said; tidying up torch takes longer than some scans


def _device(arguments: Mapping[str, object]) -> object:
    """Return where the call runs its model; a gate's policy says it."""
    policy = arguments.get("policy")
    asked = policy.get("asked") if isinstance(policy, Mapping) else None
    return (asked if isinstance(asked, Mapping) else arguments).get("device", "auto")


def _serve(command: str, arguments: Mapping[str, object], answers: IO[str]) -> dict[str, object]:
    if command not in COMMANDS:
        raise ValueError(f"no command {command!r}")
    from lancet_onnx import api  # loads torch, within the limits

    def progress(what: str, share: float) -> None:
        _answer(answers, {"progress": [what, share]})

    call = getattr(api, command)
    hints = get_type_hints(call)
    known = {name: from_plain(hints[name], value) for name, value in arguments.items()}
    if "progress" in inspect.signature(call).parameters:
        known["progress"] = progress
    return report_to_plain(call(**known))


def _failure(error: Exception) -> dict[str, object]:
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) and before not in chain:
        chain.append(before)
    if full := [link for link in chain if _no_memory(link)]:
        card = any("cuda" in str(link).lower() for link in full)
        return {"no_memory": "card" if card else "machine"}
    return {
        "error": {
            "type": type(error).__name__,
            "known": isinstance(error, LancetError),
            "text": error.text if isinstance(error, ModelError) else str(error),
            "rule": error.rule.id if isinstance(error, ModelError) and error.rule else None,
            "traceback": "".join(traceback.format_exception(error)),
        }
    }


def _no_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY)


def _answer(answers: IO[str], message: Mapping[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Nobody needs the answer once the parent is gone: its end of stdin then closes."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
