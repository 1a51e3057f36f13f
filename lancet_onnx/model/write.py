# SPDX-License-Identifier: Apache-2.0
"""Apply a `Patch` to a model's bytes, and revert it.

Elements are overwritten where they lie, in the .onnx file or in its external data; no message is
parsed and written again, so everything else is the same by construction. The one metadata entry
that may be added is appended at the end, which protobuf reads as one more element of
`metadata_props`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from lancet_onnx.errors import PatchError, UnsupportedError
from lancet_onnx.model.files import ModelFiles
from lancet_onnx.model.load import OnnxModel
from lancet_onnx.model.wire import Span, metadata_entry, tensor_spans
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
        PatchError: another base, an old value that differs in a single bit, or another result than
            the patch promises.
        UnsupportedError: an initializer whose bytes cannot be found.
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
        UnsupportedError: naming the initializer.
    """
    spans = tensor_spans(model.data)
    for name in params:
        if name not in spans and name not in model.external:
            raise UnsupportedError(
                f"{model.path}: the values of '{name}' lie neither in the file nor in its external "
                "data, so they could not be written back"
            )


def _overwritten(
    model: OnnxModel, deltas: Sequence[TensorDelta]
) -> tuple[bytearray, dict[str, bytes]]:
    """Return the .onnx file and the external data files with every delta written into them."""
    onnx = bytearray(model.data)
    data = {e.location: bytearray(e.file.read_bytes()) for e in model.external.values()}
    spans = tensor_spans(model.data)
    writable(model, [delta.param for delta in deltas if delta.param in model.graph.constants])
    for delta in deltas:
        delta.check()
        array = model.graph.constants.get(delta.param)
        if array is None or array.dtype.name != delta.dtype or array.shape != delta.shape:
            found = "no such initializer" if array is None else f"{array.dtype} {array.shape}"
            raise PatchError(
                f"{model.path}: the patch wants '{delta.param}' to be {delta.dtype} {delta.shape}; "
                f"found {found}"
            )
        outside = model.external.get(delta.param)
        if outside is None:
            _overwrite(onnx, spans[delta.param], delta, model)
        else:
            span = Span(((outside.offset, outside.offset + outside.length),))
            _overwrite(data[outside.location], span, delta, model)
    return onnx, {location: bytes(content) for location, content in data.items()}


def _overwrite(target: bytearray, span: Span, delta: TensorDelta, model: OnnxModel) -> None:
    bits = np.dtype(bit_type(delta.dtype))
    if span.size != int(np.prod(delta.shape, dtype=np.int64)) * bits.itemsize:
        raise UnsupportedError(
            f"{model.path}: '{delta.param}' is stored in a form that is not patched"
        )
    for position, old, new in zip(delta.index, delta.old, delta.new, strict=True):
        offset = span.offset(int(position) * bits.itemsize)
        stored = bytes(target[offset : offset + bits.itemsize])
        if stored != np.asarray(old, bits).tobytes():
            raise PatchError(
                f"{model.path}: element {int(position)} of '{delta.param}' is not what the patch "
                "expects; nothing was written"
            )
        target[offset : offset + bits.itemsize] = np.asarray(new, bits).tobytes()
