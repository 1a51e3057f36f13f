# SPDX-License-Identifier: Apache-2.0
"""Protobuf's wire format: fields, places in a file, and what an edit does to the lengths around it.

A patch changes a few elements of a few tensors and nothing else. Parsing a file and writing it
again keeps that promise only if the serialiser happens to reproduce every byte; replacing the
elements where they lie keeps it by construction. For that the offsets are needed, which protobuf's
Python interface does not give (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model.source import Source
from lancet_onnx.rules import DAMAGED

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIDTH = {FIXED32: 4, FIXED64: 8}
_LONGEST_LENGTH = 5

FieldPath = tuple[tuple[int, int], ...]
"""Steps from the file's first message to an inner one: field number, and which occurrence of it."""


class Header(NamedTuple):
    """A length-delimited field: where its length is written, and where its payload lies."""

    length: int
    start: int
    end: int


class Field(NamedTuple):
    """One field: number, wire type, where its tag begins, and its length (if any) and payload."""

    number: int
    kind: int
    tag: int
    place: Header


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
    def _upto(self) -> NDArray[np.int64]:
        return np.array(list(accumulate(run.end - run.start for run in self.runs)), np.int64)

    @cached_property
    def _shift(self) -> NDArray[np.int64]:
        """What to add to a position among the values, in each run, for its place in the file."""
        return np.array([run.end for run in self.runs], np.int64) - self._upto

    def at(self, position: int, width: int) -> Edit:
        """Return the place of `width` bytes that begin at byte `position` of the values."""
        number = int(np.searchsorted(self._upto, position, side="right"))
        if number == len(self.runs) or position + width > self._upto[number]:
            raise ModelError(f"byte {position} lies past the end of the tensor's data")
        start = position + int(self._shift[number])
        return Edit(start, start + width, b"", self.runs[number].within)

    def places(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where bytes at `positions` of the values lie in the file."""
        if len(self.runs) == 1:
            return positions + self.runs[0].start
        places: NDArray[np.int64] = (
            positions + self._shift[np.searchsorted(self._upto, positions, side="right")]
        )
        return places

    def pieces(self, source: Source, size: int) -> Iterator[bytes]:
        """Yield the values' bytes in order, at most `size` at a time."""
        for run in self.runs:
            for start in range(run.start, run.end, size):
                yield source[start : min(start + size, run.end)]

    def ends(self, source: Source) -> NDArray[np.int64]:
        """Return, for values that are varints, the position after each among the values' bytes."""
        content = np.frombuffer(b"".join(source[r.start : r.end] for r in self.runs), np.uint8)
        ends: NDArray[np.int64] = np.flatnonzero(content < 0x80) + 1
        return ends


def fields(source: Source, start: int, end: int) -> Iterator[Field]:
    """Yield each field of one message, which lies at bytes `start` to `end`.

    Raises:
        ModelError: the bytes are no well-formed message.
    """
    position = start
    while position < end:
        before = position
        tag, position = read_varint(source, position, end)
        number, kind = tag >> 3, tag & 7
        length = position
        if kind == VARINT:
            _, stop = read_varint(source, position, end)
        elif kind == BYTES:
            size, position = read_varint(source, position, end)
            stop = position + size
        elif kind in WIDTH:
            stop = position + WIDTH[kind]
        else:
            raise ModelError(f"damaged protobuf: wire type {kind} at byte {position}", DAMAGED)
        if stop > end or number == 0:
            raise ModelError(
                f"damaged protobuf: field {number} at byte {position} ends past its end", DAMAGED
            )
        yield Field(number, kind, before, Header(length, position, stop))
        position = stop


def with_lengths(edits: Sequence[Edit]) -> list[Edit]:
    """Return the edits in the file's order and, where sizes change, those of the lengths around.

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
    changes.sort()
    done = 0
    for change in changes:
        if change.start < done:
            raise ModelError(f"two edits overlap at byte {change.start}")
        done = change.end
    return changes


def delimited(number: int, payload: bytes) -> bytes:
    """Return a field that holds bytes."""
    return varint(number << 3 | BYTES) + varint(len(payload)) + payload


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


def read_varint(source: Source, position: int, end: int) -> tuple[int, int]:
    """Return the integer at `position` and where it ends.

    Raises:
        ModelError: it does not end within ten bytes, or before `end`.
    """
    value = shift = 0
    while position < end and shift < 70:
        byte = source[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ModelError(f"damaged protobuf: no number ends at byte {position}", DAMAGED)
