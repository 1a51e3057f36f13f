# SPDX-License-Identifier: Apache-2.0
"""`Patch`: the few numbers that change, what they were, and where they come from.

A delta gives its elements a block at a time, from memory or from a file, so that a patch of any
size passes through little memory. The file form is in `patch_file`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.errors import PatchError
from lancet_onnx.types import Digest, ParamName

BLOCK = 1 << 17
"""Most elements that a delta hands out at once."""

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


class Elements(NamedTuple):
    """Some changed elements of one initializer.

    Attributes:
        at: sorted, unique flat positions in C order, int64.
        old: bits of the values before, as unsigned integers of the element's width.
        new: bits of the values after.
    """

    at: NDArray[np.int64]
    old: NDArray[np.generic]
    new: NDArray[np.generic]


Blocks = Callable[[], Iterator[Elements]]
"""Gives elements in order of position, each time from the start."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorDelta:
    """Changed elements of one initializer.

    Attributes:
        param: the initializer (or the Constant node's output), by the name it has in the graph.
        dtype: element type as numpy names it.
        shape: shape of the whole tensor.
        count: number of changed elements.
    """

    param: ParamName
    dtype: str
    shape: tuple[int, ...]
    count: int
    source: Blocks

    @classmethod
    def of(
        cls,
        param: ParamName,
        dtype: str,
        shape: tuple[int, ...],
        index: NDArray[np.int64],
        old: NDArray[np.generic],
        new: NDArray[np.generic],
    ) -> TensorDelta:
        """Return a delta of elements that are in memory."""

        def blocks() -> Iterator[Elements]:
            longest = max(len(index), len(old), len(new))
            for start in range(0, longest, BLOCK):
                part = slice(start, start + BLOCK)
                yield Elements(index[part], old[part], new[part])

        return cls(param, dtype, shape, len(index), blocks)

    @classmethod
    def between(
        cls, param: ParamName, before: NDArray[np.generic], after: NDArray[np.generic]
    ) -> TensorDelta:
        """Return what differs, bit for bit, between two arrays of one type and shape."""
        bits = bit_type(before.dtype.name)
        old, new = (np.ascontiguousarray(a).reshape(-1).view(bits) for a in (before, after))
        index = np.flatnonzero(old != new).astype(np.int64)
        return cls.of(param, before.dtype.name, before.shape, index, old[index], new[index])

    def blocks(self) -> Iterator[Elements]:
        """Yield the elements, checked.

        Raises:
            PatchError: positions that are not sorted, unique and in range, or other counts.
        """
        size, last, seen = math.prod(self.shape), -1, 0
        for block in self.source():
            index, old, new = block
            if (
                not len(index) == len(old) == len(new)
                or (len(index) and not last < index[0] <= index[-1] < size)
                or not (np.diff(index) > 0).all()
            ):
                raise self._disordered()
            if len(index):
                last, seen = int(index[-1]), seen + len(index)
                yield block
        if seen != self.count:
            raise self._disordered()

    @property
    def elements(self) -> Elements:
        """All elements at once."""
        blocks = list(self.blocks())
        bits = np.dtype(bit_type(self.dtype))
        return Elements(
            np.concatenate([np.empty(0, np.int64), *(b.at for b in blocks)]),
            np.concatenate([np.empty(0, bits), *(b.old for b in blocks)]),
            np.concatenate([np.empty(0, bits), *(b.new for b in blocks)]),
        )

    def inverted(self) -> TensorDelta:
        """Return the delta with old and new exchanged."""
        return replace(self, source=lambda: (Elements(i, n, o) for i, o, n in self.source()))

    def _disordered(self) -> PatchError:
        return PatchError(
            f"patch: the positions for initializer '{self.param}' of shape {self.shape} are "
            "not sorted, unique and inside it; the patch is damaged"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Deltas that turn one model file into another.

    Attributes:
        base: digest of the file that the patch applies to.
        base_weights: digest over all its weights, the same however the file stores them; None for
            a patch that only the base itself may take.
        result: digest of the patched file; None until it has been made.
        deltas: at most one for each initializer.
        method: identity string: the method with every parameter that influenced it.
        seed: of all random choices.
        metrics: what was measured, by name.
        metadata: keys and values of the `metadata_props` entries that the patch adds, in order.
        tool: name and version of the program that made it.
    """

    base: Digest
    base_weights: Digest | None
    result: Digest | None
    deltas: tuple[TensorDelta, ...]
    method: str
    seed: int
    metrics: Mapping[str, float]
    metadata: tuple[tuple[str, str], ...] = ()
    tool: str = ""

    @property
    def size(self) -> int:
        """Number of changed elements."""
        return sum(delta.count for delta in self.deltas)

    @property
    def identity(self) -> Digest:
        """Digest over base and deltas: names the change itself."""
        digest = hashlib.sha256(str(self.base).encode())
        for delta in sorted(self.deltas, key=lambda d: d.param):
            digest.update(f"\0{delta.param}\0{delta.dtype}\0{delta.shape}\0".encode())
            parts = [hashlib.sha256() for _ in range(3)]
            for block in delta.blocks():
                for part, column in zip(parts, block, strict=True):
                    part.update(np.ascontiguousarray(column).tobytes())
            for part in parts:
                digest.update(part.digest())
        return Digest(digest.hexdigest())

    def invert(self) -> Patch:
        """Return the patch with old and new exchanged; digests stay those of base and result."""
        return replace(self, deltas=tuple(delta.inverted() for delta in self.deltas))


def bit_type(dtype: str) -> str:
    """Return the little-endian unsigned type that holds the bits of one element.

    Raises:
        PatchError: a type that patches do not carry.
    """
    if dtype not in _BITS:
        raise PatchError(f"patches carry {', '.join(_BITS)}; found {dtype}")
    return _BITS[dtype]
