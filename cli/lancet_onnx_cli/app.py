# SPDX-License-Identifier: Apache-2.0
"""Entry point: exit codes 0, 1, 2, 3, 70 and 130, and errors without tracebacks."""

from __future__ import annotations

import difflib
import errno
import os
import re
import signal
import sys
import traceback

import typer

from lancet_onnx_cli.commands import app
from lancet_onnx_cli.examples import with_examples
from lancet_onnx_cli.tables import printable

_ENVIRONMENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS", "ESTALE", "ENXIO", "ENODEV"),
        *("ENOMEM", "EMFILE", "ENFILE", "ENOLCK", "ETIMEDOUT", "ELOOP", "ENAMETOOLONG", "EBUSY"),
    )
    if hasattr(errno, name)
)
"""What the system may answer anywhere: a broken disk or network drive, no space, no permission."""

_LIBRARIES = ("onnxruntime", "torch", "onnx", "numpy", "safetensors", "PIL", "jinja2", "rich")


def main() -> None:
    """Run the command line and exit with the code of DESIGN.md section 4."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    # Pipelines end what they cancel so: children are ended and partial results kept, as by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = with_examples(app)(standalone_mode=False, prog_name="lancet-onnx")
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        # The reader of stdout has gone; say nothing more, there or at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = _explain(error, debug=debug)
    if code == 130:  # also what typer makes of Ctrl-C
        _say("interrupted; nothing was left half written")
    sys.exit(code or 0)


def _explain(error: Exception, *, debug: bool = False) -> int:
    """Say what went wrong and return the exit code."""
    code = _typer_code(error)
    if code is not None:
        return code
    # Imported late: it loads torch, for which usage errors and --help need not wait.
    from lancet_onnx.errors import LancetError, UsageError

    if isinstance(error, LancetError):
        _say(f"error: {error}")
        return 2 if isinstance(error, UsageError) else 3
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in _LIBRARIES:
        _say(f"error: {error}; `lancet-onnx doctor` says how to mend the installation")
        return 3
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"error: {where}{error.strerror}; mend that and run the same command again")
        return 3
    from lancet_onnx.contain import ChildError

    if isinstance(error, ChildError) and debug:
        print(error.traceback, file=sys.stderr)  # noqa: T201
    kind = "" if isinstance(error, ChildError) else f"{type(error).__name__}: "
    _say(
        f"bug in lancet-onnx: {kind}{error}",
        "Run the same command with --debug for the traceback, and report it",
    )
    return 70


def _typer_code(error: Exception) -> int | None:
    """Show a usage error and return its exit code; None for any other error."""
    code, text = getattr(error, "exit_code", None), getattr(error, "format_message", None)
    if not isinstance(code, int) or not callable(text):
        return code if isinstance(code, int) else None
    message = _nearest(str(text()).replace("Value error, ", ""))
    if message.startswith("Usage:"):  # no arguments at all: the help is the answer
        print(message, file=sys.stderr)  # noqa: T201
        return code
    if isinstance(error, typer.BadParameter) and error.param is None and not error.param_hint:
        message = error.message
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "lancet-onnx"
    _say(f"error: {message}", f"Try '{command} --help'")
    return code


def _nearest(message: str) -> str:
    """Add what may have been meant to a complaint about one of several words."""
    found = re.search(r"'([^']*)' is not one of ('.*')", message)
    words = re.findall(r"'([^']*)'", found[2]) if found else []
    near = difflib.get_close_matches(found[1], words, 1, 0.5) if found else []
    return f"{message.rstrip('.')}; did you mean '{near[0]}'?" if near else message


def _say(*lines: str) -> None:
    """Speak of an error; text from a model may hold terminal control sequences."""
    for line in lines:
        print(printable(line), file=sys.stderr)  # noqa: T201
