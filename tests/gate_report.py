# SPDX-License-Identifier: Apache-2.0
"""Reports of a gate as the schema promises them, made by hand: no model runs."""

from __future__ import annotations

import hashlib
from typing import Any

from lancet_onnx.report import Report

EVIL = "<b>x</b>[bold]y[/z]|`](https://evil)\n::error::\x1b[31m%0A@all\r\x00&amp;]]>\u202e"


def check(name: str, result: str = "pass", **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "rule": None,
        "severity": "error",
        "result": result,
        "text": f"{name} is as it is",
        "next": "",
        "page": "docs/rules.md",
        "value": None,
        "limit": None,
        "allowed": None,
        "baseline": None,
        "fingerprint": hashlib.sha256(name.encode()).hexdigest()[:32],
        **more,
    }


FAILED = check(
    "trigger:t.png", "fail", rule="LNC001",
    text="t.png moves 99.6 % of images to class 7; at most 5 %",
    next="lancet-onnx repair m.onnx --trigger t.png --data val -o FIXED.onnx",
    page="docs/rules.md#lnc001", value=0.996, limit=0.05, baseline="new",
)  # fmt: skip
UNKNOWN = check("clean-accuracy", "not_evaluated", text="no images", limit=0.9)
WARNED = check("dead-weights", "fail", severity="warning", text="two channels are dead")
ALWAYS = check(
    "dead-weights", "fail", text="a layer is all zero",
    allowed={"reason": "the policy's allowed_rules", "expires": None},
)  # fmt: skip
ALLOWED = check(
    "graph-logic", "fail", rule="LNC203", text="a switch that never moves",
    allowed={"reason": "reviewed", "expires": "2030-01-01"}, page="docs/rules.md#lnc203",
)  # fmt: skip
KNOWN = check("weights", "fail", rule="LNC113", text="NaN in 'w'", baseline="known")


def model(path: str, *checks: dict[str, Any], verdict: str = "fail") -> dict[str, Any]:
    return {
        "path": path,
        "sha256": "ab" * 32,
        "verdict": verdict,
        "seconds": 1.5,
        "checks": list(checks),
    }


def gate(*models: dict[str, Any], verdict: str = "fail", **more: Any) -> Report:
    body = {
        "policy": {"path": "lancet.toml", "sha256": "cd" * 32},
        "partial": False,
        "remarks": ["3 of 5 models were not looked at"],
        "models": list(models),
        "environment": {"device": None, "provider": None, "versions": {}, "seed": 0},
        "stages": [],
        "seconds": 3.0,
        **more,
    }
    return Report("gate", verdict, ("3 of 5 models were not looked at",), body)


def mixed() -> Report:
    """Two models: one with a check of every outcome, one without a fault."""
    return gate(
        model("models/a.onnx", check("precheck"), FAILED, UNKNOWN, WARNED, ALLOWED, KNOWN),
        model("models/b.onnx", check("precheck"), check("trigger:t.png"), ALWAYS, verdict="pass"),
    )


def hostile() -> Report:
    """A gate in which every text is from an attacker."""
    wrong = check(
        EVIL, "fail", rule=EVIL, severity=EVIL, text=EVIL, next=EVIL, page=EVIL, baseline=EVIL,
        fingerprint=EVIL, allowed=None,
    )  # fmt: skip
    odd = check(EVIL, "not_evaluated", text=EVIL, next=EVIL)
    accepted = check("x", "fail", allowed={"reason": EVIL, "expires": EVIL})
    return gate(model(EVIL, wrong, odd, accepted))
