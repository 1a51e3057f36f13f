# SPDX-License-Identifier: Apache-2.0
"""Whether a tensor's description and its bytes agree."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx

from lancet_onnx.errors import ModelError
from lancet_onnx.model.external import ITEM_BITS, external_file, is_external
from lancet_onnx.model.skim import RAW_DATA, VALUE_FIELDS, Runs
from lancet_onnx.model.source import Source
from lancet_onnx.model.wire import VARINT, WIDTH, Span
from lancet_onnx.rules import DAMAGED, TWO_FIELDS, WRONG_SIZE

MOST_ELEMENTS = 1 << 40
_NAMES = {
    9: "raw_data",
    4: "float_data",
    5: "int32_data",
    7: "int64_data",
    10: "double_data",
    11: "uint64_data",
}
_PIECE = 1 << 20


def check_tensor(
    tensor: onnx.TensorProto, runs: Runs, source: Source, owner: str, path: Path
) -> None:
    """Refuse a tensor whose description and bytes disagree.

    `runs` are the places of its numbers; `owner` is how messages speak of it.

    Raises:
        ModelError: impossible shape or type, two value fields, too few bytes or too many.
    """
    dims = list(tensor.dims)
    if any(dim < 0 for dim in dims) or math.prod(dims) >= MOST_ELEMENTS:
        raise ModelError(f"{path}: {owner} has the impossible shape {dims}", WRONG_SIZE)
    try:
        type_name = onnx.TensorProto.DataType.Name(tensor.data_type)
    except ValueError:
        raise ModelError(
            f"{path}: {owner} has the unknown type {tensor.data_type}", WRONG_SIZE
        ) from None
    sizes = {number: sum(r.end - r.start for r in found) for number, found in runs.items()}
    # An empty raw_data still decides for some readers; an empty list does not exist for any.
    filled = [number for number, size in sizes.items() if size or number == RAW_DATA]
    names = [name for number, name in _NAMES.items() if number in filled]
    if len(tensor.string_data):
        names.append("string_data")
    if is_external(tensor):
        if names:
            raise ModelError(
                f"{path}: {owner} holds data both inside and outside the file; readers disagree on "
                "which counts, so the file is refused",
                TWO_FIELDS,
            )
        external_file(tensor, owner, path)
        return
    if len(names) > 1:
        raise ModelError(
            f"{path}: {owner} fills two value fields ({' and '.join(names)}); readers disagree on "
            "which one counts (a known way to hide weights), so the file is refused",
            TWO_FIELDS,
        )
    bits = ITEM_BITS.get(type_name)
    if bits is None or names == ["string_data"]:
        return
    if not filled or filled == [RAW_DATA]:
        last = runs[RAW_DATA][-1] if filled else None  # the last one counts
        present = last.end - last.start if last else 0
        expected = (math.prod(dims) * bits + 7) // 8
        unit = "bytes"
    else:
        number = filled[0]
        span = Span(WIDTH.get(VALUE_FIELDS[number], 0), tuple(runs[number]))
        if VALUE_FIELDS[number] == VARINT:
            present = _count_varints(span, source, owner, path)
        else:
            present, rest = divmod(span.size, span.width)
            present += bool(rest)
        expected = math.prod(dims) * (2 if type_name.startswith("COMPLEX") else 1)
        unit = "elements"
        if bits < 8:
            return
    if present != expected:
        raise ModelError(
            f"{path}: {owner} of shape {dims} needs {expected} {unit} but holds {present}; "
            "the file is damaged or was made to mislead",
            WRONG_SIZE,
        )


def _count_varints(span: Span, source: Source, owner: str, path: Path) -> int:
    """Return how many varints lie in a span; each must be one that protobuf reads."""
    count = 0
    for run in span.runs:
        begun = 0  # bytes of a number that goes on in the next piece
        for piece in Span(0, (run,)).pieces(source, _PIECE):
            content = np.frombuffer(piece, np.uint8)
            ends = np.flatnonzero(content < 0x80)
            lengths = np.diff(ends, prepend=-1 - begun)
            count += len(ends)
            begun = len(piece) - 1 - int(ends[-1]) if len(ends) else begun + len(piece)
            # The tenth byte holds the last of 64 bits.
            overflow = (lengths > 10) | ((lengths == 10) & (content[ends] > 1))
            if begun > 10 or overflow.any():
                break
        else:
            if not begun:
                continue
        raise ModelError(
            f"{path}: {owner} holds a number that is cut or longer than 64 bits; the file is "
            "damaged",
            DAMAGED,
        )
    return count
