# SPDX-License-Identifier: Apache-2.0
"""Where each tensor's bytes lie in an ONNX file.

A patch changes a few elements of a few tensors and nothing else. Parsing a file and writing it
again keeps that promise only if the serialiser happens to reproduce every byte; overwriting the
elements in place keeps it by construction. For that the offsets are needed, which protobuf's
Python interface does not give, so this module walks the wire format itself: tags and lengths only
(https://protobuf.dev/programming-guides/encoding), for the few messages on the way to a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lancet_onnx.errors import ModelError
from lancet_onnx.types import ValueName

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_OUTPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE = 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_FLOATS = 1, 2, 5, 7
_TENSOR_FLOAT_DATA, _TENSOR_NAME, _TENSOR_RAW_DATA, _TENSOR_DOUBLE_DATA = 4, 8, 9, 10


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``end`` of the file; `runs` of equal-sized elements lie in it.

    A packed or raw field is one run; a float field written element by element (allowed by the
    format, rare) is many.
    """

    runs: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Number of bytes in all runs."""
        return sum(end - start for start, end in self.runs)

    def offset(self, position: int) -> int:
        """Return the file offset of the byte at `position` within the tensor's data."""
        for start, end in self.runs:
            if position < end - start:
                return start + position
            position -= end - start
        raise ModelError(f"byte {position} lies past the end of the tensor's data")


def tensor_spans(data: bytes) -> Mapping[ValueName, Span]:
    """Return where the value bytes of each top-level initializer and Constant node lie.

    Tensors whose data is external or whose values sit in an integer field have no entry.

    Raises:
        ModelError: the bytes are no well-formed protobuf message.
    """
    spans: dict[ValueName, Span] = {}
    for field, start, end in _fields(data, 0, len(data)):
        if field == _MODEL_GRAPH:
            for part, begin, stop in _fields(data, start, end):
                if part == _GRAPH_INITIALIZER:
                    name, span = _tensor(data, begin, stop)
                    if span is not None:
                        spans[ValueName(name)] = span
                elif part == _GRAPH_NODE:
                    constant = _constant(data, begin, stop)
                    if constant is not None:
                        spans[constant[0]] = constant[1]
    return spans


def metadata_entry(key: str, value: str) -> bytes:
    """Return the bytes that, appended to a model file, add one `metadata_props` entry."""
    entry = _delimited(1, key.encode()) + _delimited(2, value.encode())
    return _delimited(_MODEL_METADATA, entry)


def _delimited(field: int, payload: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


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


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, end of payload) for each field of one message."""
    position = start
    while position < end:
        tag, position = _read_varint(data, position, end)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, stop = _read_varint(data, position, end)
        elif kind == _BYTES:
            length, position = _read_varint(data, position, end)
            stop = position + length
        elif kind in (_FIXED32, _FIXED64):
            stop = position + (4 if kind == _FIXED32 else 8)
        else:
            raise ModelError(f"damaged protobuf: wire type {kind} at byte {position}")
        if stop > end or field == 0:
            raise ModelError(
                f"damaged protobuf: field {field} at byte {position} ends past its end"
            )
        yield field, position, stop
        position = stop


def _tensor(data: bytes, start: int, end: int) -> tuple[str, Span | None]:
    name = ""
    runs: list[tuple[int, int]] = []
    for field, begin, stop in _fields(data, start, end):
        if field == _TENSOR_NAME:
            name = data[begin:stop].decode(errors="replace")
        elif field in (_TENSOR_FLOAT_DATA, _TENSOR_RAW_DATA, _TENSOR_DOUBLE_DATA) and stop > begin:
            runs.append((begin, stop))
    return name, Span(tuple(runs)) if runs else None


def _constant(data: bytes, start: int, end: int) -> tuple[ValueName, Span] | None:
    output, op_type = "", b""
    span: Span | None = None
    for field, begin, stop in _fields(data, start, end):
        if field == _NODE_OUTPUT:
            output = data[begin:stop].decode(errors="replace")
        elif field == _NODE_OP_TYPE:
            op_type = data[begin:stop]
        elif field == _NODE_ATTRIBUTE:
            span = _attribute(data, begin, stop) or span
    if op_type != b"Constant" or span is None:
        return None
    return ValueName(output), span


def _attribute(data: bytes, start: int, end: int) -> Span | None:
    name = b""
    span: Span | None = None
    floats: list[tuple[int, int]] = []
    for field, begin, stop in _fields(data, start, end):
        if field == _ATTRIBUTE_NAME:
            name = data[begin:stop]
        elif field == _ATTRIBUTE_TENSOR:
            span = _tensor(data, begin, stop)[1]
        elif field in (_ATTRIBUTE_FLOAT, _ATTRIBUTE_FLOATS):
            floats.append((begin, stop))
    if name in (b"value_float", b"value_floats"):
        return Span(tuple(floats))
    return span if name == b"value" else None
