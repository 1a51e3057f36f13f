# SPDX-License-Identifier: Apache-2.0
"""Apply a `Patch` to a model's bytes, and revert it.

Elements are replaced where they lie, in the .onnx file or in its external data; no message is
parsed and written again, so everything else is the same by construction. Only where integers are
coded with as many bytes as they need may a size change, and with it the lengths of the messages
around. The one metadata entry that may be added is appended at the end, which protobuf reads as
one more element of `metadata_props`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.errors import PatchError, UnsupportedError
from lancet_onnx.model.files import ModelFiles
from lancet_onnx.model.load import OnnxModel
from lancet_onnx.model.scope import Stored
from lancet_onnx.model.wire import Edit, Run, Span, locate, metadata_entry, splice, varint
from lancet_onnx.patch import Patch, TensorDelta, bit_type
from lancet_onnx.types import Digest, ParamName

METADATA_KEY = "lancet-onnx"


def weights_digest(model: OnnxModel) -> Digest:
    """Return a digest over name, type, shape and values of every constant, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(model.graph.constants):
        array = model.graph.constants[name]
        digest.update(f"\0{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        # Text is kept as objects, whose bytes would be addresses.
        content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
        digest.update(content)
    return Digest(digest.hexdigest())


def apply(model: OnnxModel, patch: Patch) -> ModelFiles:
    """Return the patched model's files.

    Raises:
        PatchError: another base, an old value that differs in a single bit, an element that a
            sparse tensor does not store, or another result than the patch promises.
        UnsupportedError: an initializer that cannot be written back (see `writable`).
    """
    if model.digest != patch.base and weights_digest(model) != patch.base_weights:
        raise PatchError(
            f"{model.path}: the patch was made for another model (digest "
            f"{str(patch.base)[:12]}..., here {str(model.digest)[:12]}...); nothing was written"
        )
    onnx, data = _overwritten(model, patch.deltas)
    if patch.metadata:
        onnx += metadata_entry(METADATA_KEY, patch.metadata)
    result = ModelFiles(bytes(onnx), data)
    if patch.result is not None and model.digest == patch.base and result.digest != patch.result:
        raise PatchError(f"{model.path}: the result is not the one that the patch promises")
    return result


def revert(model: OnnxModel, patch: Patch) -> ModelFiles:
    """Return the files of the model that `patch` was applied to.

    Raises:
        PatchError: the model is not the patch's result, or the way back does not lead to its base.
    """
    if patch.result is None or model.digest != patch.result:
        raise PatchError(f"{model.path}: this file is not the result of the patch")
    onnx, data = _overwritten(model, patch.invert().deltas)
    if patch.metadata:
        entry = metadata_entry(METADATA_KEY, patch.metadata)
        if not onnx.endswith(entry):
            raise PatchError(f"{model.path}: the metadata entry of the patch is not at the end")
        del onnx[-len(entry) :]
    result = ModelFiles(bytes(onnx), data)
    if result.digest != patch.base:
        raise PatchError(f"{model.path}: reverting does not give the file the patch was made for")
    return result


def seal(model: OnnxModel, patch: Patch) -> tuple[Patch, ModelFiles]:
    """Return the patch with the digest of its result, and the result."""
    files = apply(model, replace(patch, result=None))
    return replace(patch, result=files.digest), files


def writable(model: OnnxModel, params: Iterable[ParamName]) -> None:
    """Refuse initializers that could not be written back, before any work is spent on them.

    Raises:
        UnsupportedError: naming the initializer: its values lie in no place or in one that another
            initializer shares, or its type or form is none that patches carry.
    """
    _places(model, params)


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


def _places(model: OnnxModel, params: Iterable[ParamName]) -> Mapping[ParamName, _Place]:
    """Return where the values of `params` lie, or refuse as `writable` says."""
    known = {name: _stored(model, name) for name in params}
    spans = locate(model.data, [at.path for at in known.values() if at.path and not at.external])
    places = {}
    for name, at in known.items():
        array = model.graph.constants[name]
        count = array.size if at.positions is None else len(at.positions)
        outside = at.external
        if outside is not None:
            span = Span(1, (Run(outside.offset, outside.offset + outside.length, ()),))
        else:
            span = spans.get(at.path or (), Span(1, ()))
        ends = None if span.width else span.ends(model.data)
        found = span.size / array.dtype.itemsize if ends is None else len(ends)
        if found != count:
            raise UnsupportedError(
                f"{model.path}: the {count} values of '{name}' ({array.dtype}) are not all stored, "
                "or in another form than patches know, so they could not be written back"
            )
        places[name] = _Place(outside.location if outside else "", span, ends, at.positions)
    return places


def _stored(model: OnnxModel, name: ParamName) -> Stored:
    """Return where the file keeps one initializer, which must be the only one kept there."""
    at = model.stored.get(name)
    if at is None:
        raise UnsupportedError(
            f"{model.path}: the values of '{name}' lie neither in the file nor in its external "
            "data, so they could not be written back"
        )
    dtype = model.graph.constants[name].dtype.name
    try:
        bit_type(dtype)
    except PatchError as error:
        raise UnsupportedError(
            f"{model.path}: '{name}' could not be written back: {error}"
        ) from error
    for other, there in model.stored.items():
        if other != name and _overlap(at, there):
            raise UnsupportedError(
                f"{model.path}: '{name}' and '{other}' share the place where they are stored, so "
                "neither could be changed alone"
            )
    return at


def _overlap(one: Stored, other: Stored) -> bool:
    a, b = one.external, other.external
    if a is None or b is None:
        return a is b and one.path == other.path
    both = max(a.offset, b.offset), min(a.offset + a.length, b.offset + b.length)
    return a.file == b.file and both[0] < both[1]


def _overwritten(
    model: OnnxModel, deltas: Sequence[TensorDelta]
) -> tuple[bytearray, dict[str, bytes]]:
    """Return the .onnx file and the external data files with every delta written into them."""
    for delta in deltas:
        delta.check()
        array = model.graph.constants.get(delta.param)
        if array is None or array.dtype.name != delta.dtype or array.shape != delta.shape:
            found = "no such initializer" if array is None else f"{array.dtype} {array.shape}"
            raise PatchError(
                f"{model.path}: the patch wants '{delta.param}' to be {delta.dtype} {delta.shape}; "
                f"found {found}"
            )
    if len({delta.param for delta in deltas}) != len(deltas):
        raise PatchError(f"{model.path}: two targets of the patch name one initializer")
    places = _places(model, [delta.param for delta in deltas])
    data = {e.location: e.file.read_bytes() for e in model.external.values()}
    edits: dict[str, list[Edit]] = {location: [] for location in ("", *data)}
    for delta in deltas:
        place = places[delta.param]
        source = data[place.location] if place.location else model.data
        edits[place.location] += _edits(source, place, delta, model)
    onnx = splice(model.data, edits.pop(""))
    return onnx, {name: bytes(splice(data[name], made)) for name, made in edits.items()}


def _edits(source: bytes, place: _Place, delta: TensorDelta, model: OnnxModel) -> Iterator[Edit]:
    """Yield the replacement for every element, each checked against the old bits."""
    bits = np.dtype(bit_type(delta.dtype))
    old, new = (np.asarray(part, bits) for part in (delta.old, delta.new))
    stored = _stored_positions(place, delta, model)
    for number, (index, position) in enumerate(zip(delta.index, stored, strict=True)):
        if place.ends is None:
            before, after = old[number].tobytes(), new[number].tobytes()
            start, width = int(position) * bits.itemsize, bits.itemsize
        else:
            before, after = (_coded(part[number], delta.dtype) for part in (old, new))
            start = int(place.ends[position - 1]) if position else 0
            width = int(place.ends[position]) - start
        edit = place.span.at(start, width)
        if source[edit.start : edit.end] != before:
            if place.ends is not None and _bits(model, delta.param, int(index)) == old[number]:
                raise UnsupportedError(
                    f"{model.path}: element {int(index)} of '{delta.param}' is coded longer than "
                    "needed, so a change of it could not be reverted; nothing was written"
                )
            raise PatchError(
                f"{model.path}: element {int(index)} of '{delta.param}' is not what the patch "
                "expects; nothing was written"
            )
        yield edit._replace(content=after)


def _stored_positions(place: _Place, delta: TensorDelta, model: OnnxModel) -> NDArray[np.int64]:
    """Return where the delta's elements are among the values that are stored."""
    if place.positions is None:
        return delta.index
    among = np.searchsorted(place.positions, delta.index)
    known = np.append(place.positions, -1)[among] == delta.index
    if not known.all():
        raise PatchError(
            f"{model.path}: '{delta.param}' is a sparse tensor that does not store its element "
            f"{int(delta.index[~known][0])}, so it cannot be changed; nothing was written"
        )
    return among


def _bits(model: OnnxModel, param: ParamName, index: int) -> np.generic:
    array = model.graph.constants[param]
    value: np.generic = array.reshape(-1)[index : index + 1].view(bit_type(array.dtype.name))[0]
    return value


def _coded(bits: np.generic, dtype: str) -> bytes:
    """Return a value's bits as the varint that stands for them in a TensorProto."""
    signed = dtype.startswith("int")
    return varint(int(bits.view(dtype) if signed else bits))
