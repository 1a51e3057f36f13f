# SPDX-License-Identifier: Apache-2.0
"""What must hold before any part of an untrusted model is computed.

Reading a protobuf file runs nothing; everything after that does. These checks look at the parsed
message only, cost time in proportion to the file, and refuse by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from lancet_onnx.errors import ModelError

MAX_FILE_BYTES = 8 << 30
"""Larger files are refused (the protobuf part of a model cannot pass 2 GiB anyway)."""

MAX_NODES = 200_000
ALLOWED_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "com.microsoft",
        "com.microsoft.nchwc",
    }
)
"""Domains of ONNX and onnxruntime themselves; not every operator in them is computed."""

COMPILED_BLOBS = frozenset({"EPContext"})

_ITEM_BITS = {
    name: bits
    for bits, names in {
        4: ("UINT4", "INT4", "FLOAT4E2M1"),
        8: ("UINT8", "INT8", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2"),
        16: ("UINT16", "INT16", "FLOAT16", "BFLOAT16"),
        32: ("FLOAT", "INT32", "UINT32"),
        64: ("DOUBLE", "INT64", "UINT64", "COMPLEX64"),
        128: ("COMPLEX128",),
    }.items()
    for name in names
}

_VALUE_FIELDS = (
    "raw_data",
    "float_data",
    "int32_data",
    "int64_data",
    "double_data",
    "uint64_data",
    "string_data",
)


def precheck(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a model that is not what it seems.

    Checks operator domains, duplicate initializer names, tensors with two value fields, sizes that
    disagree with the bytes present, and external data outside the model's own folder.

    Raises:
        ModelError: with what was found, where, and what to do.
    """
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(
            f"{path}: no ONNX model in this file (no graph or no opset); "
            "was it exported completely? Expected a file written by torch.onnx.export, tf2onnx ..."
        )
    nodes = [node for graph in _graphs(proto.graph) for node in graph.node]
    nodes += [node for function in proto.functions for node in function.node]
    if len(nodes) > MAX_NODES:
        raise ModelError(f"{path}: {len(nodes)} nodes, more than the {MAX_NODES} that are handled")
    named_by: list[str | bytes] = [
        t for n in nodes for t in (n.name, n.op_type, n.domain, *n.input, *n.output)
    ]
    named_by += [v.name for v in (*proto.graph.input, *proto.graph.output)]
    named_by += [tensor.name for tensor in proto.graph.initializer]
    named_by += [text for entry in proto.metadata_props for text in (entry.key, entry.value)]
    # protobuf hands out bytes where a string is no UTF-8.
    broken = next((text for text in named_by if not isinstance(text, str)), None)
    if broken is not None:
        raise ModelError(f"{path}: the name {broken!r} in it is no UTF-8; the file is damaged")
    local = {(function.domain, function.name) for function in proto.functions}
    for node in nodes:
        named = f"{path}: node '{node.name or node.op_type}'"
        if node.op_type in COMPILED_BLOBS:
            raise ModelError(f"{named} holds a compiled blob ({node.op_type}); it cannot be read")
        if node.domain not in ALLOWED_DOMAINS and (node.domain, node.op_type) not in local:
            raise ModelError(
                f"{named} uses the operator {node.op_type} of the custom domain '{node.domain}'; "
                "custom operators are native code and are never loaded. "
                "Export the model with standard operators"
            )
    seen: set[str] = set()
    for tensor in proto.graph.initializer:
        if tensor.name in seen:
            raise ModelError(
                f"{path}: two initializers have the name '{tensor.name}'; "
                "readers disagree on which one counts, so the file is refused"
            )
        seen.add(tensor.name)
    for owner, tensor in tensors(proto):
        check_tensor(tensor, owner, path)


def tensors(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield every tensor of the model, also inside branches, with the name of what owns it."""
    graphs = list(_graphs(proto.graph))
    for graph in graphs:
        for tensor in graph.initializer:
            yield f"initializer '{tensor.name}'", tensor
        for sparse in graph.sparse_initializer:
            yield f"sparse initializer '{sparse.values.name}'", sparse.values
            yield f"the positions of '{sparse.values.name}'", sparse.indices
    bodies = [graph.node for graph in graphs] + [function.node for function in proto.functions]
    for node in (node for body in bodies for node in body):
        for attribute in node.attribute:
            yield from _held(attribute, f"node '{node.name or node.op_type}'")
    for function in proto.functions:
        for attribute in function.attribute_proto:
            yield from _held(attribute, f"function '{function.name}'")


def _held(attribute: onnx.AttributeProto, holder: str) -> Iterator[tuple[str, onnx.TensorProto]]:
    owner = f"attribute '{attribute.name}' of {holder}"
    if attribute.HasField("t"):
        yield owner, attribute.t
    if attribute.HasField("sparse_tensor"):
        yield owner, attribute.sparse_tensor.values
        yield f"the positions of {owner}", attribute.sparse_tensor.indices
    for tensor in attribute.tensors:
        yield owner, tensor


def check_tensor(tensor: onnx.TensorProto, owner: str, path: Path) -> None:
    """Refuse a tensor whose description and bytes disagree; see `precheck`."""
    dims = list(tensor.dims)
    if any(dim < 0 for dim in dims) or math.prod(dims) >= 1 << 40:
        raise ModelError(f"{path}: {owner} has the impossible shape {dims}")
    try:
        type_name = onnx.TensorProto.DataType.Name(tensor.data_type)
    except ValueError:
        raise ModelError(f"{path}: {owner} has the unknown type {tensor.data_type}") from None
    filled = [
        field
        for field in _VALUE_FIELDS
        if (tensor.HasField(field) if field == "raw_data" else len(getattr(tensor, field)))
    ]
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        external_file(tensor, owner, path)
        if filled:
            raise ModelError(f"{path}: {owner} holds data both inside and outside the file")
        return
    if len(filled) > 1:
        raise ModelError(
            f"{path}: {owner} fills two value fields ({' and '.join(filled)}); readers disagree on "
            "which one counts (a known way to hide weights), so the file is refused"
        )
    bits = _ITEM_BITS.get(type_name)
    if bits is None or filled == ["string_data"]:
        return
    expected = (math.prod(dims) * bits + 7) // 8
    if filled == ["raw_data"] or not filled:
        present = len(tensor.raw_data)
        if present != expected:
            raise ModelError(
                f"{path}: {owner} of shape {dims} needs {expected} bytes but holds {present}; "
                "the file is damaged or was made to mislead"
            )
    else:
        count = len(getattr(tensor, filled[0]))
        wanted = math.prod(dims) * (2 if type_name.startswith("COMPLEX") else 1)
        if bits >= 8 and count != wanted:
            raise ModelError(
                f"{path}: {owner} of shape {dims} needs {wanted} elements but holds {count}; "
                "the file is damaged or was made to mislead"
            )


@dataclass(frozen=True, slots=True)
class External:
    """Where a tensor's bytes lie outside the .onnx file.

    Attributes:
        location: the data file as the .onnx file names it, relative to its folder.
        file: the data file itself.
        offset: of the first byte.
        length: in bytes.
    """

    location: str
    file: Path
    offset: int
    length: int


def external_file(tensor: onnx.TensorProto, owner: str, path: Path) -> External:
    """Return where a tensor's external data lies, inside the model's own folder.

    Raises:
        ModelError: the location leaves the folder, is no regular file, or is too short.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    relative = PurePosixPath(location)
    folder = path.resolve().parent
    target = (folder / location).resolve()
    if (
        not location
        or relative.is_absolute()
        or ".." in relative.parts
        or not target.is_relative_to(folder)
    ):
        raise ModelError(
            f"{path}: {owner} wants its data from '{location}', outside the model's own folder; "
            "this is refused. Put the data file beside the model"
        )
    if not target.is_file():
        raise ModelError(
            f"{path}: {owner} has its data in '{location}', which is not there; "
            "copy the data file beside the model"
        )
    bits = _ITEM_BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type), 8)
    expected = (math.prod(tensor.dims) * bits + 7) // 8
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or expected)
    except ValueError:
        raise ModelError(f"{path}: {owner} has an offset or length that is no number") from None
    size = target.stat().st_size
    if offset < 0 or length != expected or offset + length > size:
        raise ModelError(
            f"{path}: {owner} needs {expected} bytes at offset {offset} of '{location}', "
            f"but the entry says {length} and the file has {size}"
        )
    # "./w.bin" and "w.bin" are one file, of which one copy is written.
    return External(str(relative), target, offset, length)


def _graphs(graph: onnx.GraphProto, depth: int = 0) -> Iterator[onnx.GraphProto]:
    """Yield a graph and, at any depth, those of its branches and loops."""
    if depth > 16:
        raise ModelError("sub-graphs are nested more than 16 deep; the model is refused")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner, depth + 1)
