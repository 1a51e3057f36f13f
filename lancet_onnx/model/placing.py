# SPDX-License-Identifier: Apache-2.0
"""Deltas -> replacements in a model's files, each element checked against its old bits first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.errors import PatchError, UnsupportedError
from lancet_onnx.model.contents import Contents
from lancet_onnx.model.copying import Overwrite, Overwrites
from lancet_onnx.model.scope import Stored
from lancet_onnx.model.source import Source
from lancet_onnx.model.wire import Edit, Run, Span, varint
from lancet_onnx.patch import Elements, TensorDelta, bit_type
from lancet_onnx.types import ParamName, ValueName

_WINDOW, _NEAR = 1 << 20, 1 << 12


@dataclass(frozen=True, slots=True)
class Placed:
    """One delta as replacements in one file: of the same size, or (varints) of any."""

    overwrites: Overwrites | None
    edits: Sequence[Edit] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where one initializer's values lie.

    Attributes:
        location: of the external data file, empty for the .onnx file itself.
        span: in that file.
        ends: of values that have lengths of their own, where each ends among the values' bytes.
        positions: of a sparse tensor, the flat positions of the values that are stored.
    """

    location: str
    span: Span
    ends: NDArray[np.int64] | None
    positions: NDArray[np.generic] | None


def writable(contents: Contents, params: Iterable[ParamName]) -> None:
    """Refuse initializers that could not be written back, before any work is spent on them.

    Raises:
        UnsupportedError: naming the initializer: its values lie in no place or in one that another
            initializer shares, or its type or form is none that patches carry.
    """
    shared = _Shared(contents)
    for name in params:
        _place(contents, name, shared)


def place(
    contents: Contents, deltas: Sequence[TensorDelta], data: Mapping[str, Source]
) -> dict[str, list[Placed]]:
    """Return what is to be replaced, by file; `data` are the external data files by location.

    Raises:
        PatchError: a target that the model lacks, or an old value that is not the model's.
        UnsupportedError: what could not be written back.
    """
    found: dict[str, list[Placed]] = {}
    shared = _Shared(contents)
    for delta in deltas:
        at = contents.stored.get(delta.param)
        if at is None or at.dtype != delta.dtype or at.shape != delta.shape:
            kind = "no such initializer" if at is None else f"{at.dtype} {at.shape}"
            raise PatchError(
                f"{contents.path}: the patch wants '{delta.param}' to be {delta.dtype} "
                f"{delta.shape}; found {kind}"
            )
        where = _place(contents, delta.param, shared)
        source = data[where.location] if where.location else contents.source
        if where.ends is None:
            _check_fixed(source, where, delta, contents)
            item = Placed(_fixed(where, delta, contents))
        else:
            item = Placed(None, list(_coded_edits(source, where, delta, contents)))
        found.setdefault(where.location, []).append(item)
    if len({delta.param for delta in deltas}) != len(deltas):
        raise PatchError(f"{contents.path}: two targets of the patch name one initializer")
    return found


@dataclass
class _Shared:
    """Which constants lie at one place, so that none of them could be changed alone."""

    contents: Contents
    names: dict[ValueName, ValueName] = field(init=False)

    def __post_init__(self) -> None:
        ranges = [(*_range(at), name) for name, at in self.contents.stored.items()]
        self.names = {}
        file, end, last = "", 0, ValueName("")
        for where, start, stop, name in sorted(r for r in ranges if r[2] > r[1]):
            if where == file and start < end:
                self.names[name] = last
                self.names[last] = name
            if where != file or stop > end:
                file, end, last = where, stop, name


def _range(at: Stored) -> tuple[str, int, int]:
    """Return the file and the bytes, from the first to after the last, that hold a constant."""
    if at.external is not None:
        start = at.external.offset
        return str(at.external.file), start, start + at.external.length
    if at.span is None:
        return "", 0, 0
    return "", at.span.runs[0].start, at.span.runs[0].end


def _place(contents: Contents, name: ParamName, shared: _Shared) -> _Place:
    """Return where the values of one initializer lie, or refuse as `writable` says."""
    at = contents.stored.get(name)
    if at is None:
        raise UnsupportedError(
            f"{contents.path}: the values of '{name}' lie neither in the file nor in its external "
            "data, so they could not be written back"
        )
    try:
        bit_type(at.dtype)
    except PatchError as error:
        raise UnsupportedError(
            f"{contents.path}: '{name}' could not be written back: {error}"
        ) from error
    if name in shared.names:
        raise UnsupportedError(
            f"{contents.path}: '{name}' and '{shared.names[name]}' share the place where they are "
            "stored, so neither could be changed alone"
        )
    count = at.bytes // at.width if at.positions is None else len(at.positions)
    if at.external is not None:
        outside = at.external
        span = Span(1, (Run(outside.offset, outside.offset + outside.length, ()),))
    else:
        span = at.span or Span(1, ())
    ends = None if span.width else span.ends(contents.source)
    found = span.size / at.width if ends is None else len(ends)
    if found != count:
        raise UnsupportedError(
            f"{contents.path}: the {count} values of '{name}' ({at.dtype}) are not all stored, "
            "or in another form than patches know, so they could not be written back"
        )
    return _Place(at.external.location if at.external else "", span, ends, at.positions)


def _fixed(where: _Place, delta: TensorDelta, contents: Contents) -> Overwrites:
    """Return the replacements for elements that all have one width."""

    def blocks() -> Iterator[Overwrite]:
        for block in delta.blocks():
            at = _places(where, block, delta, contents)
            yield Overwrite(at, _as_bytes(block.new, delta.dtype))

    return blocks


def _check_fixed(source: Source, where: _Place, delta: TensorDelta, contents: Contents) -> None:
    """Refuse a delta whose old values are not those of the file, bit for bit."""
    for block in delta.blocks():
        at = _places(where, block, delta, contents)
        old = _as_bytes(block.old, delta.dtype)
        wrong = np.flatnonzero((_gather(source, at, old.shape[1]) != old).any(axis=1))
        if len(wrong):
            raise _not_expected(contents, delta, int(block.at[wrong[0]]))


def _gather(source: Source, at: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """Return the `width` bytes at each place; near ones are read together."""
    found = np.empty((len(at), width), np.uint8)
    breaks = np.append(np.flatnonzero(np.diff(at) > _NEAR) + 1, len(at))
    first = 0
    while first < len(at):
        start = int(at[first])
        together = int(breaks[np.searchsorted(breaks, first, side="right")])
        last = min(together, int(np.searchsorted(at, start + _WINDOW)))
        window = np.frombuffer(source[start : int(at[last - 1]) + width], np.uint8)
        found[first:last] = window[(at[first:last] - start)[:, None] + np.arange(width)]
        first = last
    return found


def _coded_edits(
    source: Source, where: _Place, delta: TensorDelta, contents: Contents
) -> Iterator[Edit]:
    """Yield the replacement for every element that has a length of its own."""
    ends = where.ends
    assert ends is not None  # noqa: S101 - the caller's case
    for block in delta.blocks():
        stored = _stored_positions(where, block, delta, contents)
        for number, position in enumerate(stored):
            before, after = (_coded(p[number], delta.dtype) for p in (block.old, block.new))
            start = int(ends[position - 1]) if position else 0
            edit = where.span.at(start, int(ends[position]) - start)
            found = source[edit.start : edit.end]
            if found != before:
                index = int(block.at[number])
                if _same_number(found, before):
                    raise UnsupportedError(
                        f"{contents.path}: element {index} of '{delta.param}' is coded longer than "
                        "needed, so a change of it could not be reverted; nothing was written"
                    )
                raise _not_expected(contents, delta, index)
            yield edit._replace(content=after)


def _places(
    where: _Place, block: Elements, delta: TensorDelta, contents: Contents
) -> NDArray[np.int64]:
    """Return where the elements of a block begin in the file."""
    stored = _stored_positions(where, block, delta, contents)
    return where.span.places(stored * np.dtype(delta.dtype).itemsize)


def _stored_positions(
    where: _Place, block: Elements, delta: TensorDelta, contents: Contents
) -> NDArray[np.int64]:
    """Return where the block's elements are among the values that are stored."""
    if where.positions is None:
        return block.at
    among = np.searchsorted(where.positions, block.at)
    known = np.append(where.positions, -1)[among] == block.at
    if not known.all():
        raise PatchError(
            f"{contents.path}: '{delta.param}' is a sparse tensor that does not store its element "
            f"{int(block.at[~known][0])}, so it cannot be changed; nothing was written"
        )
    return among


def _as_bytes(values: NDArray[np.generic], dtype: str) -> NDArray[np.uint8]:
    bits = np.ascontiguousarray(values, np.dtype(bit_type(dtype)))
    return bits.view(np.uint8).reshape(len(values), bits.itemsize)


def _coded(bits: np.generic, dtype: str) -> bytes:
    """Return a value's bits as the varint that stands for them in a TensorProto."""
    signed = dtype.startswith("int")
    return varint(int(bits.view(dtype) if signed else bits))


def _same_number(one: bytes, other: bytes) -> bool:
    """Return whether two varints differ only in length: seven bits a byte, low ones first."""
    first, second = (sum((b & 0x7F) << 7 * n for n, b in enumerate(v)) for v in (one, other))
    return first == second


def _not_expected(contents: Contents, delta: TensorDelta, index: int) -> PatchError:
    return PatchError(
        f"{contents.path}: element {index} of '{delta.param}' is not what the patch expects: it "
        "was made for another model, or this one was changed; nothing was written"
    )
