# SPDX-License-Identifier: Apache-2.0
"""Two models that differ only in weights -> the deltas that turn one into the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import onnx
from google.protobuf.message import Message

from lancet_onnx.errors import PatchError
from lancet_onnx.model.contents import Contents
from lancet_onnx.model.digests import PIECE, compared, file_digest, model_digest
from lancet_onnx.model.scope import Stored
from lancet_onnx.model.source import Source, opened
from lancet_onnx.model.write import METADATA_KEY, entries
from lancet_onnx.patch import Elements, TensorDelta, bit_type
from lancet_onnx.types import Digest, ParamName, ValueName

_PART = 256 << 10
"""Bytes of a constant that are compared at once."""

_KEPT = 1 << 13
"""Changed elements of a tensor that are kept in memory; more are read again when asked for."""

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """How one model becomes another.

    Attributes:
        deltas: of the constants that differ.
        metadata: entries of ours that are added.
        before: digest of the first model.
        after: digest of the second.
        exact: whether everything else was seen to be the same, byte for byte; where not (numbers
            coded with as many bytes as they need move what follows them), what a patch makes is
            still to be compared with the second model.
    """

    deltas: tuple[TensorDelta, ...]
    metadata: Metadata
    before: Digest
    after: Digest
    exact: bool


def difference(before: Contents, after: Contents) -> Difference:
    """Return what turns `before` into `after`.

    Raises:
        PatchError: the models differ in more than numbers that patches carry; the first such
            difference is named.
    """
    metadata = _added(before, after)
    _same_structure(before, after, len(metadata))
    with ThreadPoolExecutor(2) as pool:
        onnx = [pool.submit(file_digest, contents.path) for contents in (before, after)]
        files = {name: _compare_files(name, before, after) for name in before.data_files}
        exact = _same_otherwise(before, after, metadata)
        deltas = [_delta(name, before, after, files) for name in before.stored]
        one = model_digest(onnx[0].result(), {n: found[0] for n, found in files.items()})
        other = model_digest(onnx[1].result(), {n: found[1] for n, found in files.items()})
    found = tuple(delta for delta in deltas if delta is not None)
    return Difference(found, metadata, one, other, exact)


Compared = tuple[Digest, Digest, frozenset[int]]
"""Digests of a data file of either model, and where pieces of it differ."""


def _compare_files(location: str, before: Contents, after: Contents) -> Compared:
    """Compare one data file; what differs must lie inside tensors."""
    with ExitStack() as files:
        one, other = (files.enter_context(opened(c.data_files[location])) for c in (before, after))
        if len(one) != len(other):
            raise PatchError(
                f"the data files '{location}' of {before.path} and {after.path} have other sizes; "
                "a patch cannot say that"
            )
        found = compared(one, other)
        taken = sorted(
            (e.offset, e.offset + e.length)
            for e in before.external.values()
            if e.location == location
        )
        for start in sorted(found[2]):
            stop = min(start + PIECE, len(one))
            if not _same_between(one, other, taken, start, stop):
                raise PatchError(
                    f"the data files '{location}' of {before.path} and {after.path} differ in "
                    "bytes that belong to no tensor; a patch cannot say that"
                )
    return found


def _added(before: Contents, after: Contents) -> Metadata:
    """Return our own metadata entries at the end of `after` that `before` lacks."""
    one, other = (onnx.ModelProto.FromString(c.skeleton).metadata_props for c in (before, after))
    more = other[len(one) :]
    added = tuple((str(entry.key), str(entry.value)) for entry in more)
    ours = all(key.split(".")[0] == METADATA_KEY for key, _ in added)
    tail = entries(added)
    return added if ours and after.source[len(after.source) - len(tail) :] == tail else ()


def _same_structure(before: Contents, after: Contents, added: int) -> None:
    one, other = (onnx.ModelProto.FromString(c.skeleton) for c in (before, after))
    if added:
        del other.metadata_props[-added:]
    for proto in (one, other):
        _clear_plain_numbers(proto)
    found = _first_difference(one, other, "model")
    if found is None and before.stored.keys() != after.stored.keys():
        found = "the names of constants"
    if found is None:
        for name, at in before.stored.items():
            if _form(at) != _form(after.stored[name]):
                found = f"how '{name}' is stored"
                break
    if found is not None:
        raise PatchError(
            f"{before.path} and {after.path} differ in more than weights: {found}; a patch cannot "
            "say that"
        )


def _form(at: Stored) -> tuple[object, ...]:
    """Return what must agree between two constants of one name for one to become the other."""
    outside = at.external and (at.external.location, at.external.offset, at.external.length)
    positions = None if at.positions is None else at.positions.tobytes()
    span = at.span and (at.span.width, len(at.span.runs))
    return (at.path, at.dtype, at.shape, outside, positions, span)


def _clear_plain_numbers(proto: onnx.ModelProto) -> None:
    """Take the numbers of Constant nodes away, which are weights as tensors are."""
    graphs = [proto.graph]
    bodies = [function.node for function in proto.functions]
    while graphs:
        graph = graphs.pop()
        bodies.append(graph.node)
        for node in graph.node:
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
    for node in (node for body in bodies for node in body):
        for attribute in node.attribute if node.op_type == "Constant" else ():
            attribute.ClearField("f")
            for position in range(len(attribute.floats)):
                attribute.floats[position] = 0.0


def _first_difference(one: Message, other: Message, where: str) -> str | None:
    """Return where two messages first differ and how, in words; None for nowhere."""
    if one == other:
        return None
    ours = {field.name: (field, value) for field, value in one.ListFields()}
    theirs = {field.name: (field, value) for field, value in other.ListFields()}
    for name in [*ours, *(n for n in theirs if n not in ours)]:
        if name not in ours or name not in theirs:
            side = "first" if name in ours else "second"
            return f"only the {side} has {name} in {where}"
        field, value = ours[name]
        _, counterpart = theirs[name]
        if field.is_repeated and len(value) != len(counterpart):
            return f"{len(value)} and {len(counterpart)} x {name} in {where}"
        pairs = (
            list(zip(value, counterpart, strict=True))
            if field.is_repeated
            else [(value, counterpart)]
        )
        for number, (left, right) in enumerate(pairs):
            if left == right:
                continue
            place = f"{name} {number}" if field.is_repeated else name
            if isinstance(left, Message) and isinstance(right, Message):
                label = getattr(left, "name", "") or getattr(left, "op_type", "")
                named = f"{place} '{label}' of {where}" if label else f"{place} of {where}"
                return _first_difference(left, right, named)
            return f"{left!r:.80} and {right!r:.80} as {place} of {where}"
    return f"fields that ONNX does not know in {where}"


def _delta(
    name: ValueName, before: Contents, after: Contents, files: Mapping[str, Compared]
) -> TensorDelta | None:
    """Return how one constant differs, None for not at all."""
    at = before.stored[name]
    if not at.width:
        if list(before.pieces(name)) != list(after.pieces(name)):
            raise PatchError(f"{after.path}: the text '{name}' differs; a patch cannot say that")
        return None
    readers = before.values(name), after.values(name)
    parts = list(range(0, at.bytes, _PART))
    if at.external is not None:
        clean = files[at.external.location][2].isdisjoint
        parts = [p for p in parts if not clean(_file_pieces(at.external.offset + p))]

    def both(start: int) -> tuple[bytes, bytes]:
        stop = min(start + _PART, at.bytes)
        return readers[0](start, stop), readers[1](start, stop)

    def elements(start: int, old: bytes, new: bytes) -> Elements:
        try:
            pair = [np.frombuffer(content, bit_type(at.dtype)) for content in (old, new)]
        except PatchError as error:
            raise PatchError(f"{after.path}: '{name}' differs, but {error}") from error
        index = np.flatnonzero(pair[0] != pair[1])
        return Elements(index + start // at.width, pair[0][index], pair[1][index])

    count, changed, kept = 0, [], []
    for start in parts:
        old, new = both(start)
        if old != new:
            block = elements(start, old, new)
            count += len(block.at)
            changed.append(start)
            if count <= _KEPT:
                kept.append(block)
    if not changed:
        return None

    def blocks() -> Iterator[Elements]:
        if count <= _KEPT:
            yield from kept
        else:
            yield from (elements(start, *both(start)) for start in changed)

    return TensorDelta(ParamName(name), at.dtype, at.shape, count, blocks)


def _file_pieces(start: int) -> tuple[int, int]:
    """Return the pieces of a data file that the part of a tensor at `start` touches."""
    last = start + _PART - 1
    return start - start % PIECE, last - last % PIECE


def _same_otherwise(before: Contents, after: Contents, metadata: Metadata) -> bool:
    """Return whether the files agree in every byte that is not a number of a constant."""
    size = len(after.source) - len(entries(metadata))
    held = [_runs(at) for at in before.stored.values()]
    if len(before.source) != size or held != [_runs(at) for at in after.stored.values()]:
        return False
    inside = sorted(run for runs in held for run in runs)
    return _same_between(before.source, after.source, inside, 0, size)


def _runs(at: Stored) -> list[tuple[int, int]]:
    """Return the bytes of the .onnx file that hold numbers of one width."""
    if at.span is None or not at.span.width:
        return []
    return [(run.start, run.end) for run in at.span.runs]


def _same_between(
    one: Source, other: Source, inside: Sequence[tuple[int, int]], first: int, last: int
) -> bool:
    """Return whether two files agree from `first` to `last`, but for the ranges `inside`."""
    done = first
    for start, end in [*inside, (last, last)]:
        for at in range(done, min(start, last), PIECE):
            stop = min(at + PIECE, start, last)
            if one[at:stop] != other[at:stop]:
                return False
        done = max(done, end)
    return True
