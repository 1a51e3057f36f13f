# SPDX-License-Identifier: Apache-2.0
"""What must hold before any part of an untrusted model is computed.

Reading a file runs nothing; everything after that does. These checks look at the parsed skeleton
(see `skim`) and at the places of the tensors' numbers, cost time in proportion to the file, and
refuse by name. docs/rules.md explains each rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from lancet_onnx.errors import ModelError
from lancet_onnx.model.checking import check_tensor
from lancet_onnx.model.operators import MICROSOFT
from lancet_onnx.model.skim import DEEPEST, Skim
from lancet_onnx.model.source import Source
from lancet_onnx.model.wire import FieldPath
from lancet_onnx.rules import COMPILED, CUSTOM, NAMES, NO_MODEL, TOO_DEEP, TOO_MANY_NODES

MAX_NODES = 200_000
ALLOWED_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        MICROSOFT,
        "com.microsoft.nchwc",
    }
)
"""Domains of ONNX and onnxruntime themselves; not every operator in them is computed."""

COMPILED_BLOBS = frozenset({"EPContext"})

_GRAPH: FieldPath = ((7, 0),)
_NODE, _TENSOR, _SPARSE = 1, 5, 15
_FUNCTION, _FUNCTION_NODE, _DEFAULT = 25, 7, 11
_ATTRIBUTE, _T, _G, _TENSORS, _GRAPHS, _SPARSE_T, _SPARSE_TS = 5, 5, 6, 10, 11, 22, 23


def precheck(proto: onnx.ModelProto, skim: Skim, source: Source, path: Path) -> None:
    """Refuse a model that is not what it seems.

    Checks names, operator domains, tensors with two value fields, sizes that disagree with the
    bytes present, and external data outside the model's own folder.

    Raises:
        ModelError: with what was found, where, what to do, and the rule.
    """
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(
            f"{path}: no ONNX model in this file (no graph or no opset); "
            "was it exported completely? Expected a file written by torch.onnx.export, tf2onnx ...",
            NO_MODEL,
        )
    graphs = [graph for graph, _ in _graphs(proto.graph, _GRAPH)]
    bodies = [graph.node for graph in graphs] + [function.node for function in proto.functions]
    nodes = [node for body in bodies for node in body]
    if len(nodes) > MAX_NODES:
        raise ModelError(
            f"{path}: {len(nodes):,} nodes, more than the {MAX_NODES:,} that are handled",
            TOO_MANY_NODES,
        )
    _check_texts(proto, nodes, path)
    local = {(function.domain, function.name) for function in proto.functions}
    for node in nodes:
        _check_operator(node, local, path)
    for graph in graphs:
        _check_initializers(graph, path)
    for body in bodies:
        _check_results(body, path)
    if len(local) < len(proto.functions):
        names = [f"{f.domain}.{f.name}" for f in proto.functions]
        raise _double(path, "functions", next(n for n in names if names.count(n) > 1))
    _check_calls(proto, path)
    for owner, tensor, at in tensors(proto):
        check_tensor(tensor, skim.tensors.get(at, {}), source, owner, path)


def tensors(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto, FieldPath]]:
    """Yield every tensor of the model, also inside branches: what owns it, it, and its path."""
    for graph, at in _graphs(proto.graph, _GRAPH):
        for n, tensor in enumerate(graph.initializer):
            yield f"initializer '{tensor.name}'", tensor, (*at, (_TENSOR, n))
        for n, sparse in enumerate(graph.sparse_initializer):
            owner = f"sparse initializer '{sparse.values.name}'"
            yield from _of_sparse(sparse, owner, (*at, (_SPARSE, n)))
        yield from _of_nodes(graph.node, at, _NODE)
    for n, function in enumerate(proto.functions):
        at = ((_FUNCTION, n),)
        yield from _of_nodes(function.node, at, _FUNCTION_NODE)
        for k, attribute in enumerate(function.attribute_proto):
            holder = f"function '{function.name}'"
            yield from _held(attribute, holder, (*at, (_DEFAULT, k)))


def _of_nodes(
    nodes: Iterable[onnx.NodeProto], at: FieldPath, number: int
) -> Iterator[tuple[str, onnx.TensorProto, FieldPath]]:
    for n, node in enumerate(nodes):
        for k, attribute in enumerate(node.attribute):
            place = (*at, (number, n), (_ATTRIBUTE, k))
            yield from _held(attribute, f"node '{node.name or node.op_type}'", place)


def _held(
    attribute: onnx.AttributeProto, holder: str, at: FieldPath
) -> Iterator[tuple[str, onnx.TensorProto, FieldPath]]:
    owner = f"attribute '{attribute.name}' of {holder}"
    if attribute.HasField("t"):
        yield owner, attribute.t, (*at, (_T, 0))
    if attribute.HasField("sparse_tensor"):
        yield from _of_sparse(attribute.sparse_tensor, owner, (*at, (_SPARSE_T, 0)))
    for n, tensor in enumerate(attribute.tensors):
        yield owner, tensor, (*at, (_TENSORS, n))
    for n, sparse in enumerate(attribute.sparse_tensors):
        yield from _of_sparse(sparse, owner, (*at, (_SPARSE_TS, n)))


def _of_sparse(
    sparse: onnx.SparseTensorProto, owner: str, at: FieldPath
) -> Iterator[tuple[str, onnx.TensorProto, FieldPath]]:
    yield owner, sparse.values, (*at, (1, 0))
    yield f"the positions of {owner}", sparse.indices, (*at, (2, 0))


def _graphs(
    graph: onnx.GraphProto, at: FieldPath, depth: int = 0
) -> Iterator[tuple[onnx.GraphProto, FieldPath]]:
    """Yield a graph and, at any depth, those of its branches and loops, each with its path."""
    if depth > DEEPEST:
        raise ModelError(f"branches are nested more than {DEEPEST} deep; refused", TOO_DEEP)
    yield graph, at
    for n, node in enumerate(graph.node):
        for k, attribute in enumerate(node.attribute):
            place = (*at, (_NODE, n), (_ATTRIBUTE, k))
            if attribute.HasField("g"):
                yield from _graphs(attribute.g, (*place, (_G, 0)), depth + 1)
            for m, inner in enumerate(attribute.graphs):
                yield from _graphs(inner, (*place, (_GRAPHS, m)), depth + 1)


def _check_texts(proto: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], path: Path) -> None:
    texts: list[str | bytes] = [
        t for n in nodes for t in (n.name, n.op_type, n.domain, *n.input, *n.output)
    ]
    texts += [v.name for v in (*proto.graph.input, *proto.graph.output)]
    texts += [tensor.name for tensor in proto.graph.initializer]
    texts += [text for entry in proto.metadata_props for text in (entry.key, entry.value)]
    # protobuf hands out bytes where a string is no UTF-8.
    broken = next((text for text in texts if not isinstance(text, str)), None)
    if broken is not None:
        raise ModelError(
            f"{path}: the name {broken!r} in it is no UTF-8; the file is damaged", NAMES
        )


def _check_operator(node: onnx.NodeProto, local: set[tuple[str, str]], path: Path) -> None:
    named = f"{path}: node '{node.name or node.op_type}'"
    if node.op_type in COMPILED_BLOBS:
        raise ModelError(
            f"{named} holds a compiled blob ({node.op_type}); it cannot be read. "
            "Export the model without a compiler",
            COMPILED,
        )
    if node.domain not in ALLOWED_DOMAINS and (node.domain, node.op_type) not in local:
        raise ModelError(
            f"{named} uses the operator {node.op_type} of the custom domain '{node.domain}'; "
            "custom operators are native code and are never loaded. "
            "Export the model with standard operators",
            CUSTOM,
        )


def _check_initializers(graph: onnx.GraphProto, path: Path) -> None:
    named = [tensor.name for tensor in graph.initializer]
    named += [sparse.values.name for sparse in graph.sparse_initializer]
    seen: set[str] = set()
    for name in named:
        if not name:
            raise ModelError(
                f"{path}: an initializer without a name; nothing can use it, so the file is "
                "damaged or hides data",
                NAMES,
            )
        if name in seen:
            raise _double(path, "initializers", name)
        seen.add(name)
    inputs: set[str] = set()
    for spec in graph.input:
        if spec.name in inputs:
            raise _double(path, "inputs", spec.name)
        inputs.add(spec.name)
    computed = {output for node in graph.node for output in node.output if output}
    both = next((name for name in (*named, *inputs) if name in computed), None)
    if both is not None:
        raise _double(path, "values (an input or initializer, and what a node computes)", both)


def _check_results(nodes: Iterable[onnx.NodeProto], path: Path) -> None:
    seen: set[str] = set()
    for node in nodes:
        for output in node.output:
            if output in seen:
                raise _double(path, "values", output)
            if output:
                seen.add(output)


def _check_calls(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that call each other without end or multiply; each is looked at once."""
    functions = {(f.domain, f.name): f for f in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def expanded(nodes: Iterable[onnx.NodeProto], callers: tuple[tuple[str, str], ...]) -> int:
        count = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in functions and key not in sizes:
                if key in callers or len(callers) > DEEPEST:
                    raise ModelError(
                        f"{path}: the function '{node.op_type}' is called more than {DEEPEST} "
                        "calls deep; does it call itself?",
                        TOO_DEEP,
                    )
                sizes[key] = expanded(functions[key].node, (*callers, key))
            count += sizes.get(key, 1)
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else attribute.graphs
                count += sum(expanded(graph.node, callers) for graph in inner)
        return count

    total = expanded(proto.graph.node, ())
    if total > MAX_NODES:
        raise ModelError(
            f"{path}: with its functions expanded the model has {total:,} nodes, more than the "
            f"{MAX_NODES:,} that are handled",
            TOO_MANY_NODES,
        )


def _double(path: Path, what: str, name: str) -> ModelError:
    return ModelError(
        f"{path}: two {what} have the name '{name}'; "
        "readers disagree on which one counts, so the file is refused",
        NAMES,
    )
