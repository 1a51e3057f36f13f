# SPDX-License-Identifier: Apache-2.0
"""Graph-logic backdoors: a branch that looks at the raw input ("architectural", ShadowLogic).

Such a branch is code, not weights: no weight patch removes it. A condition counts only if it comes
from the input without passing a weight-carrying operator, and not merely from the input's shape;
ordinary networks do not compare pixels.
"""

from __future__ import annotations

from lancet_onnx.model.graph import Graph, Node
from lancet_onnx.types import ValueName

_COMPARES = {
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "IsNaN",
    "IsInf",
    "ArgMax",
    "ArgMin",
}
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"}
_SHAPES = {"Shape", "Size"}


def logic_on_input(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes that choose between results by comparing the raw input."""
    found: list[Node] = []
    _walk(graph, {spec.name for spec in graph.inputs}, set(), found)
    return tuple(found)


def _walk(graph: Graph, raw: set[ValueName], conditions: set[ValueName], found: list[Node]) -> None:
    """Follow the raw input and what compares it through one graph and its bodies."""
    for node in graph.nodes:
        from_raw = any(value in raw for value in node.reads)
        tainted = any(value in conditions for value in node.reads)
        goes_on = False
        for body in node.graphs.values():
            # Whatever goes into a body may arrive at any of its own inputs.
            formal = {spec.name for spec in body.inputs}
            inside = raw | formal if from_raw else set(raw)
            compared = conditions | formal if tainted else set(conditions)
            _walk(body, inside, compared, found)
            results = [spec.name in compared for spec in body.outputs]
            tainted = tainted or any(results)
            goes_on = goes_on or (node.op_type == "Loop" and results[0])
        if node.graphs or node.op_type == "Where":
            decides = node.inputs[: 2 if node.op_type == "Loop" else 1]
            chosen = node.op_type != "Scan" and any(value in conditions for value in decides)
            if chosen or goes_on:
                found.append(node)
        if node.op_type in _WEIGHTED or node.op_type in _SHAPES:
            continue
        if tainted or (node.op_type in _COMPARES and from_raw):
            conditions.update(node.outputs)
            # A condition turned into a number and multiplied in is a branch as well.
            if node.op_type == "Mul" and not all(v in conditions for v in node.inputs):
                found.append(node)
        if from_raw:
            raw.update(node.outputs)
