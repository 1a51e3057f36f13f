# SPDX-License-Identifier: Apache-2.0
"""`Contents`: a model file as it lies on disk, each constant by its place; values on demand.

This is all that patches need. What a model computes is in `load`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from lancet_onnx.errors import ModelError
from lancet_onnx.model.digests import PIECE, digest_of_pieces
from lancet_onnx.model.external import External
from lancet_onnx.model.freeze import freeze
from lancet_onnx.model.graph import Graph
from lancet_onnx.model.precheck import precheck
from lancet_onnx.model.scope import Stored
from lancet_onnx.model.skim import skim
from lancet_onnx.model.source import Source, opened
from lancet_onnx.model.values import reader
from lancet_onnx.rules import DAMAGED, NO_MODEL, TOO_LARGE
from lancet_onnx.types import Digest, ValueName

MAX_FILE_BYTES = (1 << 31) - 1
"""Of an .onnx file: protobuf, and so every reader of it, stops there; data files may be larger."""


@dataclass(frozen=True, eq=False)
class Contents:
    """A model file as it lies on disk.

    Attributes:
        path: as given by the user.
        source: the bytes of the .onnx file.
        skeleton: the model without the numbers in its tensors, as protobuf.
        stored: how the file keeps each constant.
    """

    path: Path
    source: Source
    skeleton: bytes
    stored: Mapping[ValueName, Stored]

    @cached_property
    def external(self) -> Mapping[ValueName, External]:
        """Where the bytes of constants with external data lie."""
        return {name: at.external for name, at in self.stored.items() if at.external is not None}

    @cached_property
    def data_files(self) -> Mapping[str, Path]:
        """The external data files by the location that the .onnx file gives them."""
        return {outside.location: outside.file for outside in self.external.values()}

    def values(self, name: ValueName) -> Callable[[int, int], bytes]:
        """Return a function that gives a constant's bytes from one position to another.

        They are those that numpy keeps, all `Stored.bytes` of them; text gives its own form.
        """
        at = self.stored[name]
        if at.positions is None and at.external is not None and at.external.length == at.bytes:
            outside = at.external

            def from_file(start: int, stop: int) -> bytes:
                with opened(outside.file) as data:
                    return data[outside.offset + start : outside.offset + stop]

            return from_file
        if at.positions is None and at.span and at.span.width and len(at.span.runs) == 1:
            first = at.span.runs[0].start
            return lambda start, stop: self.source[first + start : first + stop]
        array = at.read()
        # Text is kept as objects, whose bytes would be addresses.
        content = array.tobytes() if at.width else repr(array.tolist()).encode()
        return lambda start, stop: content[start:stop]

    def pieces(self, name: ValueName) -> Iterator[bytes]:
        """Yield all bytes of a constant, a few megabytes at a time."""
        at = self.stored[name]
        read = self.values(name)
        if not at.width:
            yield read(0, 1 << 60)
        for start in range(0, at.bytes, PIECE):
            yield read(start, min(start + PIECE, at.bytes))

    def weights_digest(self) -> Digest:
        """Return a digest over name, type, shape and values of every constant, in order of name."""
        digest = hashlib.sha256()
        for name in sorted(self.stored):
            at = self.stored[name]
            digest.update(f"\0{name}\0{at.dtype}\0{at.shape}\0".encode())
            digest.update(bytes.fromhex(str(digest_of_pieces(self.pieces(name)))))
        return Digest(digest.hexdigest())


@contextmanager
def survey(path: Path) -> Iterator[Contents]:
    """Open the model at `path` for patching: prechecked, its values left where they are.

    Raises:
        ModelError: missing, unreadable, not ONNX, damaged or hostile (see `precheck`).
        UnsupportedError: a structure that is not handled.
    """
    with opened(path) as source:
        yield understand(source, path)[1]


def understand(source: Source, path: Path) -> tuple[Graph, Contents]:
    """Return the graph of an .onnx file, without constants, and how the file keeps those.

    Raises:
        ModelError: not ONNX, damaged or hostile (see `precheck`).
        UnsupportedError: a structure that is not handled.
    """
    refuse_too_large(source, path)
    not_onnx = (
        f"{path}: not an ONNX model, or a truncated one ({len(source)} bytes that do not parse as "
        "protobuf); expected a file written by torch.onnx.export, tf2onnx ..."
    )
    try:
        found = skim(source)
        proto = onnx.ModelProto.FromString(found.skeleton)
    except DecodeError:
        raise ModelError(not_onnx, NO_MODEL) from None
    except ModelError as error:
        if error.rule is DAMAGED:
            raise ModelError(not_onnx, NO_MODEL) from error
        raise ModelError(f"{path}: {error.text}", error.rule) from error
    try:
        precheck(proto, found, source, path)
        graph, stored = freeze(proto, path, reader(source, found, path), found.span)
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        # A message that parses may still hold what the ONNX format does not allow anywhere.
        raise ModelError(
            f"{path}: the model is damaged or not valid ONNX ({error})", DAMAGED
        ) from error
    return graph, Contents(path, source, found.skeleton, stored)


def refuse_too_large(source: Source, path: Path) -> None:
    """Refuse an .onnx file that no reader of ONNX could take, before its bytes fill the memory.

    Raises:
        ModelError: larger than protobuf allows.
    """
    if len(source) > MAX_FILE_BYTES:
        raise ModelError(
            f"{path}: {len(source):,} bytes, more than the 2 GiB that an .onnx file may have; keep "
            "the weights in external data",
            TOO_LARGE,
        )
