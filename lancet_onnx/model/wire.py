# SPDX-License-Identifier: Apache-2.0
"""Where each tensor's bytes lie in an ONNX file, and how to replace a few of them.

A patch changes a few elements of a few tensors and nothing else. Parsing a file and writing it
again keeps that promise only if the serialiser happens to reproduce every byte; replacing the
elements where they lie keeps it by construction. For that the offsets are needed, which protobuf's
Python interface does not give, so this module walks the wire format itself: tags and lengths only
(https://protobuf.dev/programming-guides/encoding), for the few messages on the way to a tensor.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model.scope import FieldPath

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED32: 4, _FIXED64: 8}
_LONGEST_LENGTH = 5

_MODEL_METADATA = 14
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
    ("attribute", 22): ("sparse", False),
    ("sparse", 1): ("tensor", False),
}
"""Field numbers of onnx.proto: what message a field holds, and whether it is a list.

Of a field that is no list, a reader merges all occurrences into one message.
"""

_TENSOR_RAW_DATA = 9
_TENSOR_VALUES = {4: _FIXED32, 5: _VARINT, 7: _VARINT, 9: _BYTES, 10: _FIXED64, 11: _VARINT}
_ATTRIBUTE_TYPE = 20
_ATTRIBUTE_VALUES = {2: _FIXED32, 3: _VARINT, 7: _FIXED32, 8: _VARINT, 20: _VARINT}
_ATTRIBUTE_TYPES = {1: (2, False), 2: (3, False), 6: (7, True), 7: (8, True)}
"""By an attribute's type: the field that counts, and whether it is a list."""


class Header(NamedTuple):
    """A length-delimited field: where its length is written, and where its payload lies."""

    length: int
    start: int
    end: int


class Run(NamedTuple):
    """Bytes ``start`` to ``end`` of the file, and the fields around them, outermost first."""

    start: int
    end: int
    within: tuple[Header, ...]


class Edit(NamedTuple):
    """Bytes ``start`` to ``end`` are to be replaced by `content`, inside the fields `within`."""

    start: int
    end: int
    content: bytes
    within: tuple[Header, ...] = ()


@dataclass(frozen=True)
class Span:
    """Where the values of one tensor lie.

    A packed or raw field is one run; one written element by element, or packed in several pieces
    (both are allowed by the format and rare), is many.

    Attributes:
        width: bytes of one element; 0 where each has its own length (varints), 1 for raw bytes.
        runs: in the order of the values.
    """

    width: int
    runs: tuple[Run, ...]

    @cached_property
    def size(self) -> int:
        """Number of bytes in all runs."""
        return sum(run.end - run.start for run in self.runs)

    @cached_property
    def _upto(self) -> list[int]:
        return list(accumulate(run.end - run.start for run in self.runs))

    def at(self, position: int, width: int) -> Edit:
        """Return the place of `width` bytes that begin at byte `position` of the values."""
        number = bisect.bisect_right(self._upto, position)
        if number == len(self.runs) or position + width > self._upto[number]:
            raise ModelError(f"byte {position} lies past the end of the tensor's data")
        run = self.runs[number]
        start = run.end - (self._upto[number] - position)
        return Edit(start, start + width, b"", run.within)

    def ends(self, data: bytes) -> NDArray[np.int64]:
        """Return, for values that are varints, the position after each among the values' bytes."""
        content = np.frombuffer(b"".join(data[run.start : run.end] for run in self.runs), np.uint8)
        ends: NDArray[np.int64] = np.flatnonzero(content < 0x80) + 1
        return ends


def locate(data: bytes, paths: Iterable[FieldPath]) -> Mapping[FieldPath, Span]:
    """Return where the values of the tensors (or attributes) at `paths` lie.

    What holds no values in the file (external or empty tensors, text) has no entry.

    Raises:
        ModelError: the bytes are no well-formed protobuf message.
    """
    spans: dict[FieldPath, Span] = {}
    _descend(data, "model", [Run(0, len(data), ())], 0, sorted(set(paths)), spans)
    return spans


def splice(data: bytes, edits: Sequence[Edit]) -> bytearray:
    """Return `data` with every edit made and, where sizes change, the lengths around them.

    A length keeps its bytes unless its field grows or shrinks; one that was written longer than
    needed stays longer by as much, so that undoing an edit restores it.

    Raises:
        ModelError: edits that overlap.
        UnsupportedError: a padded length that would become longer than readers take.
    """
    grown: dict[Header, int] = defaultdict(int)
    around: dict[Header, tuple[Header, ...]] = {}
    for edit in edits:
        growth = len(edit.content) - (edit.end - edit.start)
        if growth:
            for depth, header in enumerate(edit.within):
                grown[header] += growth
                around[header] = edit.within[:depth]
    changes = list(edits)
    for header in sorted(grown, key=lambda h: h.start, reverse=True):  # inner before outer
        old = header.end - header.start
        if grown[header]:
            spare = header.start - header.length - len(varint(old))
            content = varint(old + grown[header], spare)
            if len(content) > _LONGEST_LENGTH:
                raise UnsupportedError(
                    f"the length at byte {header.length} is coded longer than needed and would "
                    "become longer than five bytes, which no reader takes; nothing was written"
                )
            changes.append(Edit(header.length, header.start, content))
            for outer in around[header]:
                grown[outer] += len(content) - (header.start - header.length)
    result, done = bytearray(), 0
    for change in sorted(changes):
        if change.start < done:
            raise ModelError(f"two edits overlap at byte {change.start}")
        result += memoryview(data)[done : change.start]
        result += change.content
        done = change.end
    result += memoryview(data)[done:]
    return result


def metadata_entry(key: str, value: str) -> bytes:
    """Return the bytes that, appended to a model file, add one `metadata_props` entry."""
    entry = _delimited(1, key.encode()) + _delimited(2, value.encode())
    return _delimited(_MODEL_METADATA, entry)


def varint(number: int, spare: int = 0) -> bytes:
    """Return the shortest coding of an integer, a negative one as 64 bits in two's complement.

    `spare` makes it that many bytes longer than needed.
    """
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    if spare:
        out[-1] |= 0x80
        out += b"\x80" * (spare - 1) + b"\0"
    return bytes(out)


def _delimited(field: int, payload: bytes) -> bytes:
    return varint(field << 3 | _BYTES) + varint(len(payload)) + payload


def _read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ModelError(f"damaged protobuf: no number ends at byte {position}")


class _Field(NamedTuple):
    """One field: number, wire type, and where its length (if it has one) and payload lie."""

    number: int
    kind: int
    place: Header


def _fields(data: bytes, start: int, end: int) -> Iterator[_Field]:
    """Yield each field of one message."""
    position = start
    while position < end:
        tag, position = _read_varint(data, position, end)
        number, kind = tag >> 3, tag & 7
        before = position
        if kind == _VARINT:
            _, stop = _read_varint(data, position, end)
        elif kind == _BYTES:
            length, position = _read_varint(data, position, end)
            stop = position + length
        elif kind in _WIDTH:
            stop = position + _WIDTH[kind]
        else:
            raise ModelError(f"damaged protobuf: wire type {kind} at byte {position}")
        if stop > end or number == 0:
            raise ModelError(
                f"damaged protobuf: field {number} at byte {position} ends past its end"
            )
        yield _Field(number, kind, Header(before, position, stop))
        position = stop


def _descend(
    data: bytes,
    message: str,
    parts: Sequence[Run],
    depth: int,
    paths: Sequence[FieldPath],
    spans: dict[FieldPath, Span],
) -> None:
    """Look for all `paths` at once in one message, which may be written in several parts."""
    onward: dict[int, dict[int, list[FieldPath]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        if len(path) > depth:
            number, occurrence = path[depth]
            onward[number][occurrence].append(path)
        else:
            span = _attribute(data, parts) if message == "attribute" else _tensor(data, parts)
            if span is not None:
                spans[path] = span
    if not onward:
        return
    inner: dict[tuple[int, int], list[Run]] = defaultdict(list)
    seen: dict[int, int] = defaultdict(int)
    for part in parts:
        for field in _fields(data, part.start, part.end):
            wanted = onward.get(field.number)
            if wanted is None or field.kind != _BYTES:
                continue
            occurrence = 0
            if _STEPS[message, field.number][1]:
                occurrence = seen[field.number]
                seen[field.number] += 1
            if occurrence in wanted:
                place = field.place
                run = Run(place.start, place.end, (*part.within, place))
                inner[field.number, occurrence].append(run)
    for (number, occurrence), runs in inner.items():
        kind = _STEPS[message, number][0]
        _descend(data, kind, runs, depth + 1, onward[number][occurrence], spans)


def _tensor(data: bytes, parts: Sequence[Run]) -> Span | None:
    """Return where a TensorProto's values lie; precheck saw to it that one field holds them."""
    runs = _runs(data, parts, _TENSOR_VALUES)
    if _TENSOR_RAW_DATA in runs:
        raw = runs[_TENSOR_RAW_DATA][-1]  # of what may be there once the last one counts
        return Span(1, (raw,)) if raw.end > raw.start else None
    for number, found in runs.items():
        filled = tuple(run for run in found if run.end > run.start)
        if filled:
            return Span(_WIDTH.get(_TENSOR_VALUES[number], 0), filled)
    return None


def _attribute(data: bytes, parts: Sequence[Run]) -> Span | None:
    """Return where the plain number or numbers of an AttributeProto lie."""
    runs = _runs(data, parts, _ATTRIBUTE_VALUES)
    if _ATTRIBUTE_TYPE not in runs:
        return None
    kind = _read_varint(data, *runs[_ATTRIBUTE_TYPE][-1][:2])[0]
    number, is_list = _ATTRIBUTE_TYPES.get(kind, (0, False))
    found = runs.get(number, [])[0 if is_list else -1 :]
    filled = tuple(run for run in found if run.end > run.start)
    return Span(_WIDTH.get(_ATTRIBUTE_VALUES[number], 0), filled) if filled else None


def _runs(data: bytes, parts: Sequence[Run], kinds: Mapping[int, int]) -> dict[int, list[Run]]:
    """Return all occurrences of the fields `kinds`, numbers by themselves or packed."""
    runs: dict[int, list[Run]] = defaultdict(list)
    for part in parts:
        for number, kind, place in _fields(data, part.start, part.end):
            if kind == _BYTES and number in kinds:
                runs[number].append(Run(place.start, place.end, (*part.within, place)))
            elif kind == kinds.get(number):
                runs[number].append(Run(place.start, place.end, part.within))
    return runs
