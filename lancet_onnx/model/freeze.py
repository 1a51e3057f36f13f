# SPDX-License-Identifier: Apache-2.0
"""A parsed ONNX message -> a frozen `Graph`: one flat list of nodes, every constant by name.

Calls of the model's own functions are replaced by the nodes of their bodies, and constants that
lie inside branches, loops and functions are lifted to the top, so that everything after this module
sees each stored tensor once, as a leaf with a name. Where a leaf's bytes lie is kept as a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model.external import external_file, is_external
from lancet_onnx.model.graph import Array, Attribute, Graph, Node
from lancet_onnx.model.operators import check_arity, since_version
from lancet_onnx.model.order import in_order
from lancet_onnx.model.precheck import MAX_NODES
from lancet_onnx.model.scope import (
    Collected,
    Scope,
    SpanOf,
    Stored,
    bound,
    lift,
    made_name,
    read_name,
    title_of,
)
from lancet_onnx.model.values import (
    ReadTensor,
    constant_value,
    dense,
    dtype_of,
    sparse_positions,
    to_array,
    to_attribute,
)
from lancet_onnx.model.wire import FieldPath
from lancet_onnx.rules import BROKEN_GRAPH, TOO_DEEP, TOO_MANY_NODES
from lancet_onnx.types import Dimension, NodeName, TensorSpec, ValueName

_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_FUNCTION_NODE, _FUNCTION_DEFAULT = 7, 11
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_SPARSE = 5, 6, 22
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_DEEPEST = 16


def freeze(
    proto: onnx.ModelProto,
    path: Path,
    read: ReadTensor,
    span_of: SpanOf,
) -> tuple[Graph, Mapping[ValueName, Stored]]:
    """Return the graph that the file computes, without constants, and how it keeps those.

    `proto` is the file's skeleton; `read` gives the values of its tensors, `span_of` their places.

    Raises:
        ModelError: contradictions: values that nothing computes, cycles, endless calls.
    """
    opsets = _opsets(proto.opset_import)
    functions = {(_domain(f.domain), f.name): (n, f) for n, f in enumerate(proto.functions)}
    taken = {info.name for info in proto.graph.input} | {t.name for t in proto.graph.initializer}
    taken |= {output for node in proto.graph.node for output in node.output}
    found = Collected(path, read, span_of, functions, opsets, taken=frozenset(taken))
    scope = Scope(((_MODEL_GRAPH, 0),), "", "", opsets, {}, {}, 0, "")
    graph = _graph(proto.graph, scope, found)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    ordered = in_order(graph, path, found.stored)
    return replace(graph, nodes=ordered, metadata=metadata), found.stored


def schema_body(
    node: Node, function: onnx.FunctionProto, defaults: Iterable[onnx.AttributeProto]
) -> Graph:
    """Return the body of a standard operator that ONNX defines as a function of others.

    `defaults` are the operator's attributes where the node leaves them out.
    """
    path = Path(f"the definition of {node.op_type}")

    def read(tensor: onnx.TensorProto, _at: FieldPath, owner: str) -> Array:
        return to_array(tensor, owner, path)

    opsets = _opsets(function.opset_import)
    found = Collected(path, read, lambda _at: None, {}, opsets)
    told = {
        name: onnx.helper.make_attribute(name, to_attribute(value))
        for name, value in node.attributes.items()
    }
    known = {**{a.name: a for a in defaults}, **told}
    # No file holds these; any paths will do that tell one attribute from another.
    given: dict[str, tuple[onnx.AttributeProto, FieldPath]] = {
        name: (attribute, ((_NODE_ATTRIBUTE, k),))
        for k, (name, attribute) in enumerate(known.items())
    }
    values = dict.fromkeys(function.input[len(node.inputs) :], ValueName(""))
    values |= {
        name: ValueName("")
        for name, value in zip(function.input, node.inputs, strict=False)
        if not value
    }
    scope = Scope((), "", "", found.opsets, values, given, 0, "")
    nodes = tuple(_nodes(function.node, _FUNCTION_NODE, scope, found))
    graph = Graph(
        nodes,
        tuple(TensorSpec(ValueName(name), "unknown", None) for name in function.input),
        tuple(TensorSpec(ValueName(name), "unknown", None) for name in function.output),
        {name: at.read() for name, at in found.stored.items()},
        found.opsets,
        {},
    )
    return replace(graph, nodes=in_order(graph, path, found.stored))


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    opsets = {entry.domain or "": int(entry.version) for entry in imports}
    if "ai.onnx" in opsets:
        opsets.setdefault("", opsets["ai.onnx"])
    return opsets


def _graph(proto: onnx.GraphProto, scope: Scope, found: Collected) -> Graph:
    """Freeze one graph; its constants go to `found`, its nodes stay in the file's order."""
    if scope.depth > _DEEPEST:
        raise ModelError(
            f"{found.path}: branches and calls nested more than {_DEEPEST} deep", TOO_DEEP
        )
    own: set[str] = set()
    for number, tensor in enumerate(proto.initializer):
        place = (*scope.at, (_GRAPH_INITIALIZER, number))
        own.add(tensor.name)
        stored = _stored(tensor, place, f"initializer '{tensor.name}'", found)
        lift(tensor.name, stored, scope, found)
    for number, sparse in enumerate(proto.sparse_initializer):
        place = (*scope.at, (_GRAPH_SPARSE, number))
        own.add(sparse.values.name)
        lift(sparse.values.name, _stored_sparse(sparse, place, found), scope, found)
    if scope.depth:
        formal = [info.name for info in proto.input]
        scope.values.update({name: ValueName(f"{scope.prefix}{name}") for name in formal})
    inputs = [_spec(info, scope) for info in proto.input if info.name not in own]
    nodes = tuple(_nodes(proto.node, _GRAPH_NODE, scope, found))
    outputs = tuple(_spec(info, scope) for info in proto.output)
    graph = Graph(nodes, tuple(inputs), outputs, {}, scope.opsets, {})
    if not scope.depth:
        return graph
    made = {value for node in nodes for value in node.outputs} | {s.name for s in inputs}
    used = [v for node in nodes for v in node.reads] + [spec.name for spec in outputs]
    captured = tuple(dict.fromkeys(value for value in used if value and value not in made))
    known = replace(graph, captured=captured)
    return replace(known, nodes=in_order(known, found.path, ()))


def _nodes(
    protos: Sequence[onnx.NodeProto], number: int, scope: Scope, found: Collected
) -> Iterator[Node]:
    """Yield the nodes of one body, with function calls replaced by what they compute."""
    for position, node in enumerate(protos):
        found.nodes += 1
        if found.nodes > MAX_NODES:
            raise ModelError(
                f"{found.path}: with its functions expanded the model has more than the "
                f"{MAX_NODES} nodes that are handled",
                TOO_MANY_NODES,
            )
        place = (*scope.at, (number, position))
        domain = _domain(node.domain)
        if node.op_type == "Constant" and not domain:
            yield from _constant(node, place, scope, found)
            continue
        title = title_of(node, position, scope, found)
        called = found.functions.get((domain, node.op_type))
        if called is not None:
            yield from _call(node, place, title, *called, scope, found)
            continue
        attributes: dict[str, Attribute] = {}
        graphs: dict[str, Graph] = {}
        unreadable = ""
        for index, entry in enumerate(node.attribute):
            attribute, where = bound(entry, (*place, (_NODE_ATTRIBUTE, index)), scope)
            if attribute is None:
                continue  # refers to an attribute that the call leaves out
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner = replace(
                    scope,
                    at=(*where, (_ATTRIBUTE_GRAPH, 0)),
                    values=dict(scope.values),
                    depth=scope.depth + 1,
                    qualify=f"{title}.{entry.name}/",
                )
                graphs[entry.name] = _graph(attribute.g, inner, found)
                continue
            try:
                attributes[entry.name] = _attribute(attribute, where, node, found)
            except UnsupportedError:
                unreadable = entry.name
        made = Node(
            NodeName(title),
            node.op_type,
            domain,
            since_version(node.op_type, domain, scope.opsets),
            tuple(read_name(name, scope) for name in node.input),
            tuple(made_name(name, scope) for name in node.output),
            attributes,
            graphs,
            unreadable,
        )
        check_arity(made, found.path)
        yield made


def _call(
    node: onnx.NodeProto,
    place: FieldPath,
    title: str,
    number: int,
    function: onnx.FunctionProto,
    scope: Scope,
    found: Collected,
) -> Iterator[Node]:
    """Yield the body of one of the model's own functions, its values renamed for this call."""
    if scope.depth >= _DEEPEST:
        raise ModelError(
            f"{found.path}: node '{title}' calls the function '{function.name}' more than "
            f"{_DEEPEST} calls deep; does it call itself?",
            TOO_DEEP,
        )
    body = (_MODEL_FUNCTIONS, number)
    given: dict[str, tuple[onnx.AttributeProto, FieldPath]] = {
        a.name: (a, (body, (_FUNCTION_DEFAULT, k))) for k, a in enumerate(function.attribute_proto)
    }
    for index, entry in enumerate(node.attribute):
        told, where = bound(entry, (*place, (_NODE_ATTRIBUTE, index)), scope)
        if told is not None:
            given[entry.name] = (told, where)
    values = dict.fromkeys(function.input, ValueName(""))
    values |= {
        formal: read_name(actual, scope)
        for formal, actual in zip(function.input, node.input, strict=False)
    }
    values |= {
        formal: made_name(actual, scope)
        for formal, actual in zip(function.output, node.output, strict=False)
        if actual
    }
    inner = Scope(
        (body,),
        f"{title}/",
        f"{function.name}/",
        {**scope.opsets, **_opsets(function.opset_import)},
        values,
        given,
        scope.depth + 1,
        f"{function.domain}.",
    )
    formal = set(function.input)
    direct = [name for name in function.output if name in formal]
    if direct:
        raise ModelError(
            f"{found.path}: the function '{function.name}' gives its input '{direct[0]}' back",
            BROKEN_GRAPH,
        )
    yield from _nodes(function.node, _FUNCTION_NODE, inner, found)


def _constant(
    node: onnx.NodeProto, place: FieldPath, scope: Scope, found: Collected
) -> Iterator[Node]:
    """Lift the value of a Constant node; one in a function is shared by all of its calls.

    Yields a node only where a function gives the constant back under the caller's name.
    """
    given = [
        bound(entry, (*place, (_NODE_ATTRIBUTE, index)), scope)
        for index, entry in enumerate(node.attribute)
    ]
    present = [(attribute, where) for attribute, where in given if attribute]
    if len(present) != 1 or len(node.output) != 1:
        raise ModelError(
            f"{found.path}: the Constant node '{node.name}' must have exactly one value and one "
            "output",
            BROKEN_GRAPH,
        )
    attribute, where = present[0]
    name = node.output[0]
    owner = f"the value of the Constant node '{node.name or name}'"
    asked = scope.values.get(name)
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        place = (*where, (_ATTRIBUTE_SPARSE, 0))
        stored = _stored_sparse(attribute.sparse_tensor, place, found)
    elif attribute.type == onnx.AttributeProto.TENSOR and attribute.name == "value":
        stored = _stored(attribute.t, (*where, (_ATTRIBUTE_TENSOR, 0)), owner, found)
    else:
        value = _attribute(attribute, where, node, found)
        array = constant_value(attribute.name, value, node.name or name, found.path)
        span = found.span_of(where)
        stored = Stored(where, array.dtype.name, array.shape, span, lambda: array)
    lift(name, stored, scope, found)
    if asked is not None and scope.prefix:
        yield Node(NodeName(asked), "Identity", "", 1, (scope.values[name],), (asked,), {})


def _stored(tensor: onnx.TensorProto, at: FieldPath, owner: str, found: Collected) -> Stored:
    external = external_file(tensor, owner, found.path) if is_external(tensor) else None
    return Stored(
        at,
        dtype_of(tensor, owner, found.path).name,
        tuple(tensor.dims),
        found.span_of(at),
        lambda: found.read(tensor, at, owner),
        external,
    )


def _stored_sparse(sparse: onnx.SparseTensorProto, at: FieldPath, found: Collected) -> Stored:
    owner = f"sparse initializer '{sparse.values.name}'"
    values = _stored(sparse.values, (*at, (_SPARSE_VALUES, 0)), owner, found)
    index = found.read(sparse.indices, (*at, (_SPARSE_INDICES, 0)), f"the positions of {owner}")
    shape, positions = sparse_positions(sparse, index, owner, found.path)
    return replace(
        values,
        shape=shape,
        read=lambda: dense(shape, positions, values.read()),
        positions=positions,
    )


def _attribute(
    attribute: onnx.AttributeProto, at: FieldPath, node: onnx.NodeProto, found: Collected
) -> Attribute:
    if attribute.type == onnx.AttributeProto.TENSOR:
        owner = f"attribute '{attribute.name}' of node '{node.name or node.op_type}'"
        return found.read(attribute.t, (*at, (_ATTRIBUTE_TENSOR, 0)), owner)
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
        f"{found.path}: node '{node.name or node.op_type}' has the attribute '{attribute.name}' of "
        "a kind that is not supported"
    )


def _spec(info: onnx.ValueInfoProto, scope: Scope) -> TensorSpec:
    tensor = info.type.tensor_type
    name = read_name(info.name, scope)
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except (KeyError, ValueError):
        dtype = "unknown"
    if not tensor.HasField("shape"):
        return TensorSpec(name, dtype, None)
    shape: list[Dimension] = [
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in tensor.shape.dim
    ]
    return TensorSpec(name, dtype, tuple(shape))
