# SPDX-License-Identifier: Apache-2.0
"""What is installed, from the packages' own metadata: it works where a library does not load."""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata
from importlib.util import find_spec

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
LIBRARIES = {
    "torch": "torch",
    "onnx": "onnx",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "pillow": "PIL",
    "jinja2": "jinja2",
}
"""What lancet-onnx needs besides an onnxruntime: distributions, and what they are imported as."""

NOT_INSTALLED = "not installed"
_FLOOR = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*>=\s*([0-9.]+)")


def version_of(name: str) -> str:
    """Return a distribution's version, or ``not installed``."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


def versions() -> dict[str, str]:
    """Return the version of lancet-onnx and of each library that it needs, or ``not installed``."""
    return {name: version_of(name) for name in ("lancet-onnx", *LIBRARIES)}


def absent() -> tuple[str, ...]:
    """Return the libraries that are needed and not there, also not without metadata."""
    return tuple(
        name
        for name, module in LIBRARIES.items()
        if version_of(name) == NOT_INSTALLED and find_spec(module) is None
    )


def distributions() -> dict[str, str]:
    """Return the installed onnxruntime distributions and their versions; two of them clash."""
    found = {name: version_of(name) for name in _RUNTIMES}
    return {name: version for name, version in found.items() if version != NOT_INSTALLED}


def wanted_runtime() -> str:
    """Return the onnxruntime distribution that lancet-onnx asks for on this machine."""
    machine = (sys.platform, platform.machine())
    return (
        "onnxruntime-gpu" if machine in (("linux", "x86_64"), ("win32", "AMD64")) else _RUNTIMES[0]
    )


def floors() -> dict[str, str]:
    """Return the lowest version of each distribution that lancet-onnx works with."""
    try:
        asked = metadata.requires("lancet-onnx") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (_FLOOR.match(line) for line in asked)
    return {match[1]: match[2] for match in found if match}


def outdated() -> dict[str, tuple[str, str]]:
    """Return what is installed in a version that is too old: (version, lowest that works)."""
    have = {name: (version_of(name), floor) for name, floor in floors().items()}
    return {
        name: (version, floor)
        for name, (version, floor) in have.items()
        if version != NOT_INSTALLED and _release(version) < _release(floor)
    }


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version up to the first that is none, without zeros at the end."""
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else [0]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
