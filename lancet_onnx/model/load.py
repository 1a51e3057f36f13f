# SPDX-License-Identifier: Apache-2.0
"""File -> `OnnxModel`: read once, hash, parse, precheck, freeze.

The bytes that are hashed are the bytes that are parsed, and those that a patch is applied to.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import defs, numpy_helper

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model.files import files_digest
from lancet_onnx.model.graph import Array, Attribute, Graph, Node, is_float
from lancet_onnx.model.precheck import MAX_FILE_BYTES, External, external_file, precheck
from lancet_onnx.types import Digest, Dimension, NodeName, TensorSpec, ValueName


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A model file: where it lies, its bytes, their digest, and its frozen graph.

    Attributes:
        path: as given by the user.
        data: the whole .onnx file (external data is not in it).
        digest: of `data`; with external data over all files (see `ModelFiles`).
        graph: what the file computes.
        external: where the bytes of tensors with external data lie.
    """

    path: Path
    data: bytes
    digest: Digest
    graph: Graph
    external: Mapping[ValueName, External]

    @cached_property
    def non_finite(self) -> tuple[ValueName, ...]:
        """Names of float constants that hold NaN or infinity."""
        return tuple(
            name
            for name, array in self.graph.constants.items()
            if is_float(array.dtype) and not np.isfinite(array.astype(np.float64)).all()
        )


def load(path: Path) -> OnnxModel:
    """Read and precheck the ONNX model at `path`.

    Raises:
        ModelError: missing, unreadable, not ONNX, damaged or hostile (see `precheck`).
        UnsupportedError: a structure that is not handled.
    """
    data = _read(path)
    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise ModelError(
            f"{path}: not an ONNX model, or a truncated one ({len(data)} bytes that do not parse "
            "as protobuf); expected a file written by torch.onnx.export, tf2onnx ..."
        ) from None
    external: dict[ValueName, External] = {}
    try:
        precheck(proto, path)
        graph = _freeze(proto, path, external)
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        # A message that parses may still hold what the ONNX format does not allow anywhere.
        raise ModelError(f"{path}: the model is damaged or not valid ONNX ({error})") from error
    files = {e.location: e.file for e in external.values()}
    digest = files_digest(Digest.of(data), {k: _file_digest(v) for k, v in files.items()})
    return OnnxModel(path, data, digest, graph, external)


def _read(path: Path) -> bytes:
    if not path.exists():
        raise ModelError(f"{path}: no such file; give the path of an .onnx file")
    if not path.is_file():
        raise ModelError(f"{path}: not a regular file; give the path of an .onnx file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ModelError(f"{path}: larger than the {MAX_FILE_BYTES >> 30} GiB that are handled")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def _file_digest(path: Path) -> Digest:
    with path.open("rb") as stream:
        return Digest(hashlib.file_digest(stream, "sha256").hexdigest())


def _freeze(proto: onnx.ModelProto, path: Path, external: dict[ValueName, External]) -> Graph:
    opsets = {entry.domain or "": entry.version for entry in proto.opset_import}
    if "ai.onnx" in opsets:
        opsets.setdefault("", opsets["ai.onnx"])
    constants: dict[ValueName, Array] = {}
    for tensor in proto.graph.initializer:
        name = ValueName(tensor.name)
        constants[name] = _array(tensor, f"initializer '{name}'", path)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            external[name] = external_file(tensor, f"initializer '{name}'", path)
    if proto.graph.sparse_initializer:
        raise UnsupportedError(
            f"{path}: sparse initializers are not supported; export the model with dense weights"
        )
    nodes: list[Node] = []
    names: set[str] = set()
    for position, node in enumerate(proto.graph.node):
        attributes = {a.name: _attribute(a, node, path) for a in node.attribute if not _graphs(a)}
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            value = _constant(node, attributes, path)
            result = ValueName(node.output[0])
            if result in constants:
                raise ModelError(f"{path}: two constants have the name '{result}'; refused")
            constants[result] = value
            continue
        title = node.name or f"{node.op_type}_{position}"
        while title in names:
            title = f"{title}_{position}"
        names.add(title)
        domain = "" if node.domain == "ai.onnx" else node.domain
        nodes.append(
            Node(
                NodeName(title),
                node.op_type,
                domain,
                _since_version(node.op_type, domain, opsets),
                tuple(ValueName(value) for value in node.input),
                tuple(ValueName(value) for value in node.output),
                attributes,
                any(_graphs(attribute) for attribute in node.attribute),
            )
        )
    inputs = [_spec(info) for info in proto.graph.input if info.name not in constants]
    return Graph(
        _sorted(nodes, {spec.name for spec in inputs} | set(constants), path),
        tuple(inputs),
        tuple(_spec(info) for info in proto.graph.output),
        constants,
        opsets,
        {entry.key: entry.value for entry in proto.metadata_props},
    )


def _array(tensor: onnx.TensorProto, owner: str, path: Path) -> Array:
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
    array = np.array(array)
    array.setflags(write=False)
    return array


def _attribute(attribute: onnx.AttributeProto, node: onnx.NodeProto, path: Path) -> Attribute:
    if attribute.type == onnx.AttributeProto.TENSOR:
        owner = f"attribute '{attribute.name}' of node '{node.name or node.op_type}'"
        return _array(attribute.t, owner, path)
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (int, float, str)):
        return value
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [item.decode(errors="replace") for item in value]
    if attribute.type in (onnx.AttributeProto.FLOATS, onnx.AttributeProto.INTS):
        return list(value)
    raise UnsupportedError(
        f"{path}: node '{node.name or node.op_type}' has the attribute '{attribute.name}' of a "
        "kind that is not supported (sparse tensor or type)"
    )


def _constant(node: onnx.NodeProto, attributes: Mapping[str, Attribute], path: Path) -> Array:
    if len(attributes) != 1 or len(node.output) != 1:
        raise ModelError(
            f"{path}: the Constant node '{node.name}' must have exactly one value and one output"
        )
    name, value = next(iter(attributes.items()))
    if isinstance(value, np.ndarray):
        return value
    dtype = np.float32 if name in ("value_float", "value_floats") else np.int64
    if name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise UnsupportedError(f"{path}: the Constant node '{node.name}' holds a '{name}'")
    array: Array = np.array(value, dtype=dtype)
    array.setflags(write=False)
    return array


def _graphs(attribute: onnx.AttributeProto) -> bool:
    return attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def _since_version(op_type: str, domain: str, opsets: Mapping[str, int]) -> int:
    version = opsets.get(domain)
    if version is None or not defs.has(op_type, domain):
        return 0
    try:
        return int(defs.get_schema(op_type, version, domain).since_version)
    except defs.SchemaError:
        return 0


def _spec(info: onnx.ValueInfoProto) -> TensorSpec:
    tensor = info.type.tensor_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except (KeyError, ValueError):
        dtype = "unknown"
    if not tensor.HasField("shape"):
        return TensorSpec(ValueName(info.name), dtype, None)
    shape: list[Dimension] = [
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in tensor.shape.dim
    ]
    return TensorSpec(ValueName(info.name), dtype, tuple(shape))


def _sorted(nodes: list[Node], known: set[ValueName], path: Path) -> tuple[Node, ...]:
    """Order nodes by what they read; files list them in any order (A. B. Kahn 1962)."""
    computed = {output for node in nodes for output in node.outputs if output}
    readers: dict[ValueName, list[int]] = {}
    missing: list[int] = []
    for position, node in enumerate(nodes):
        wanted = {value for value in node.inputs if value and value not in known}
        for value in wanted:
            if value not in computed and not node.has_graph:
                raise ModelError(f"{path}: {node} reads '{value}', which nothing computes")
            readers.setdefault(value, []).append(position)
        missing.append(len(wanted & computed))
    ready = [position for position, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    ordered: list[Node] = []
    while ready:
        node = nodes[heapq.heappop(ready)]
        ordered.append(node)
        for output in dict.fromkeys(node.outputs):
            for position in readers.get(output, ()):
                missing[position] -= 1
                if missing[position] == 0:
                    heapq.heappush(ready, position)
    if len(ordered) < len(nodes):
        stuck = nodes[next(position for position, count in enumerate(missing) if count)]
        raise ModelError(f"{path}: {stuck} waits for its own result; the graph has a cycle")
    return tuple(ordered)
