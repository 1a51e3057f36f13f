# SPDX-License-Identifier: Apache-2.0
"""Where tensors with external data keep their bytes, and which places are not accepted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from lancet_onnx.errors import ModelError
from lancet_onnx.rules import DATA_FILE, OUTSIDE

_SHOWN = 200
_BITS = {
    4: ("UINT4", "INT4", "FLOAT4E2M1"),
    8: ("UINT8", "INT8", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2"),
    16: ("UINT16", "INT16", "FLOAT16", "BFLOAT16"),
    32: ("FLOAT", "INT32", "UINT32"),
    64: ("DOUBLE", "INT64", "UINT64", "COMPLEX64"),
    128: ("COMPLEX128",),
}
ITEM_BITS = {name: bits for bits, names in _BITS.items() for name in names}
"""Bits of one element by the type's name; types without an entry have no fixed size."""


@dataclass(frozen=True, slots=True)
class External:
    """Where a tensor's bytes lie outside the .onnx file.

    Attributes:
        location: the data file as the .onnx file names it, relative to its folder.
        file: the data file itself.
        offset: of the first byte.
        length: in bytes.
    """

    location: str
    file: Path
    offset: int
    length: int


def is_external(tensor: onnx.TensorProto) -> bool:
    """Return whether a tensor's bytes lie outside the .onnx file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def external_file(tensor: onnx.TensorProto, owner: str, path: Path) -> External:
    """Return where a tensor's external data lies, inside the model's own folder.

    A folder of links into a Hugging Face cache counts as the model's own: there the model and its
    data are both links into one folder of blobs.

    Raises:
        ModelError: the location leaves the folder, is no regular file, or is too short.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    relative = PurePosixPath(location)
    named = path.parent / location
    shown = location if len(location) <= _SHOWN else f"{location[:_SHOWN]}..."
    outside = ModelError(
        f"{path}: {owner} wants its data from '{shown}', outside the model's own folder; "
        "this is refused. Put the data file beside the model",
        OUTSIDE,
    )
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise outside
    try:
        target = named.resolve()
        regular, exists = target.is_file(), target.exists()
    except (OSError, RuntimeError):  # names that are too long, links that lead to each other
        target, regular, exists = named, False, False
    if (regular or exists) and not _inside(target, named, path):
        raise outside
    if not regular:
        state = "is no regular file" if exists else "is not there"
        raise ModelError(
            f"{path}: {owner} has its data in '{shown}', which {state}; "
            "copy the data file beside the model",
            DATA_FILE,
        )
    bits = ITEM_BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type), 8)
    expected = (math.prod(tensor.dims) * bits + 7) // 8
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or expected)
    except ValueError:
        raise ModelError(
            f"{path}: {owner} has an offset or length that is no number", DATA_FILE
        ) from None
    size = target.stat().st_size
    if offset < 0 or length != expected or offset + length > size:
        raise ModelError(
            f"{path}: {owner} needs {expected} bytes at offset {offset} of '{shown}', "
            f"but the entry says {length} and the file has {size}",
            DATA_FILE,
        )
    # "./w.bin" and "w.bin" are one file, of which one copy is written.
    return External(str(relative), target, offset, length)


def _inside(target: Path, named: Path, path: Path) -> bool:
    if target.is_relative_to(path.parent.resolve()):
        return True
    blobs = path.resolve().parent
    return path.is_symlink() and named.is_symlink() and target.parent == blobs
