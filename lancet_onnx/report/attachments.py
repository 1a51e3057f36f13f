# SPDX-License-Identifier: Apache-2.0
"""Where a report's attachments are: its body names them by path, once it is known where they go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from lancet_onnx.report.report import Report

Place = Callable[[str], str | None]
"""The path of an attachment by its name; None where it is not kept."""


def placed(report: Report, place: Place) -> Report:
    """Return the report with the paths that `place` gives in place of its attachments' names.

    Other paths, such as that of a trigger that somebody gave, stay.
    """
    names = {attachment.name for attachment in report.attachments}
    if not names:
        return report

    def told(trigger: object) -> object:
        path = trigger.get("path") if isinstance(trigger, Mapping) else None
        if not isinstance(trigger, Mapping) or not isinstance(path, str) or path not in names:
            return trigger
        return {**trigger, "path": place(path)}

    def pointed(holder: object) -> object:
        if not isinstance(holder, Mapping):
            return holder
        changed = dict(holder)
        if "trigger" in holder:
            changed["trigger"] = told(holder["trigger"])
        if isinstance(holder.get("triggers"), (list, tuple)):
            changed["triggers"] = [told(trigger) for trigger in holder["triggers"]]
        return changed

    def shown(row: object) -> object:
        pictures = row.get("pictures") if isinstance(row, Mapping) else None
        if not isinstance(row, Mapping) or not isinstance(pictures, Mapping):
            return row
        paths = {
            part: place(name) if isinstance(name, str) and name in names else name
            for part, name in pictures.items()
        }
        return {**row, "pictures": paths}

    body = pointed(report.body)
    assert isinstance(body, dict)  # noqa: S101 - it was a mapping
    if "examined" in body:
        body["examined"] = pointed(body["examined"])
    if isinstance(body.get("findings"), (list, tuple)):
        body["findings"] = [pointed(finding) for finding in body["findings"]]
    for key in ("errors", "classes"):
        if isinstance(body.get(key), (list, tuple)):
            body[key] = [shown(row) for row in body[key]]
    return replace(report, body=body)
