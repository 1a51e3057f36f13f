# SPDX-License-Identifier: Apache-2.0
"""Reading a report's body, in which anything may stand: a hostile model's process may have made it.

What is not of the kind that is asked for is left out, empty or None; nothing here raises.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

MOST_TEXT = 600
"""Characters of a sentence for people: names in a model can be of any length."""


def as_table(value: object) -> Mapping[str, object]:
    """Return an object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: object) -> list[object]:
    """Return a list, or an empty one."""
    return list(value) if isinstance(value, (list, tuple)) else []


def as_rows(value: object) -> list[Mapping[str, object]]:
    """Return the objects in a list."""
    return [row for row in as_list(value) if isinstance(row, Mapping)]


def as_number(value: object) -> float | None:
    """Return a finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:  # a whole number that no float holds
        return None
    return found if math.isfinite(found) else None


def as_whole(value: object) -> int | None:
    """Return a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_share(value: object) -> float | None:
    """Return a number, moved into 0 to 1."""
    found = as_number(value)
    return None if found is None else min(1.0, max(0.0, found))


def plain(value: object) -> str:
    """Return text on one line without control characters; nothing for None."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str("" if value is None else value))


def bounded(value: object) -> str:
    """Return plain text of a bounded length."""
    text = plain(value)
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"
