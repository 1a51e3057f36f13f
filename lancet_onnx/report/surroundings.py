# SPDX-License-Identifier: Apache-2.0
"""Where figures come from: machine, versions, images, policy; rows for people."""

from __future__ import annotations

from collections.abc import Mapping

from lancet_onnx.report.untrusted import as_number, as_table, plain


def surroundings(data: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return name and text of whatever a report knows of how it was made."""
    environment, images, policy = (
        as_table(data.get(key)) for key in ("environment", "data", "policy")
    )
    versions = as_table(environment.get("versions"))
    nodes = as_table(environment.get("nodes"))
    rows = (
        ("ran on", _joined(environment.get("device"), _bracketed(environment.get("provider")))),
        ("nodes", ", ".join(f"{plain(count)} {plain(name)}" for name, count in nodes.items())),
        ("versions", ", ".join(f"{plain(n)} {plain(v)}" for n, v in versions.items())),
        ("images", _joined(images.get("path"), _digest(images.get("sha256")))),
        ("preprocessing", _joined(images.get("preprocess"))),
        ("split", _joined(images.get("split") or images.get("used"))),
        ("policy", _joined(policy.get("path"), _digest(policy.get("sha256")))),
        ("seed", _joined(environment.get("seed"))),
        ("agreement of torch and onnxruntime", _parity(data.get("parity"))),
        ("time", _seconds(data.get("seconds"))),
    )
    return tuple((name, text) for name, text in rows if text)


def _joined(*parts: object) -> str:
    return " ".join(plain(part) for part in parts if part is not None and part != "")


def _bracketed(value: object) -> str:
    return f"({plain(value)})" if value else ""


def _digest(value: object) -> str:
    return f"(SHA-256 {plain(value)})" if value else ""


def _seconds(value: object) -> str:
    seconds = as_number(value)
    return "" if seconds is None else f"{seconds:.1f} s"


def _parity(value: object) -> str:
    parity = as_table(value)
    parts = {"": parity} if "largest" in parity else {k: as_table(parity[k]) for k in parity}
    found = {name: as_number(part.get("largest")) for name, part in parts.items()}
    told = [
        f"{plain(name)} {largest:.2g}".strip()
        for name, largest in found.items()
        if largest is not None
    ]
    return f"largest difference of scores {', '.join(told)}" if told else ""
