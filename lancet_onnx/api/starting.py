# SPDX-License-Identifier: Apache-2.0
"""`starting_policy`: a commented lancet.toml that fits a model, made from the table of keys."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from lancet_onnx.api.options import DataOptions
from lancet_onnx.api.policy_keys import SECTIONS, Key

WIDTH = 96


def starting_policy(
    model: Path, seen: Mapping[str, object], data: DataOptions, folder: Path
) -> str:
    """Return the text of a policy for `model`.

    Args:
        model: the file.
        seen: body of the report of `inspect` on it.
        data: what is known of the images; the rest is left to fill in.
        folder: where the policy will lie, which its paths are relative to.
    """
    given = _given(model, seen, data, folder)
    return "\n".join(_lines(model, seen, given)) + "\n"


def _given(
    model: Path, seen: Mapping[str, object], data: DataOptions, folder: Path
) -> dict[tuple[str, str], str]:
    """Return the keys that are set, as TOML writes their values; all others are comments."""
    given = {
        ("model", "path"): _quoted(_relative(model, folder)),
        ("data", "path"): _quoted(_relative(data.path, folder) if data.path else "val/"),
        ("gate", "min_clean_accuracy"): "0.9",
        ("gate", "max_attack_success"): "0.05",
        ("gate", "scan"): "false",
    }
    outputs = seen.get("outputs")
    if data.output or (isinstance(outputs, list) and len(outputs) > 1):
        answer = seen.get("answer")
        name = data.output or (answer.get("output") if isinstance(answer, Mapping) else None)
        if name:
            given["model", "output"] = _quoted(str(name))
    told = data.preprocess
    if told is not None and Path(told).is_file():
        told = _relative(Path(told), folder)
    if told is None and not seen.get("preprocess"):
        told = "unit" if seen.get("layout") else "none"
    if told is not None:
        given["data", "preprocess"] = _quoted(told)
    for name, numbers in (("mean", data.mean), ("std", data.std)):
        if numbers is not None:
            given["data", name] = json.dumps(list(numbers))
    words = (("color", data.color), ("layout", data.layout), ("resize", data.resize))
    for name, word in words:
        if word is not None:
            given["data", name] = _quoted(word)
    return given


def _lines(
    model: Path, seen: Mapping[str, object], given: Mapping[tuple[str, str], str]
) -> Iterator[str]:
    classes, noted = seen.get("classes"), seen.get("preprocess")
    yield from _comment(
        f"What {model.name} has to hold to: `lancet-onnx gate`. docs/policy.md has all keys. Paths "
        "are relative to this file. Lines that begin with # and no space are examples."
    )
    about = [f"It tells {classes} classes apart"]
    inputs = seen.get("inputs")
    if isinstance(inputs, list) and len(inputs) == 1:
        shape = " x ".join("?" if d is None else str(d) for d in inputs[0]["shape"])
        about.append(f"takes {inputs[0]['dtype']} {shape}")
    if noted:
        about.append(f"and says how images are prepared ({noted})")
    elif ("data", "preprocess") in given:
        about.append("and does not say how images are prepared: check `preprocess` below")
    yield from _comment(", ".join(about) + ".")
    for section in SECTIONS:
        yield ""
        yield from _comment(section.doc)
        active = any(name == section.name for name, _ in given)
        yield section.header if active else f"#{section.header}"
        for key in section.keys:
            value = given.get((section.name, key.name))
            yield from _comment(_about(key))
            yield f"{key.name} = {value}" if value else f"#{key.name} = {key.example}"


def _about(key: Key) -> str:
    usual = f" (default: {key.usual})" if key.usual else ""
    return f"{key.doc.rstrip('.')}{usual}."


def _comment(text: str) -> Iterator[str]:
    """Yield comment lines; text from a model must not end one."""
    yield from textwrap.wrap(_one_line(text), WIDTH, initial_indent="# ", subsequent_indent="# ")


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _relative(path: Path, folder: Path) -> str:
    """Return a path as seen from `folder`; another drive's stays as it is."""
    if path.is_absolute():
        return path.as_posix()
    return Path(os.path.relpath(path, folder)).as_posix()


def _quoted(text: str) -> str:
    """Return text as TOML's basic string, which escapes as JSON does."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
