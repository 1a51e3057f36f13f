# SPDX-License-Identifier: Apache-2.0
"""ONNX tensors and attribute values <-> numpy arrays and plain Python values."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model.external import ITEM_BITS, External, external_file, is_external
from lancet_onnx.model.graph import Array, Attribute
from lancet_onnx.model.skim import Skim
from lancet_onnx.model.source import Source, opened
from lancet_onnx.model.wire import FieldPath, delimited
from lancet_onnx.rules import BOMB, DAMAGED, WRONG_SIZE

LARGEST_SPARSE = 1 << 28
"""Elements that a sparse tensor may stand for: a few stored bytes must not take all memory."""

ReadTensor = Callable[[onnx.TensorProto, FieldPath, str], Array]
"""Returns a tensor's values, given the tensor without its numbers, its path and its owner."""


def reader(source: Source, skim: Skim, path: Path) -> ReadTensor:
    """Return a function that reads tensors of the file `path`, also those with external data."""

    def read(tensor: onnx.TensorProto, at: FieldPath, owner: str) -> Array:
        if is_external(tensor):
            return _from_raw(tensor, _external(external_file(tensor, owner, path)), owner, path)
        runs = skim.tensors.get(at, {})
        if 9 in runs:
            raw = runs[9][-1]
            return _from_raw(tensor, source[raw.start : raw.end], owner, path)
        numbers = b"".join(
            delimited(number, b"".join(source[run.start : run.end] for run in found))
            for number, found in runs.items()
        )
        try:
            whole = onnx.TensorProto.FromString(tensor.SerializeToString() + numbers)
        except DecodeError as error:
            raise ModelError(f"{path}: {owner} cannot be read ({error})", DAMAGED) from error
        return to_array(whole, owner, path)

    return read


def dtype_of(tensor: onnx.TensorProto, owner: str, path: Path) -> np.dtype[np.generic]:
    """Return the numpy type of a tensor's elements.

    Raises:
        ModelError: numpy has none.
    """
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: {owner} cannot be read ({error})", WRONG_SIZE) from error


def to_array(tensor: onnx.TensorProto, owner: str, path: Path) -> Array:
    """Return a read-only array of a tensor that holds all its values itself.

    Raises:
        ModelError: the bytes do not fit type and shape.
    """
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: {owner} cannot be read ({error})", WRONG_SIZE) from error
    array.setflags(write=False)
    return array


def _from_raw(tensor: onnx.TensorProto, raw: bytes, owner: str, path: Path) -> Array:
    if ITEM_BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type), 0) < 8:
        inline = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw)
        return to_array(inline, owner, path)
    array: Array = np.frombuffer(raw, dtype_of(tensor, owner, path)).reshape(tensor.dims)
    array.setflags(write=False)
    return array


def _external(outside: External) -> bytes:
    with opened(outside.file) as data:
        return data[outside.offset : outside.offset + outside.length]


def sparse_positions(
    sparse: onnx.SparseTensorProto, index: Array, owner: str, path: Path
) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Return the shape of a sparse tensor and the flat positions of its stored values.

    Raises:
        ModelError: positions that are unsorted or outside the shape.
    """
    dims = tuple(int(dim) for dim in sparse.dims)
    if any(dim < 0 for dim in dims) or math.prod(dims) > LARGEST_SPARSE:
        raise ModelError(f"{path}: {owner} has the impossible shape {dims}", BOMB)
    count = sparse.values.dims[0] if len(sparse.values.dims) == 1 else -1
    flat = index.astype(np.int64)
    if flat.ndim == 2 and flat.shape == (count, len(dims)):
        inside = bool(((flat >= 0) & (flat < np.array(dims))).all())
        flat = np.ravel_multi_index(tuple(flat.T), dims) if inside else np.array([-1])
    in_order = flat.ndim == 1 and bool((np.diff(flat) > 0).all())
    if (
        len(flat) != count
        or not in_order
        or (len(flat) and not 0 <= flat[0] <= flat[-1] < math.prod(dims))
    ):
        raise ModelError(
            f"{path}: {owner} of shape {dims}: its positions are not sorted, unique and inside it",
            WRONG_SIZE,
        )
    return dims, flat


def dense(shape: tuple[int, ...], positions: NDArray[np.int64], values: Array) -> Array:
    """Return a sparse tensor with its zeros."""
    array = np.zeros(math.prod(shape), values.dtype)
    array[positions] = values
    array = array.reshape(shape)
    array.setflags(write=False)
    return array


def constant_value(kind: str, value: Attribute, owner: str, path: Path) -> Array:
    """Return what a Constant node's attribute of the name `kind` stands for.

    Raises:
        ModelError: not an attribute of Constant.
    """
    if kind == "value" and isinstance(value, np.ndarray):
        return value
    dtypes: dict[str, type[np.generic]] = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_string": np.object_,
        "value_strings": np.object_,
    }
    if kind not in dtypes or isinstance(value, np.ndarray):
        raise UnsupportedError(f"{path}: the Constant node '{owner}' holds a '{kind}'")
    array: Array = np.array(value, dtype=dtypes[kind])
    array.setflags(write=False)
    return array


def to_attribute(value: Attribute) -> object:
    """Return a frozen attribute's value as onnx's helpers take it."""
    return numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
