# SPDX-License-Identifier: Apache-2.0
"""What the demo runs on: a model, its trigger and images, bundled; copying them needs no torch."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from lancet_onnx.errors import OutputError
from lancet_onnx.model.files import save

FOLDER = Path("lancet-demo")
MATERIAL = ("model.onnx", "trigger.png", "images.npz")


def unpack() -> tuple[Path, ...]:
    """Write the bundled model, its trigger and images into the demo's folder; return the paths.

    Raises:
        OutputError: the folder or a file in it cannot be written.
    """
    try:
        FOLDER.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{FOLDER}: cannot be created ({error.strerror})") from error
    for name in MATERIAL:
        bundled = resources.files("lancet_onnx_cli") / "demo" / name
        save(bundled.read_bytes(), FOLDER / name)
    return tuple(FOLDER / name for name in MATERIAL)
