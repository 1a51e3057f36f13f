# SPDX-License-Identifier: Apache-2.0
"""Write docs/reference/cli.md from the commands themselves; `--check` only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lancet_onnx_cli.commands import app
from lancet_onnx_cli.examples import EXAMPLES
from typer.main import get_command

from lancet_onnx.report.report import EXIT_CODES

PAGE = Path(__file__).parent / "reference" / "cli.md"

HEAD = """# Command line

Made from the commands by `python docs/cli.py`; a test compares. `lancet-onnx COMMAND --help` says
the same in the terminal.

The verdict is one word on stdout, and so are reports that `-f` asks for. Progress, tables and
warnings go to stderr. `-o` (for commands that write a model or a patch: `--report`) writes a report
to a file, in the form that the end of its name says: `.html`, `.json`, `.sarif`, `.xml` (JUnit),
`.md` or `.txt`. With at least as many `-f` as `-o`, `-f` says the forms of the files instead (the
last of each go together, and what is left goes to stdout); with fewer, it is for stdout. One file
that cannot be written takes away none of the others, nor the verdict, but the exit code is 3.
[JSON](json.md) has what a report holds.

`--data`, `--preprocess` and the other options of images are taken from `[data]` of `lancet.toml` in
the working folder where they are not given ([policy](../policy.md)). `NO_COLOR` is honoured.

## Exit codes

| exit code | meaning |
|---|---|
| 0 | done; the scan found nothing, the repair succeeded and was verified, the gate passed |
| 1 | a finding; the repair could not meet its budget; the gate failed |
| 2 | usage error, also in a policy |
| 3 | refused or inconclusive: bad model, bad images, unsupported operator, too few images |
| 70 | a bug in lancet-onnx; `--debug` shows the traceback |
| 130 | interrupted, by Ctrl-C or SIGTERM; nothing is left half written |

The verdicts, and the exit code that goes with each:

| commands | verdicts |
|---|---|
"""

VERDICTS = {
    "demo": ("repaired", "not_repaired"),
    "scan": ("clean", "backdoored", "inconclusive"),
    "repair": ("repaired", "not_repaired", "refused"),
    "verify": ("repaired", "pass", "not_repaired", "fail", "refused", "not_evaluated"),
    "gate": ("pass", "fail", "not_evaluated"),
    "signature check": ("pass", "fail"),
    "inspect": ("done", "refused"),
    "doctor": ("done", "fail"),
    "explain, patch ..., signature make": ("done",),
}
"""The words that commands answer with; whatever cannot be read or run is 3 and one sentence."""

Command = Any
Parameter = Any


def commands(group: Command = None, before: str = "") -> Iterator[tuple[str, Command]]:
    """Yield every command with what is typed for it, those of groups after their group's name."""
    root: Command = group or get_command(app)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def lines() -> Iterator[str]:
    """Yield the page line by line."""
    yield from HEAD.splitlines()
    for name, verdicts in VERDICTS.items():
        yield f"| {name} | {', '.join(f'`{each}` ({EXIT_CODES[each]})' for each in verdicts)} |"
    yield from ("", "## lancet-onnx", "", "| option | what | default |", "|---|---|---|")
    yield from (_row(each) for each in get_command(app).params)
    for name, command in commands():
        yield from ("", f"## {name}", "")
        yield from (" ".join(part.split()) for part in command.help.split("\n\n"))
        yield from ("", "```console", f"$ lancet-onnx {EXAMPLES[name]}", "```")
        if command.params:
            yield from ("", "| argument or option | what | default |", "|---|---|---|")
            yield from (_row(each) for each in command.params)


def _row(parameter: Parameter) -> str:
    what = parameter.help or ""
    if getattr(parameter, "multiple", False):
        what += " Repeatable."
    bounds = _bounds(parameter)
    what += f" {bounds}" if bounds else ""
    return f"| {_names(parameter)} | {_cell(what)} | {_default(parameter)} |"


def _names(parameter: Parameter) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    *short, long = parameter.opts
    if parameter.secondary_opts:
        return f"`{long}`, `{parameter.secondary_opts[0]}`"
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    return ", ".join(f"`{_cell(name)}`" for name in (*short, long + value))


def _bounds(parameter: Parameter) -> str:
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    if low is None:
        return ""
    return f"From {low:g} to {high:g}." if high is not None else f"At least {low:g}."


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "**required**"
    value = parameter.default
    if parameter.secondary_opts:
        return f"`{(parameter.opts if value else parameter.secondary_opts)[0]}`"
    return "" if value is None or value is False else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page, or with `--check` say whether it is up to date."""
    page = "\n".join(lines()) + "\n"
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text() == page else 1
    PAGE.write_text(page)
    print(f"{PAGE.name}: {len(page.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
