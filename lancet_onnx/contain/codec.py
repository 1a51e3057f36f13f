# SPDX-License-Identifier: Apache-2.0
"""Arguments and reports <-> plain JSON values, by their types; nothing is ever unpickled."""

from __future__ import annotations

import base64
import binascii
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lancet_onnx.report.report import VERDICTS, Attachment, Picture, Report

T = TypeVar("T")


def to_plain(value: object) -> object:
    """Return what JSON can hold of an argument: frozen records, paths, tuples, plain values.

    Raises:
        TypeError: anything else.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be handed to another process")


def from_plain(kind: object, value: object) -> object:
    """Return the argument of type `kind` that `to_plain` made `value` of.

    Raises:
        TypeError: the value is of another type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else from_plain(*_others(inner), value)
    if origin is Literal:
        if value not in inner:
            raise TypeError(f"{value!r} is none of {inner}")
        return value
    if origin is tuple and isinstance(value, list):
        each = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return tuple(from_plain(k, v) for k, v in zip(each, value, strict=True))
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        hints = get_type_hints(kind)
        return kind(**{name: from_plain(hints[name], item) for name, item in value.items()})
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise TypeError(f"{value!r} is no {kind}")


def _others(kinds: tuple[object, ...]) -> tuple[object]:
    (kind,) = (k for k in kinds if k is not type(None))
    return (kind,)


def report_to_plain(report: Report) -> dict[str, object]:
    """Return a report as JSON holds it, its pictures and attachments in base64."""
    pictures = [
        {"group": p.group, "caption": p.caption, "png": base64.b64encode(p.png).decode()}
        for p in report.pictures
    ]
    attachments = [
        {"name": a.name, "png": base64.b64encode(a.png).decode()} for a in report.attachments
    ]
    return {"report": report.plain(), "pictures": pictures, "attachments": attachments}


def report_from_plain(value: Mapping[str, object]) -> Report:
    """Return the report that `report_to_plain` made `value` of, trusting none of it.

    Raises:
        ValueError: it is no report.
    """
    try:
        body, pictures = value["report"], value["pictures"]
        files = value.get("attachments", [])
        if not (isinstance(body, dict) and isinstance(pictures, list) and isinstance(files, list)):
            raise TypeError("no report")
        command, verdict, reasons = body["command"], body["verdict"], body["reasons"]
        if verdict not in VERDICTS or not isinstance(command, str):
            raise TypeError(f"no verdict: {verdict!r}")
        rest = {
            k: v
            for k, v in body.items()
            if k not in ("schema_version", "command", "verdict", "reasons")
        }
        shown = tuple(
            Picture(str(p["group"]), str(p["caption"]), base64.b64decode(p["png"], validate=True))
            for p in pictures
        )
        kept = tuple(
            Attachment(a["name"], base64.b64decode(a["png"], validate=True)) for a in files
        )
        told = tuple(str(reason) for reason in reasons)
        return Report(command, verdict, told, rest, shown, kept)
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"what came back is no report ({error})") from error
