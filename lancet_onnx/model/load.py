# SPDX-License-Identifier: Apache-2.0
"""File -> `OnnxModel`: read once, hash, skim, precheck, freeze.

The bytes of the .onnx file that are hashed are the bytes that are parsed, and those that a patch
is applied to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from lancet_onnx.model.contents import Contents, refuse_too_large, understand
from lancet_onnx.model.digests import data_file_digest, model_digest
from lancet_onnx.model.external import External
from lancet_onnx.model.graph import Graph, is_float
from lancet_onnx.model.scope import Stored
from lancet_onnx.model.source import opened
from lancet_onnx.types import Digest, ValueName


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A model file: what it holds and where, its digest, and its frozen graph.

    Attributes:
        contents: the file, and how it keeps each constant.
        digest: of the .onnx file; with external data over all files (see `model_digest`).
        graph: what the file computes, with the values of all constants.
    """

    contents: Contents
    digest: Digest
    graph: Graph

    @property
    def path(self) -> Path:
        """The .onnx file, as given by the user."""
        return self.contents.path

    @property
    def stored(self) -> Mapping[ValueName, Stored]:
        """How the file keeps each constant."""
        return self.contents.stored

    @property
    def external(self) -> Mapping[ValueName, External]:
        """Where the bytes of constants with external data lie."""
        return self.contents.external

    @cached_property
    def non_finite(self) -> tuple[ValueName, ...]:
        """Names of float constants that hold NaN or infinity."""
        return tuple(
            name
            for name, array in self.graph.constants.items()
            if is_float(array.dtype) and not np.isfinite(array.astype(np.float64)).all()
        )


def load(path: Path) -> OnnxModel:
    """Read and precheck the ONNX model at `path`, with all its values.

    Raises:
        ModelError: missing, unreadable, not ONNX, damaged or hostile (see `precheck`).
        UnsupportedError: a structure that is not handled.
    """
    with opened(path) as source:
        refuse_too_large(source, path)
        data = source[:]
    graph, contents = understand(data, path)
    constants = {name: at.read() for name, at in contents.stored.items()}
    files = {location: data_file_digest(file) for location, file in contents.data_files.items()}
    digest = model_digest(Digest.of(data), files)
    return OnnxModel(contents, digest, replace(graph, constants=constants))
