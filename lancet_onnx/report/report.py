# SPDX-License-Identifier: Apache-2.0
"""`Report`: the verdict, why, the data as JSON has it, and pictures for the page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

SCHEMA_VERSION = 1

EXIT_CODES = {
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


VERDICTS = frozenset(EXIT_CODES)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}\.png")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG with a caption; `group` collects pictures that belong together."""

    group: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Attachment:
    """A PNG that belongs beside the JSON, which refers to it.

    Attributes:
        name: end of a file's name, such as ``class8-1.png``; the body's `path` says the same.
        png: the file.

    Raises:
        ValueError: a name that could lead elsewhere, or no PNG.
    """

    name: str
    png: bytes

    def __post_init__(self) -> None:
        """Refuse what must never be written: the report may come from another process."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no plain name of a .png file")
        if not self.png.startswith(_PNG):
            raise ValueError(f"{self.name}: no PNG")


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The outcome of one command.

    Attributes:
        command: scan, repair, verify, inspect, ...
        verdict: DESIGN.md section 4; ``done`` for commands that judge nothing.
        reasons: one sentence each.
        body: the JSON object of DESIGN.md section 5 but for command and verdict.
        pictures: for the HTML page only.
        attachments: files beside the JSON, such as reconstructed triggers; each name once.
    """

    command: str
    verdict: str
    reasons: tuple[str, ...]
    body: Mapping[str, object]
    pictures: tuple[Picture, ...] = ()
    attachments: tuple[Attachment, ...] = ()

    def __post_init__(self) -> None:
        """Refuse two attachments that would be one file (also where case does not count)."""
        if len({a.name.lower() for a in self.attachments}) < len(self.attachments):
            raise ValueError("two attachments of one name")

    @property
    def exit_code(self) -> int:
        """0 good news, 1 a finding or a failure, 3 nothing can be said."""
        return EXIT_CODES[self.verdict]

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
