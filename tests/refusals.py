# SPDX-License-Identifier: Apache-2.0
"""Every file of ``fixtures/refused`` given to the command line, and what it says.

    python tests/refusals.py

Each is scanned as a user would, in a process of its own with 2 GB and 60 seconds. Prints what came
out; exit code 1 if a file was not refused or found out by the rule in messages.json, if there was a
traceback, or if anything in the folder was changed.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "cli"))

from support import REFUSED, Result, box, lancet, untouched

LIMITS = ("--memory-limit", "2G", "--timeout", "60")


def said(result: Result) -> tuple[str, str]:
    """Return the rule and the sentence that a scan ended with."""
    if result.stdout:
        body = result.json
        return " ".join(item["rule"] for item in body["graph_logic"]), body["reasons"][-1]
    sentence = result.stderr.strip().removeprefix("error: ")
    rule = re.search(r"\[(LNC\d+)\]$", sentence)
    return (rule[1], sentence[: rule.start()].strip()) if rule else ("", sentence)


def main() -> int:
    """Print the table; 1 if anything was wrong."""
    messages = json.loads((REFUSED / "messages.json").read_text())
    wrong = 0
    print("| file | bytes | exit | rule | says |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="lancet-refused-") as folder:
        material = box(Path(folder))
        for name in sorted(messages, key=lambda n: (messages[n]["rule"] or "Z", n)):
            path = REFUSED / f"{name}.onnx"
            line = ("scan", path, "--trigger", "t.png", "--data", "val.npz", "-f", "json", *LIMITS)
            with untouched(material):
                result = lancet(*line, cwd=material)
            rule, sentence = said(result)
            fine = rule == messages[name]["rule"] and result.code in (1, 3)
            wrong += not fine or "Traceback" in result.stderr
            sentence = sentence.replace(f"{REFUSED}/", "").replace("|", "\\|")
            print(
                f"| {name} | {path.stat().st_size} | {result.code} | {rule or '-'} | {sentence} |",
                flush=True,
            )
    print(f"\n{len(messages)} files, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
