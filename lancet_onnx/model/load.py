# SPDX-License-Identifier: Apache-2.0
"""File -> `OnnxModel`: read once, hash, parse, precheck, freeze.

The bytes that are hashed are the bytes that are parsed, and those that a patch is applied to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from lancet_onnx.errors import ModelError
from lancet_onnx.model.files import files_digest
from lancet_onnx.model.freeze import freeze
from lancet_onnx.model.graph import Graph, is_float
from lancet_onnx.model.precheck import MAX_FILE_BYTES, External, precheck
from lancet_onnx.model.scope import Stored
from lancet_onnx.types import Digest, ValueName


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A model file: where it lies, its bytes, their digest, and its frozen graph.

    Attributes:
        path: as given by the user.
        data: the whole .onnx file (external data is not in it).
        digest: of `data`; with external data over all files (see `ModelFiles`).
        graph: what the file computes.
        stored: where the file keeps each constant.
    """

    path: Path
    data: bytes
    digest: Digest
    graph: Graph
    stored: Mapping[ValueName, Stored]

    @cached_property
    def external(self) -> Mapping[ValueName, External]:
        """Where the bytes of constants with external data lie."""
        return {name: at.external for name, at in self.stored.items() if at.external is not None}

    @cached_property
    def non_finite(self) -> tuple[ValueName, ...]:
        """Names of float constants that hold NaN or infinity."""
        return tuple(
            name
            for name, array in self.graph.constants.items()
            if is_float(array.dtype) and not np.isfinite(array.astype(np.float64)).all()
        )


def load(path: Path) -> OnnxModel:
    """Read and precheck the ONNX model at `path`.

    Raises:
        ModelError: missing, unreadable, not ONNX, damaged or hostile (see `precheck`).
        UnsupportedError: a structure that is not handled.
    """
    data = _read(path)
    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise ModelError(
            f"{path}: not an ONNX model, or a truncated one ({len(data)} bytes that do not parse "
            "as protobuf); expected a file written by torch.onnx.export, tf2onnx ..."
        ) from None
    try:
        precheck(proto, path)
        graph, stored = freeze(proto, path)
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        # A message that parses may still hold what the ONNX format does not allow anywhere.
        raise ModelError(f"{path}: the model is damaged or not valid ONNX ({error})") from error
    files = {at.external.location: at.external.file for at in stored.values() if at.external}
    digest = files_digest(Digest.of(data), {k: _file_digest(v) for k, v in files.items()})
    return OnnxModel(path, data, digest, graph, stored)


def _read(path: Path) -> bytes:
    if not path.exists():
        raise ModelError(f"{path}: no such file; give the path of an .onnx file")
    if not path.is_file():
        raise ModelError(f"{path}: not a regular file; give the path of an .onnx file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ModelError(f"{path}: larger than the {MAX_FILE_BYTES >> 30} GiB that are handled")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def _file_digest(path: Path) -> Digest:
    with path.open("rb") as stream:
        return Digest(hashlib.file_digest(stream, "sha256").hexdigest())
