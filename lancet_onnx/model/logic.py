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
    raw = {spec.name for spec in graph.inputs}
    conditions: set[ValueName] = set()
    found: list[Node] = []
    for node in graph.nodes:
        if node.op_type in ("If", "Loop", "Scan"):
            found.append(node)
            continue
        tainted = any(value in conditions for value in node.inputs)
        if node.op_type == "Where" and node.inputs[0] in conditions:
            found.append(node)
        if node.op_type in _COMPARES and any(value in raw for value in node.inputs):
            tainted = True
        if node.op_type in _WEIGHTED or node.op_type in _SHAPES:
            continue
        if tainted:
            conditions.update(node.outputs)
            # A condition turned into a number and multiplied in is a branch as well.
            if node.op_type == "Mul" and not all(v in conditions for v in node.inputs):
                found.append(node)
        if any(value in raw for value in node.inputs):
            raw.update(node.outputs)
    return tuple(found)
