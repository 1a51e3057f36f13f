# SPDX-License-Identifier: Apache-2.0
"""Arguments and reports go through JSON and come back the same; nothing else comes back."""

import base64
import inspect as signatures
import json
import math
from pathlib import Path
from types import UnionType
from typing import Literal, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lancet_onnx import api
from lancet_onnx.api.options import (
    CorrectOptions,
    DataOptions,
    RepairOptions,
    SearchOptions,
    SuspectOptions,
    TriggerOptions,
)
from lancet_onnx.api.policy import Asked, Listed, Policy
from lancet_onnx.contain.child import COMMANDS
from lancet_onnx.contain.codec import from_plain, report_from_plain, report_to_plain, to_plain
from lancet_onnx.report import Attachment, Picture, Report
from lancet_onnx.samples import Sizes
from lancet_onnx.verify.gate_policy import Allowance

ARGUMENTS = [
    (Path, Path("a b/c.onnx")),
    (Path | None, None),
    (TriggerOptions | None, TriggerOptions(Path("t.png"), None, "blend", (3, 4), 7)),
    (DataOptions, DataOptions(Path("d"), "unit", (0.5, 1.0), None, "bgr", "nhwc", "shortest", "y")),
    (RepairOptions, RepairOptions(Path("o"), None, "mute", sizes=Sizes(1, 2, 3))),
    (SearchOptions | None, SearchOptions((0, 3, 7), 60.0, Path("s.npz"))),
    (
        SuspectOptions,
        SuspectOptions(
            8, (TriggerOptions(Path("a.png")), TriggerOptions(Path("b.png"), mode="add"))
        ),
    ),
    (
        Policy,
        Policy(
            Path("lancet.toml"),
            "0" * 64,
            (Path("a"), Path("b")),
            DataOptions(Path("d"), "unit"),
            (Listed("t.png", TriggerOptions(Path("x/t.png"), position=(1, 2))),),
            Asked(0.9, scan=True, allow_not_evaluated=("scan",), device="cpu", timeout=3.5),
            (Allowance("LNC011", "why", "2027-01-31", "a" * 64, 7),),
            Path("b.json"),
        ),
    ),
    (CorrectOptions, CorrectOptions(Path("e.npz"), 0.05)),
    (Literal["auto", "cpu", "cuda"], "cpu"),
    (float, 0.25),
    (int, 3),
    (str | None, "text"),
    (bool, True),
]


@pytest.mark.parametrize(("kind", "value"), ARGUMENTS, ids=[str(k) for k, _ in ARGUMENTS])
def test_an_argument_survives(kind: object, value: object):
    assert from_plain(kind, json.loads(json.dumps(to_plain(value)))) == value


def test_a_whole_number_is_a_float_where_one_is_asked_for():
    assert isinstance(from_plain(float, 1), float)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Path, 3),
        (int, "3"),
        (Literal["cpu"], "tpu"),
        (tuple[int, int], [1, 2, 3]),
        (DataOptions, {"colour": "rgb"}),
        (DataOptions, ["rgb"]),
        (float, True),
    ],
)
def test_what_is_of_another_type_is_refused(kind: object, value: object):
    with pytest.raises((TypeError, ValueError, KeyError)):
        from_plain(kind, value)


def test_what_json_cannot_hold_is_refused():
    for value in (np.zeros(3), {1, 2}, object()):
        with pytest.raises(TypeError, match="another process"):
            to_plain(value)


def choices(kind: object) -> set[object]:
    """The types that an argument may have, but for None."""
    inside = getattr(kind, "__args__", ()) if isinstance(kind, UnionType) else (kind,)
    return {k for k in inside if k is not type(None)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_of_every_command_can_be_handed_over(command: str):
    """But the progress callback, which the child has one of its own for."""
    call = getattr(api, command)
    hints = get_type_hints(call)
    for name in signatures.signature(call).parameters:
        if name != "progress":
            wanted = choices(hints[name])
            example = next(v for k, v in ARGUMENTS if choices(k) & wanted and v is not None)
            assert from_plain(hints[name], to_plain(example)) == example


def test_a_report_survives():
    picture = Picture("trigger", "a ünïcode caption", bytes(range(256)))
    kept = Attachment("class8-1.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    body = {"a": [1, {"b": None}]}
    report = Report("scan", "backdoored", ("one", "two"), body, (picture,), (kept,))
    again = report_from_plain(json.loads(json.dumps(report_to_plain(report))))
    assert again == report or again.to_dict() == report.to_dict()
    assert again.pictures == report.pictures
    assert again.attachments == report.attachments


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


@pytest.mark.parametrize(
    "files",
    [
        {"name": "a.png", "png": PNG},
        ["a.png"],
        [{"name": "a.png"}],
        [{"name": "a.png", "png": PNG + "!"}],
        [{"name": "a.png", "png": base64.b64encode(b"#!/bin/sh").decode()}],
        [{"name": "a.png", "png": PNG}] * 2,
        *([{"name": n, "png": PNG}] for n in ("../a.png", "/a.png", "..", "a.sh", "", 3, None)),
    ],
)
def test_a_child_that_attaches_what_it_should_not_is_refused(files: object):
    answer = {**report_to_plain(Report("scan", "clean", (), {})), "attachments": files}
    with pytest.raises(ValueError, match=r"report|name|PNG"):
        report_from_plain(answer)


def test_what_is_no_number_becomes_null():
    again = report_from_plain(report_to_plain(Report("scan", "clean", (), {"x": math.nan})))
    assert again.body == {"x": None}


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "report": junk | st.fixed_dictionaries(
                {}, optional={"command": junk, "verdict": junk | st.just("clean"), "reasons": junk}
            ),
            "pictures": junk | st.lists(
                st.fixed_dictionaries({}, optional={"group": junk, "caption": junk, "png": junk})
            ),
            "attachments": junk | st.lists(
                st.fixed_dictionaries(
                    {}, optional={"name": junk | st.just("a.png"), "png": junk | st.just(PNG)}
                )
            ),
        },
    )
)  # fmt: skip
def test_a_child_that_lies_is_a_value_error_at_most(answer: dict):
    try:
        report = report_from_plain(answer)
    except ValueError:
        return
    assert isinstance(report.exit_code, int)
    assert all(isinstance(reason, str) for reason in report.reasons)
