# SPDX-License-Identifier: Apache-2.0
"""Which models are meant: files, folders with .onnx files inside, and patterns."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from lancet_onnx.errors import ModelError

ENDING = ".onnx"


def find_models(given: Iterable[Path]) -> tuple[Path, ...]:
    """Return the model files that are meant, in the order given, each file once.

    A folder stands for all .onnx files below it, but for hidden ones; links to folders are not
    followed. Of a file and links to it that one folder holds, the file is taken.

    Raises:
        ModelError: a path that is not there, or that no model is found by.
    """
    found: dict[Path, Path] = {}
    for path in given:
        for each in _expanded(path):
            found.setdefault(_goal(each), each)
    return tuple(found.values())


def _expanded(path: Path) -> list[Path]:
    if path.is_dir():
        inside = _inside(path)
        if not inside:
            raise ModelError(
                f"{path}: no {ENDING} file in this folder, and so nothing to judge; give one "
                "that holds models"
            )
        return inside
    if path.exists():
        return [path]
    if path.is_symlink():
        raise ModelError(f"{path}: is a link that leads nowhere; give the model itself")
    if glob.has_magic(str(path)):
        matched = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - a whole path is the pattern
        models = [m for one in matched for m in (_inside(one) if one.is_dir() else [one])]
        if not models:
            raise ModelError(
                f"{path}: no model matches this pattern, and so nothing to judge; correct the "
                "pattern"
            )
        return models
    raise ModelError(f"{path}: No such file or folder; correct the path of the model")


def _inside(folder: Path) -> list[Path]:
    models = [
        path
        for path in folder.rglob(f"*{ENDING}")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.is_dir()
    ]
    # A link that leads nowhere is kept: a model that should be there and is not never passes.
    return sorted(models, key=lambda path: (path.is_symlink(), path))


def _goal(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return path.absolute()
