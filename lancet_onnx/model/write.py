# SPDX-License-Identifier: Apache-2.0
"""Apply a `Patch` to a model file's bytes, revert it, and put bytes on disk safely.

Elements are overwritten where they lie; no message is parsed and written again, so everything else
is the same by construction. The one metadata entry that may be added is appended at the end, which
protobuf reads as one more element of `metadata_props`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from lancet_onnx.errors import OutputError, PatchError, UnsupportedError
from lancet_onnx.model.load import OnnxModel
from lancet_onnx.model.wire import metadata_entry, tensor_spans
from lancet_onnx.patch import Patch, TensorDelta, bit_type
from lancet_onnx.types import Digest, ParamName

METADATA_KEY = "lancet-onnx"


def weights_digest(model: OnnxModel) -> Digest:
    """Return a digest over name, type, shape and values of every constant, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(model.graph.constants):
        array = model.graph.constants[name]
        digest.update(f"\0{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return Digest(digest.hexdigest())


def apply(model: OnnxModel, patch: Patch) -> bytes:
    """Return the bytes of the patched file.

    Raises:
        PatchError: another base, an old value that differs in a single bit, or another result than
            the patch promises.
        UnsupportedError: an initializer whose bytes are not in the file.
    """
    if model.digest != patch.base and weights_digest(model) != patch.base_weights:
        raise PatchError(
            f"{model.path}: the patch was made for another model (file {str(patch.base)[:12]}..., "
            f"this one is {str(model.digest)[:12]}...); nothing was written"
        )
    data = bytearray(model.data)
    for delta in patch.deltas:
        _overwrite(data, model, delta)
    if patch.metadata:
        data += metadata_entry(METADATA_KEY, patch.metadata)
    result = bytes(data)
    if (
        patch.result is not None
        and model.digest == patch.base
        and Digest.of(result) != patch.result
    ):
        raise PatchError(f"{model.path}: the result is not the one that the patch promises")
    return result


def revert(model: OnnxModel, patch: Patch) -> bytes:
    """Return the bytes of the file that `patch` was applied to.

    Raises:
        PatchError: the file is not the patch's result, or the way back does not lead to its base.
    """
    if patch.result is None or model.digest != patch.result:
        raise PatchError(f"{model.path}: this file is not the result of the patch")
    data = bytearray(model.data)
    for delta in patch.invert().deltas:
        _overwrite(data, model, delta)
    if patch.metadata:
        entry = metadata_entry(METADATA_KEY, patch.metadata)
        if not data.endswith(entry):
            raise PatchError(f"{model.path}: the metadata entry of the patch is not at the end")
        del data[-len(entry) :]
    result = bytes(data)
    if Digest.of(result) != patch.base:
        raise PatchError(f"{model.path}: reverting does not give the file the patch was made for")
    return result


def seal(model: OnnxModel, patch: Patch) -> tuple[Patch, bytes]:
    """Return the patch with the digest of its result, and the result."""
    data = apply(model, replace(patch, result=None))
    return replace(patch, result=Digest.of(data)), data


def writable(model: OnnxModel, params: Iterable[ParamName]) -> None:
    """Refuse initializers that could not be written back, before any work is spent on them.

    Raises:
        UnsupportedError: naming the initializer and where its values lie.
    """
    spans = tensor_spans(model.data)
    for name in params:
        if name in model.external:
            file = model.external[name][0].name
            raise UnsupportedError(
                f"{model.path}: initializer '{name}' lies in the external file '{file}'; writing "
                "external data is not supported. Save the model as one file (external_data=False)"
            )
        if name not in spans:
            raise UnsupportedError(f"{model.path}: the values of '{name}' are not in the file")


def _overwrite(data: bytearray, model: OnnxModel, delta: TensorDelta) -> None:
    delta.check()
    name = delta.param
    array = model.graph.constants.get(name)
    if array is None or array.dtype.name != delta.dtype or array.shape != delta.shape:
        found = "no such initializer" if array is None else f"{array.dtype} {array.shape}"
        raise PatchError(
            f"{model.path}: the patch wants '{name}' to be {delta.dtype} {delta.shape}; "
            f"found {found}"
        )
    writable(model, [name])
    span = tensor_spans(model.data)[name]
    bits = np.dtype(bit_type(delta.dtype))
    if span.size != array.size * bits.itemsize:
        raise UnsupportedError(f"{model.path}: '{name}' is stored in a form that is not patched")
    for position, old, new in zip(delta.index, delta.old, delta.new, strict=True):
        offset = span.offset(int(position) * bits.itemsize)
        stored = bytes(data[offset : offset + bits.itemsize])
        if stored != np.asarray(old, bits).tobytes():
            raise PatchError(
                f"{model.path}: element {int(position)} of '{name}' is not what the patch expects; "
                "nothing was written"
            )
        data[offset : offset + bits.itemsize] = np.asarray(new, bits).tobytes()


def check_output(path: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse an output path before any work is done for it.

    Raises:
        OutputError: it exists (without `force`), is one of the inputs, or its folder is missing.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give the path of a file to write")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: its folder does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: its folder cannot be written to")
    for other in inputs:
        if path.exists() and other.exists() and path.samefile(other):
            raise OutputError(f"{path}: is the input {other} itself; give another path")
    if (path.exists() or path.is_symlink()) and not force:
        raise OutputError(f"{path}: exists already; give another path, or --force to replace it")


def save(data: bytes, path: Path, *, mode_of: Path | None = None) -> None:
    """Write `data` to `path` completely or not at all: temporary name, fsync, rename.

    Raises:
        OutputError: no space, no permission; what was there before is still there.
    """
    temporary = path.with_name(f".lancet-{secrets.token_hex(8)}.tmp")
    umask = os.umask(0)
    os.umask(umask)
    mode = (mode_of.stat().st_mode if mode_of else 0o666) & 0o666 & ~umask
    try:
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode
            )
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except OSError as error:
            reason = "no space left" if error.errno == errno.ENOSPC else error.strerror
            raise OutputError(
                f"{path}: cannot be written ({reason}); nothing was changed"
            ) from error
        # The file is in place: a folder that cannot be synced (network drives) undoes nothing.
        with contextlib.suppress(OSError):
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = [
    "METADATA_KEY",
    "apply",
    "check_output",
    "revert",
    "save",
    "seal",
    "weights_digest",
    "writable",
]
