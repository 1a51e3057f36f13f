# SPDX-License-Identifier: Apache-2.0
"""`Report`: the verdict, why, the data as JSON has it, and pictures for the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

SCHEMA_VERSION = 1

_EXIT = {
    "backdoored": 1,
    "not_repaired": 1,
    "fail": 1,
    "clean": 0,
    "repaired": 0,
    "pass": 0,
    "done": 0,
    "inconclusive": 3,
    "refused": 3,
    "not_evaluated": 3,
}


VERDICTS = frozenset(_EXIT)


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG with a caption; `group` collects pictures that belong together."""

    group: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The outcome of one command.

    Attributes:
        command: scan, repair, verify, inspect, ...
        verdict: DESIGN.md section 4; ``done`` for commands that judge nothing.
        reasons: one sentence each.
        body: the JSON object of DESIGN.md section 5 but for command and verdict.
        pictures: for the HTML page only.
    """

    command: str
    verdict: str
    reasons: tuple[str, ...]
    body: Mapping[str, object]
    pictures: tuple[Picture, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 good news, 1 a finding or a failure, 3 nothing can be said."""
        return _EXIT[self.verdict]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": self.command,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            **self.body,
        }

    def plain(self) -> object:
        """Return the JSON object in plain lists and dictionaries; NaN becomes null."""
        return _finite(self.to_dict())

    def to_json(self) -> str:
        """Return the JSON text; NaN, which JSON lacks, becomes null."""
        return json.dumps(self.plain(), indent=2, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
