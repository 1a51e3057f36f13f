# SPDX-License-Identifier: Apache-2.0
"""Where figures come from: machine, versions, images, policy; rows for people."""

from __future__ import annotations

from collections.abc import Mapping

from lancet_onnx.report.results import plain


def surroundings(data: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return name and text of whatever a report knows of how it was made."""
    environment, images, policy = (_table(data, key) for key in ("environment", "data", "policy"))
    versions = _table(environment, "versions")
    nodes = _table(environment, "nodes")
    rows = (
        ("ran on", _joined(environment.get("device"), _bracketed(environment.get("provider")))),
        ("nodes", ", ".join(f"{plain(count)} {plain(name)}" for name, count in nodes.items())),
        ("versions", ", ".join(f"{plain(n)} {plain(v)}" for n, v in versions.items())),
        ("images", _joined(images.get("path"), _digest(images.get("sha256")))),
        ("preprocessing", _joined(images.get("preprocess"))),
        ("split", _joined(images.get("split") or images.get("used"))),
        ("policy", _joined(policy.get("path"), _digest(policy.get("sha256")))),
        ("seed", _joined(environment.get("seed"))),
        ("agreement of torch and onnxruntime", _parity(data)),
        ("time", _seconds(data.get("seconds"))),
    )
    return tuple((name, text) for name, text in rows if text)


def _table(data: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def _joined(*parts: object) -> str:
    return " ".join(plain(part) for part in parts if part is not None and part != "")


def _bracketed(value: object) -> str:
    return f"({plain(value)})" if value else ""


def _digest(value: object) -> str:
    return f"(SHA-256 {plain(value)})" if value else ""


def _seconds(value: object) -> str:
    return f"{value:.1f} s" if isinstance(value, (int, float)) else ""


def _parity(data: Mapping[str, object]) -> str:
    parity = _table(data, "parity")
    parts = {"": parity} if "largest" in parity else {k: _table(parity, k) for k in parity}
    told = [
        f"{plain(name)} {part['largest']:.2g}".strip()
        for name, part in parts.items()
        if isinstance(part.get("largest"), (int, float))
    ]
    return f"largest difference of scores {', '.join(told)}" if told else ""
