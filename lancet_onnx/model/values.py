# SPDX-License-Identifier: Apache-2.0
"""ONNX tensors and attribute values <-> numpy arrays and plain Python values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model.graph import Array, Attribute
from lancet_onnx.model.precheck import external_file

LARGEST_SPARSE = 1 << 28
"""Elements that a sparse tensor may stand for: a few stored bytes must not take all memory."""


def to_array(tensor: onnx.TensorProto, owner: str, path: Path) -> Array:
    """Return a read-only array of a tensor, also of one with external data.

    Raises:
        ModelError: the bytes do not fit type and shape.
    """
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        outside = external_file(tensor, owner, path)
        with outside.file.open("rb") as stream:
            stream.seek(outside.offset)
            raw = stream.read(outside.length)
        inline = onnx.TensorProto()
        inline.CopyFrom(tensor)
        inline.ClearField("external_data")
        inline.data_location = onnx.TensorProto.DEFAULT
        inline.raw_data = raw
        tensor = inline
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: {owner} cannot be read ({error})") from error
    array.setflags(write=False)
    return array


def dense(sparse: onnx.SparseTensorProto, path: Path) -> tuple[Array, Array]:
    """Return a sparse tensor as a dense array, and the flat positions of its stored values.

    Raises:
        ModelError: positions that are unsorted or outside the shape.
    """
    owner = f"sparse initializer '{sparse.values.name}'"
    dims = tuple(int(dim) for dim in sparse.dims)
    if any(dim < 0 for dim in dims) or math.prod(dims) > LARGEST_SPARSE:
        raise ModelError(f"{path}: {owner} has the impossible shape {dims}")
    values = to_array(sparse.values, owner, path)
    index = to_array(sparse.indices, f"the positions of {owner}", path).astype(np.int64)
    if index.ndim == 2 and index.shape == (len(values), len(dims)):
        inside = bool(((index >= 0) & (index < np.array(dims))).all())
        index = np.ravel_multi_index(tuple(index.T), dims) if inside else np.array([-1])
    in_order = index.ndim == 1 and bool((np.diff(index) > 0).all())
    if (
        values.ndim != 1
        or len(index) != len(values)
        or not in_order
        or (len(index) and not 0 <= index[0] <= index[-1] < math.prod(dims))
    ):
        raise ModelError(
            f"{path}: {owner} of shape {dims}: its positions are not sorted, unique and inside it"
        )
    array = np.zeros(math.prod(dims), values.dtype)
    array[index] = values
    array = array.reshape(dims)
    array.setflags(write=False)
    return array, index


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
