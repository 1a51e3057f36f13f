# SPDX-License-Identifier: Apache-2.0
"""Files beside a report: found triggers, pictures of an explanation; named after the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lancet_onnx.report import Report


def keeps(path: Path) -> bool:
    """Return whether files can lie beside this one; a device or pipe has no place for them."""
    return path.is_file() or not path.exists()


def beside(path: Path, name: str) -> Path:
    """Return where an attachment goes: ``scan-class8-1.png`` beside ``scan.json``."""
    return path.with_name(f"{path.stem}-{name}")


def attach(report: Report, path: Path) -> Report:
    """Write the attachments beside the report's file `path`; return the report that names them so.

    Raises:
        OutputError: one cannot be written.
    """
    from lancet_onnx.model.files import save
    from lancet_onnx.report import placed

    for attachment in report.attachments:
        save(attachment.png, beside(path, attachment.name))
    return placed(report, lambda name: beside(path, name).name)


def shown(report: Report, path: Path | None) -> Report:
    """Return the report for people, who read it where the command ran; `path` is the kept file."""
    from lancet_onnx.report import placed

    return placed(report, lambda name: None if path is None else str(beside(path, name)))


def spare_inputs(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse a report whose attachments could replace an input, or become one.

    Raises:
        OutputError: the report is to lie among the images, or an input has such a name.
    """
    from lancet_onnx.errors import OutputError

    folder = path.absolute().parent.resolve()
    there = sorted(folder.glob("*.png"))
    for given in inputs:
        if given.is_dir() and folder.is_relative_to(given.resolve()):
            raise OutputError(
                f"{path}: pictures that are found are kept beside it, among the images of {given}; "
                "give a path in another folder"
            )
        for file in (f for f in there if f.name.startswith(f"{path.stem}-")):
            if _is_of(file, given):
                raise OutputError(
                    f"{path}: a picture that is found could replace {file}, which is an input; "
                    "give another path"
                )


def _is_of(file: Path, given: Path) -> bool:
    """Return whether an existing picture is this input, or one that a table of images names."""
    if not given.is_file():
        return False
    if given.suffix.lower() == ".csv":
        return file.name in given.read_text(encoding="utf-8", errors="replace")
    return file.samefile(given)
