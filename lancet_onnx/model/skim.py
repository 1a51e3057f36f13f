# SPDX-License-Identifier: Apache-2.0
"""One walk over an .onnx file: all of it but the numbers in its tensors, and where those lie.

What is left, the *skeleton*, is an ONNX model of some kilobytes with the same nodes, names and
shapes, and is all that protobuf gets to parse: a file of two gigabytes costs no more memory than
its graph does. Each tensor is known by its `FieldPath`, in the skeleton as in the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lancet_onnx.errors import ModelError
from lancet_onnx.model.source import Source
from lancet_onnx.model.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    WIDTH,
    FieldPath,
    Header,
    Run,
    Span,
    delimited,
    fields,
    read_varint,
)
from lancet_onnx.rules import TOO_DEEP, TOO_LARGE

MAX_SKELETON = 256 << 20
"""Bytes of a model without its tensors' numbers; the largest known have a tenth of it."""

MAX_FIELDS = 20_000_000
DEEPEST = 16
"""Branches and loops inside each other."""

RAW_DATA = 9
VALUE_FIELDS = {4: FIXED32, 5: VARINT, 7: VARINT, 9: BYTES, 10: FIXED64, 11: VARINT}
"""Fields of TensorProto that hold numbers, and how one of them is coded."""

_STEPS = {
    ("model", 7): ("graph", False),
    ("model", 25): ("function", True),
    ("graph", 1): ("node", True),
    ("graph", 5): ("tensor", True),
    ("graph", 15): ("sparse", True),
    ("function", 7): ("node", True),
    ("function", 11): ("attribute", True),
    ("node", 5): ("attribute", True),
    ("attribute", 5): ("tensor", False),
    ("attribute", 6): ("graph", False),
    ("attribute", 10): ("tensor", True),
    ("attribute", 11): ("graph", True),
    ("attribute", 22): ("sparse", False),
    ("attribute", 23): ("sparse", True),
    ("sparse", 1): ("tensor", False),
    ("sparse", 2): ("tensor", False),
}
"""Field numbers of onnx.proto: what message a field holds, and whether it is a list.

Of a field that is no list, a reader merges all occurrences into one message.
"""

_TYPE = 20
_ATTRIBUTE_VALUES = {2: FIXED32, 3: VARINT, 7: FIXED32, 8: VARINT, 20: VARINT}
_ATTRIBUTE_TYPES = {1: (2, False), 2: (3, False), 6: (7, True), 7: (8, True)}
"""By an attribute's type: the field that counts, and whether it is a list."""

Runs = Mapping[int, Sequence[Run]]
"""By field number, where one message's values lie."""


@dataclass(frozen=True, eq=False)
class Skim:
    """What the walk found.

    Attributes:
        skeleton: the model without the numbers in its tensors, as protobuf.
        tensors: by the path of each tensor that holds numbers, where they lie; precheck sees to
            it that one field holds them.
        attributes: the same for plain numbers of attributes.
    """

    skeleton: bytes
    tensors: Mapping[FieldPath, Runs]
    attributes: Mapping[FieldPath, Runs]
    _source: Source

    def span(self, path: FieldPath) -> Span | None:
        """Return where the numbers of a tensor or attribute lie, None for none in this file."""
        if path in self.tensors:
            return _of_tensor(self.tensors[path])
        if path in self.attributes:
            return _of_attribute(self.attributes[path], self._source)
        return None


def skim(source: Source) -> Skim:
    """Walk over a file.

    Raises:
        ModelError: the bytes are no well-formed protobuf, or more than a model can need.
    """
    found = _Found(source)
    skeleton = bytearray()
    found.walk("model", (), Header(0, 0, len(source)), (), skeleton)
    return Skim(bytes(skeleton), found.tensors, found.attributes, source)


@dataclass(slots=True)
class _Found:
    source: Source
    tensors: dict[FieldPath, dict[int, list[Run]]] = field(default_factory=dict)
    attributes: dict[FieldPath, dict[int, list[Run]]] = field(default_factory=dict)
    seen: dict[tuple[FieldPath, int], int] = field(default_factory=lambda: defaultdict(int))
    fields: int = 0
    kept: int = 0

    def walk(
        self, message: str, path: FieldPath, at: Header, within: tuple[Header, ...], out: bytearray
    ) -> None:
        """Copy one message to `out` but for its tensors' numbers, whose places are noted."""
        values: Mapping[int, int] = {}
        runs: dict[int, list[Run]] = {}
        if message == "tensor":
            values, runs = VALUE_FIELDS, self.tensors.setdefault(path, {})
        elif message == "attribute":
            values, runs = _ATTRIBUTE_VALUES, self.attributes.setdefault(path, {})
        elif message == "graph" and len(path) > 1 + 3 * DEEPEST:
            raise ModelError(f"branches are nested more than {DEEPEST} deep; refused", TOO_DEEP)
        for number, kind, tag, place in fields(self.source, at.start, at.end):
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise ModelError(f"more than {MAX_FIELDS:,} fields; refused", TOO_LARGE)
            if number in values and kind in (BYTES, values[number]):
                inner = (*within, place) if kind == BYTES else within
                runs.setdefault(number, []).append(Run(place.start, place.end, inner))
                if message == "tensor":
                    continue
            step = _STEPS.get((message, number))
            if step is None or kind != BYTES:
                self._keep(place.end - tag)
                out += self.source[tag : place.end]
                continue
            occurrence = 0
            if step[1]:
                occurrence = self.seen[path, number]
                self.seen[path, number] += 1
            part = bytearray()
            self.walk(step[0], (*path, (number, occurrence)), place, (*within, place), part)
            out += delimited(number, bytes(part))

    def _keep(self, size: int) -> None:
        self.kept += size
        if self.kept > MAX_SKELETON:
            raise ModelError(
                f"more than {MAX_SKELETON >> 20} MiB beside the numbers of its tensors; refused",
                TOO_LARGE,
            )


def _of_tensor(runs: Runs) -> Span | None:
    if RAW_DATA in runs:
        raw = runs[RAW_DATA][-1]  # of what may be there once the last one counts
        return Span(1, (raw,)) if raw.end > raw.start else None
    for number, found in runs.items():
        filled = tuple(run for run in found if run.end > run.start)
        if filled:
            return Span(WIDTH.get(VALUE_FIELDS[number], 0), filled)
    return None


def _of_attribute(runs: Runs, source: Source) -> Span | None:
    if _TYPE not in runs:
        return None
    kind = read_varint(source, *runs[_TYPE][-1][:2])[0]
    number, is_list = _ATTRIBUTE_TYPES.get(kind, (0, False))
    found = runs.get(number, [])[0 if is_list else -1 :]
    filled = tuple(run for run in found if run.end > run.start)
    return Span(WIDTH.get(_ATTRIBUTE_VALUES[number], 0), filled) if filled else None
