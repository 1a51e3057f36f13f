# SPDX-License-Identifier: Apache-2.0
"""The file form of a `Patch`: safetensors, no code in it; docs/patch-format.md is its contract.

Per changed initializer it holds three tensors, sorted flat positions, old and new values as raw
bits, and a header that names base and result. It is written and read a block at a time.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lancet_onnx.errors import PatchError
from lancet_onnx.patch.core import BLOCK, Elements, Patch, TensorDelta, bit_type
from lancet_onnx.types import Digest, ParamName, ValueName

FORMAT_VERSION = 1
ENDING = ".lancet.safetensors"
_TYPE_NAMES = {"<i8": "I64", "|u1": "U8", "<u2": "U16", "<u4": "U32", "<u8": "U64"}
_INDEX = "<i8"
_MOST_DIMS = 64


def usual_path(model: Path) -> Path:
    """Return where the patch that gave `model` lies, unless it was told otherwise: beside it."""
    return model.with_suffix(ENDING)


def write_patch(patch: Patch, target: int) -> None:
    """Write the file form of `patch` to a descriptor; the same patch gives the same bytes.

    Raises:
        OSError: the target cannot be written.
        PatchError: a delta that contradicts itself.
    """
    header: dict[str, object] = {"__metadata__": _metadata(patch)}
    end = 0
    starts: list[dict[str, int]] = []
    for number, delta in enumerate(patch.deltas):
        starts.append({})
        bits = bit_type(delta.dtype)
        for name, kind in (("index", _INDEX), ("old", bits), ("new", bits)):
            size = delta.count * np.dtype(kind).itemsize
            starts[-1][name] = end
            header[f"{number}/{name}"] = {
                "dtype": _TYPE_NAMES[kind],
                "shape": [delta.count],
                "data_offsets": [end, end + size],
            }
            end += size
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    _write(target, len(text).to_bytes(8, "little") + text, 0)
    for delta, start in zip(patch.deltas, starts, strict=True):
        kinds = {"index": _INDEX, "old": bit_type(delta.dtype), "new": bit_type(delta.dtype)}
        at = {name: begin + place for name, place in start.items()}
        for block in delta.blocks():
            for name, column in zip(("index", "old", "new"), block, strict=True):
                content = np.ascontiguousarray(column, np.dtype(kinds[name])).tobytes()
                _write(target, content, at[name])
                at[name] += len(content)


@contextmanager
def opened_patch(path: Path) -> Iterator[Patch]:
    """Read a patch file, trusting none of it; its elements are read as they are asked for.

    Raises:
        PatchError: no patch, another format version, or contents that contradict themselves.
    """
    if not path.is_file():
        state = "not a regular file" if path.exists() else "no such file"
        raise PatchError(f"{path}: {state}; expected a patch")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise PatchError(f"{path}: cannot be read ({error.strerror}); expected a patch") from error
    try:
        yield _read(descriptor, path)
    finally:
        with suppress(OSError):  # it was only read
            os.close(descriptor)


def _metadata(patch: Patch) -> dict[str, str]:
    targets = [
        {"initializer": delta.param, "dtype": delta.dtype, "shape": delta.shape}
        for delta in patch.deltas
    ]
    return {
        "lancet.patch.version": str(FORMAT_VERSION),
        "targets": json.dumps(targets),
        "base.sha256": str(patch.base),
        "base.weights_sha256": str(patch.base_weights or ""),
        "result.sha256": str(patch.result or ""),
        "method": patch.method,
        "seed": str(patch.seed),
        "metrics": json.dumps(dict(patch.metrics), sort_keys=True),
        "metadata": json.dumps([{"key": key, "value": value} for key, value in patch.metadata]),
        "tool": patch.tool,
    }


def _read(descriptor: int, path: Path) -> Patch:
    try:
        # The library checks the header as a whole: names, types, sizes, no gaps, no overlaps.
        with safe_open(str(path), framework="numpy") as checked:
            header = checked.metadata() or {}
            names = set(checked.keys())
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
        places = json.loads(os.pread(descriptor, length, 8), object_pairs_hook=_once)
        version = header.get("lancet.patch.version")
        if version != str(FORMAT_VERSION):
            raise PatchError(f"{path}: patch format {version!r}; this version reads 1")
        columns = _Columns(descriptor, path, 8 + length, places)
        targets = json.loads(header["targets"])
        deltas = tuple(_delta(number, target, columns) for number, target in enumerate(targets))
        if len({delta.param for delta in deltas}) != len(deltas):
            raise PatchError(f"{path}: two targets name one initializer")
        if len(names) != 3 * len(deltas):
            raise PatchError(f"{path}: holds tensors that belong to no target")
        return Patch(
            _digest(header["base.sha256"]),
            _digest_or_none(header["base.weights_sha256"]),
            _digest_or_none(header["result.sha256"]),
            deltas,
            header["method"],
            int(header["seed"]),
            {str(k): float(v) for k, v in json.loads(header["metrics"]).items()},
            tuple(_entry(entry) for entry in json.loads(header["metadata"])),
            header["tool"],
        )
    except (
        SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError, OverflowError,
        RecursionError, MemoryError,
    ) as error:  # fmt: skip
        raise PatchError(f"{path}: not a lancet-onnx patch, or a damaged one ({error})") from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a name that stands twice: two readers could see two patches in one file."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("its header has a name twice")
    return dict(pairs)


def _digest(text: str) -> Digest:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{text[:80]!r} is no SHA-256")
    return Digest(text)


def _digest_or_none(text: str) -> Digest | None:
    return _digest(text) if text else None


def _entry(entry: Mapping[str, object]) -> tuple[str, str]:
    key, value = entry["key"], entry["value"]
    if not (isinstance(key, str) and isinstance(value, str)):
        raise TypeError("metadata holds what is no text")
    return key, value


def _delta(number: int, target: Mapping[str, object], columns: _Columns) -> TensorDelta:
    dtype, shape = str(target["dtype"]), target["shape"]
    bits = bit_type(dtype)
    if not isinstance(shape, list) or len(shape) > _MOST_DIMS:
        raise TypeError(f"target {number} has no shape, or one of more than {_MOST_DIMS} dims")
    if not all(isinstance(d, int) and 0 <= d < 1 << 63 for d in shape):
        raise TypeError(f"the shape of target {number} is {shape!r}")
    index = columns.place(f"{number}/index", _INDEX)
    old, new = (columns.place(f"{number}/{part}", bits) for part in ("old", "new"))
    if not index[1] == old[1] == new[1] <= math.prod(shape):
        raise ValueError(f"the tensors of target {number} have other sizes")

    def blocks() -> Iterator[Elements]:
        for start in range(0, index[1], BLOCK):
            stop = min(start + BLOCK, index[1])
            yield Elements(
                columns.read(index[0], _INDEX, start, stop).astype(np.int64, copy=False),
                columns.read(old[0], bits, start, stop),
                columns.read(new[0], bits, start, stop),
            )

    param = ParamName(ValueName(str(target["initializer"])))
    delta = TensorDelta(param, dtype, tuple(shape), index[1], blocks)
    for _ in delta.blocks():  # positions are checked before anything is done with the patch
        pass
    return delta


class _Columns:
    """The tensors of a patch file, read in parts."""

    def __init__(
        self, descriptor: int, path: Path, begin: int, places: Mapping[str, Mapping[str, object]]
    ) -> None:
        self._descriptor, self._path, self._begin, self._places = descriptor, path, begin, places

    def place(self, name: str, kind: str) -> tuple[int, int]:
        """Return where a tensor's bytes begin, and how many elements it has."""
        entry = self._places[name]
        if entry["dtype"] != _TYPE_NAMES[kind]:
            raise TypeError(f"tensor {name} is {entry['dtype']}, expected {_TYPE_NAMES[kind]}")
        offsets = entry["data_offsets"]
        assert isinstance(offsets, list)  # noqa: S101 - the library checked the header
        start, end = int(offsets[0]), int(offsets[1])
        return self._begin + start, (end - start) // np.dtype(kind).itemsize

    def read(self, begin: int, kind: str, start: int, stop: int) -> NDArray[np.generic]:
        width = np.dtype(kind).itemsize
        content = os.pread(self._descriptor, (stop - start) * width, begin + start * width)
        if len(content) != (stop - start) * width:
            raise PatchError(f"{self._path}: became shorter while it was being read")
        return np.frombuffer(content, kind)


def _write(target: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(target, view, at)
        view, at = view[count:], at + count
