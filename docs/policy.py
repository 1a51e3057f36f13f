# SPDX-License-Identifier: Apache-2.0
"""Write docs/policy.md and docs/lancet.schema.json from the table of keys; `--check` compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from lancet_onnx.api.policy_keys import CHECKS, SECTIONS, Key, json_schema

PAGE = Path(__file__).with_name("policy.md")
SCHEMA = Path(__file__).with_name("lancet.schema.json")

HEAD = """# The policy of a gate

Made from the table of keys by `python docs/policy.py`; a test compares. `lancet-onnx gate` reads
`lancet.toml` in the working folder, or `[tool.lancet]` of `pyproject.toml`, or what `--policy`
names; `lancet-onnx gate --init MODEL` writes a commented one. The smallest useful one:

```toml
[data]
path = "val/"
preprocess = "unit"
[gate]
min_clean_accuracy = 0.90
max_attack_success = 0.05
[[trigger]]
path = "t.png"
```

Paths are relative to the policy's file. A key or section that is not listed here is an error,
which names the nearest one that is; so is a value of another type (exit code 2). Options of the
command line come first. [lancet.schema.json](lancet.schema.json) is the same for editors.

## Verdict

Each check ends as `pass`, `fail` or `not_evaluated`. A model fails (exit code 1) if one check
does that no allowance and no baseline lets through. Else it is `not_evaluated` (3) if one check
is that `allow_not_evaluated` does not name, or if none passed. Of several models the worst
verdict counts: fail, then not evaluated, then pass. Too few images to show that a limit is held,
images that cannot be read, an unsupported operator, a GPU that is asked for and not there, a
crash or a limit (the check `run`) never pass.

A finding that is in the baseline as well (an earlier report on a model of the same path or file
name) is let through as long as its figure is no worse by half a point. An allowance that has
expired lets nothing through, and fails itself.

## Checks

| check | passes if | when |
|---|---|---|
"""

WHEN = {
    "parity-gpu": "asked for",
    "clean-accuracy": "asked for",
    "trigger": "asked for",
    "scan": "asked for",
}


def lines() -> Iterator[str]:
    """Yield the page line by line."""
    yield from HEAD.splitlines()
    for name, text in CHECKS.items():
        yield f"| `{name}` | {text} | {WHEN.get(name, 'always')} |"
    for section in SECTIONS:
        yield from ("", f"## {section.header}", "", section.doc, "")
        yield from ("| key | what | value | example |", "|---|---|---|---|")
        for key in section.keys:
            yield f"| `{key.name}` | {_what(key)} | {key.kind.words} | `{key.example}` |"


def _what(key: Key) -> str:
    if key.required:
        return f"{key.doc} **Required.**"
    return key.doc + (f" Default: {key.usual}." if key.usual else "")


def main() -> int:
    """Write page and schema, or with `--check` say whether they are up to date."""
    made = {
        PAGE: "\n".join(lines()) + "\n",
        SCHEMA: json.dumps(json_schema(), indent=2) + "\n",
    }
    if "--check" in sys.argv[1:]:
        return 0 if all(p.exists() and p.read_text() == text for p, text in made.items()) else 1
    for path, text in made.items():
        path.write_text(text)
        print(f"{path.name}: {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
