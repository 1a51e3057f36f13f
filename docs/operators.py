# SPDX-License-Identifier: Apache-2.0
"""Write docs/operators.md from the operator table; `--check` only compares."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from lancet_onnx.model.functions import defined_by_functions
from lancet_onnx.ops import Operator, OpKey, table
from lancet_onnx.runtime.control import KNOWN

PAGE = Path(__file__).with_name("operators.md")

HEAD = """# Operators

Made from the table by `python docs/operators.py`; a test compares. A revision is the opset at which
ONNX last changed an operator (`since_version`); a file's opset selects it, and one that is not
listed is refused by name, never run with the meaning of another. What a function does not compute
exactly as onnxruntime does is refused while it runs, with the reason.

*h*: inputs that are read on the host, so no gradient reaches them. *q*: integers in the result are
carried as floats, so that gradients pass straight through the rounding.
"""


def lines() -> Iterator[str]:
    """Yield the page line by line."""
    yield from HEAD.splitlines()
    domains: dict[str, dict[str, list[tuple[int, Operator]]]] = {}
    for (domain, op_type, version), entry in table().items():
        domains.setdefault(domain, {}).setdefault(op_type, []).append((version, entry))
    for domain in sorted(domains):
        operators = domains[domain]
        keys = sum(map(len, operators.values()))
        yield from (
            "",
            f"## {domain or 'ai.onnx'}: {len(operators)} operators, {keys} revisions",
            "",
        )
        yield from ("| operator | revisions | | what |", "|---|---|---|---|")
        for op_type in sorted(operators):
            entries = sorted(operators[op_type], key=lambda entry: entry[0])
            versions = ", ".join(str(version) for version, _ in entries)
            newest = entries[-1][1]
            yield f"| {op_type} | {versions} | {_marks(newest)} | {_what(newest)} |"
    yield from ("", "## Control flow", "")
    for op_type, known in KNOWN.items():
        yield f"- {op_type} ({', '.join(map(str, known))})"
    yield from ("", "## Through the definition that ONNX itself gives", "")
    yield "Further operators that the specification defines as functions of the ones above:"
    yield ""
    rest = [key for key in defined_by_functions() if not _in_table(key)]
    yield ", ".join(f"{op_type} ({version})" for _, op_type, version in rest) + "."


def _in_table(key: OpKey) -> bool:
    return any(key[:2] == known[:2] for known in table())


def _marks(entry: Operator) -> str:
    host = f"h{', '.join(map(str, entry.host))}" if entry.host else ""
    return " ".join(mark for mark in (host, "q" if entry.carried else "") if mark)


def _what(entry: Operator) -> str:
    function = getattr(entry.function, "func", entry.function)
    text = (inspect.getdoc(function) or "").splitlines()
    return text[0].replace("|", "\\|") if text else ""


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
