# SPDX-License-Identifier: Apache-2.0
"""Entry point: exit codes 0, 1, 2, 3, 70 and 130, and errors without tracebacks."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from lancet_onnx.errors import LancetError, UsageError
from lancet_onnx_cli.commands import app


def main() -> None:
    """Run the command line and exit with the code of DESIGN.md section 4."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        code = app(standalone_mode=False)
    except LancetError as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {error}")
        code = 2 if isinstance(error, UsageError) else 3
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted; nothing was left half written")
        code = 130
    except BrokenPipeError:
        # The reader of stdout has gone; say nothing more, there or at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        code = _typer_code(error)
        if code is None:
            if debug:
                traceback.print_exc()
            _say(
                f"bug in lancet-onnx: {type(error).__name__}: {error}\n"
                "Run the same command with --debug for the traceback, and report it"
            )
            code = 70
    sys.exit(code or 0)


def _typer_code(error: Exception) -> int | None:
    """Show a usage error of the parser as it wants to be shown, and return its exit code."""
    code, show = getattr(error, "exit_code", None), getattr(error, "show", None)
    if isinstance(code, int) and callable(show):
        show()
        return code
    return code if isinstance(code, int) else None


def _say(text: str) -> None:
    print("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text), file=sys.stderr)  # noqa: T201 - the one place that speaks of errors
