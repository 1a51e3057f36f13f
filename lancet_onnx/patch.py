# SPDX-License-Identifier: Apache-2.0
"""`Patch`: the few numbers that change, what they were, and where they come from.

The file form is a safetensors file (no code in it): per changed initializer three tensors, sorted
flat positions, old and new values as raw bits, and a header that names base and result.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from lancet_onnx.errors import PatchError
from lancet_onnx.types import Digest, ParamName, ValueName

FORMAT_VERSION = 1
_BITS: Mapping[str, str] = {
    "float32": "<u4",
    "float64": "<u8",
    "float16": "<u2",
    "bfloat16": "<u2",
    "int8": "|u1",
    "uint8": "|u1",
    "int16": "<u2",
    "uint16": "<u2",
    "int32": "<u4",
}


@dataclass(frozen=True, slots=True, eq=False)
class TensorDelta:
    """Changed elements of one initializer.

    Attributes:
        param: the initializer (or the Constant node's output), by the name it has in the graph.
        dtype: element type as numpy names it.
        shape: shape of the whole tensor.
        index: sorted, unique flat positions in C order, int64.
        old: bits of the values before, as unsigned integers of the element's width.
        new: bits of the values after.
    """

    param: ParamName
    dtype: str
    shape: tuple[int, ...]
    index: NDArray[np.int64]
    old: NDArray[np.generic]
    new: NDArray[np.generic]

    @classmethod
    def between(
        cls, param: ParamName, before: NDArray[np.generic], after: NDArray[np.generic]
    ) -> TensorDelta:
        """Return what differs, bit for bit, between two arrays of one type and shape."""
        bits = bit_type(before.dtype.name)
        old, new = (np.ascontiguousarray(a).reshape(-1).view(bits) for a in (before, after))
        index = np.flatnonzero(old != new).astype(np.int64)
        return cls(param, before.dtype.name, before.shape, index, old[index], new[index])

    def check(self) -> None:
        """Raise `PatchError` unless positions are sorted, unique, in range, and sizes agree."""
        size = math.prod(self.shape)
        ordered = len(self.index) == 0 or (
            self.index[0] >= 0 and self.index[-1] < size and bool((np.diff(self.index) > 0).all())
        )
        if not ordered or not (len(self.index) == len(self.old) == len(self.new)):
            raise PatchError(
                f"patch: the positions for initializer '{self.param}' of shape {self.shape} are "
                "not sorted, unique and inside it; the patch is damaged"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Deltas that turn one model file into another.

    Attributes:
        base: digest of the file that the patch applies to.
        base_weights: digest over all its weights, the same however the file stores them.
        result: digest of the patched file; None until it has been made.
        deltas: at most one for each initializer.
        method: identity string: the method with every parameter that influenced it.
        seed: of all random choices.
        metrics: what was measured, by name.
        metadata: value of the one `metadata_props` entry that the patch adds, empty for none.
    """

    base: Digest
    base_weights: Digest
    result: Digest | None
    deltas: tuple[TensorDelta, ...]
    method: str
    seed: int
    metrics: Mapping[str, float]
    metadata: str = ""

    @property
    def size(self) -> int:
        """Number of changed elements."""
        return sum(len(delta.index) for delta in self.deltas)

    @property
    def identity(self) -> Digest:
        """Digest over base and deltas: names the change itself."""
        digest = hashlib.sha256(str(self.base).encode())
        for delta in sorted(self.deltas, key=lambda d: d.param):
            digest.update(f"\0{delta.param}\0{delta.dtype}\0{delta.shape}\0".encode())
            for part in (delta.index.astype("<i8"), delta.old, delta.new):
                digest.update(np.ascontiguousarray(part).tobytes())
        return Digest(digest.hexdigest())

    def invert(self) -> Patch:
        """Return the patch with old and new exchanged; digests stay those of base and result."""
        deltas = tuple(replace(d, old=d.new, new=d.old) for d in self.deltas)
        return replace(self, deltas=deltas)


def bit_type(dtype: str) -> str:
    """Return the little-endian unsigned type that holds the bits of one element.

    Raises:
        PatchError: a type that patches do not carry.
    """
    if dtype not in _BITS:
        raise PatchError(f"patches carry {', '.join(_BITS)}; found {dtype}")
    return _BITS[dtype]


def to_bytes(patch: Patch) -> bytes:
    """Return the file form of `patch`."""
    tensors: dict[str, NDArray[np.generic]] = {}
    targets = []
    for number, delta in enumerate(patch.deltas):
        tensors[f"{number}/index"] = delta.index
        tensors[f"{number}/old"] = delta.old
        tensors[f"{number}/new"] = delta.new
        targets.append({"initializer": delta.param, "dtype": delta.dtype, "shape": delta.shape})
    header = {
        "lancet.patch.version": str(FORMAT_VERSION),
        "targets": json.dumps(targets),
        "base.sha256": str(patch.base),
        "base.weights_sha256": str(patch.base_weights),
        "result.sha256": str(patch.result or ""),
        "method": patch.method,
        "seed": str(patch.seed),
        "metrics": json.dumps(dict(patch.metrics), sort_keys=True),
        "metadata": patch.metadata,
    }
    data = safetensors_save(tensors, header)
    # safetensors writes the header in another order each time; one patch must be one file.
    end = 8 + int.from_bytes(data[:8], "little")
    ordered = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)
    return len(ordered).to_bytes(8, "little") + ordered + data[end:]


def from_bytes(data: bytes, source: str) -> Patch:
    """Read the file form, trusting none of it.

    Raises:
        PatchError: no patch, another format version, or contents that contradict themselves.
    """
    try:
        tensors = safetensors_load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        version = header.get("lancet.patch.version")
        if version != str(FORMAT_VERSION):
            raise PatchError(f"{source}: patch format {version!r}; this version reads 1")
        deltas = []
        for number, target in enumerate(json.loads(header["targets"])):
            bits = bit_type(target["dtype"])
            index, old, new = (tensors[f"{number}/{part}"] for part in ("index", "old", "new"))
            if index.dtype != np.int64 or old.dtype != np.dtype(bits) or new.dtype != old.dtype:
                raise PatchError(f"{source}: the tensors of target {number} have wrong types")
            delta = TensorDelta(
                ParamName(ValueName(str(target["initializer"]))),
                str(target["dtype"]),
                tuple(int(d) for d in target["shape"]),
                index.reshape(-1),
                old.reshape(-1),
                new.reshape(-1),
            )
            delta.check()
            deltas.append(delta)
        if len({delta.param for delta in deltas}) != len(deltas):
            raise PatchError(f"{source}: two targets name one initializer")
        return Patch(
            Digest(header["base.sha256"]),
            Digest(header["base.weights_sha256"]),
            Digest(header["result.sha256"]) if header["result.sha256"] else None,
            tuple(deltas),
            header["method"],
            int(header["seed"]),
            {str(k): float(v) for k, v in json.loads(header["metrics"]).items()},
            header["metadata"],
        )
    except (
        SafetensorError, KeyError, ValueError, TypeError, AttributeError, OverflowError,
        RecursionError,
    ) as error:  # fmt: skip
        raise PatchError(
            f"{source}: not a lancet-onnx patch, or a damaged one ({error})"
        ) from error
