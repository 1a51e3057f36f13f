# SPDX-License-Identifier: Apache-2.0
"""What computes a node: our table, else ONNX's own definition of the operator, else onnx2torch.

Whatever cannot be computed is found here, before anything runs, and named.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import Parameter, signature

from lancet_onnx.model import Graph, Node
from lancet_onnx.model.fallback import convert_node
from lancet_onnx.model.functions import function_body
from lancet_onnx.model.operators import MICROSOFT, needed_inputs
from lancet_onnx.ops import Operator, lookup
from lancet_onnx.ops.registry import OpFunction
from lancet_onnx.runtime.control import KNOWN
from lancet_onnx.runtime.tensors import computable, unpackable
from lancet_onnx.runtime.whole import misread

_UNMARKED = ("LayerNormalization", "SimplifiedLayerNormalization")
"""Operators of onnxruntime's own that its optimiser saves under the default domain."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that cannot be computed, and why."""

    node: Node
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}"


def refusals(graph: Graph) -> list[Refusal]:
    """Return every node of the graph and of its bodies that is not computed."""
    found: list[Refusal] = []
    misreading = misread(graph)
    for node in graph.nodes:
        reason = _reason(node, graph) or misreading.get(node.name, "")
        if reason:
            found.append(Refusal(node, reason))
        for body in node.graphs.values():
            found += refusals(body)
    return found


def find(node: Node, graph: Graph) -> Operator | Graph | None:
    """Return the operator, or the graph that ONNX defines it as, or None."""
    known = lookup((node.domain, node.op_type, node.since_version))
    if known is None and not node.domain and node.since_version == 0 and node.op_type in _UNMARKED:
        known = lookup((MICROSOFT, node.op_type, 1))
    if known is not None:
        return known
    body = function_body(node, graph.opsets.get(node.domain, 0))
    if body is not None and not refusals(body):
        return body
    converted = convert_node(node, graph)
    return None if converted is None else Operator(converted)


def _reason(node: Node, graph: Graph) -> str:
    """Return why the node is not computed, empty if it is."""
    if node.unreadable:
        return f"its attribute '{node.unreadable}' is of a kind that is not supported"
    for value in node.inputs:
        array = graph.constants.get(value)
        if array is not None and not computable(array.dtype):
            if unpackable(array.dtype) and node.op_type == "DequantizeLinear":
                continue
            what = "text" if array.dtype == object else str(array.dtype)
            return f"it reads '{value}', which is {what}"
    if node.op_type in KNOWN and not node.domain:
        known = node.since_version in KNOWN[node.op_type]
        return "" if known and node.graphs else "this revision is not in the table"
    if node.graphs:
        return "its body belongs to no operator that is computed"
    if node.domain == "com.microsoft.nchwc":
        return "it was laid out for one processor; give the file before that optimisation"
    found = find(node, graph)
    if found is None:
        return "this operator and revision is not in the table"
    position = _absent(node, found)
    return "" if position is None else f"its input {position + 1} is left out, but is needed"


def _absent(node: Node, found: Operator | Graph) -> int | None:
    """Return the position of an input that the node leaves out and cannot do without."""
    if isinstance(found, Graph):
        needed, rest = needed_inputs(node), False
    else:
        needed, rest = _parameters(found.function)
    more = (rest,) * (len(node.inputs) - len(needed))
    for position, wanted in enumerate((*needed, *more)):
        if wanted and not "".join(node.inputs[position : position + 1]):
            return position
    return None


def _parameters(function: OpFunction) -> tuple[tuple[bool, ...], bool]:
    """Return which inputs an operator's function needs, and whether it needs all that follow."""
    needed, rest = [], False
    for parameter in signature(function).parameters.values():
        optional = "None" in str(parameter.annotation)
        wanted = parameter.default is Parameter.empty and not optional
        if parameter.kind is Parameter.VAR_POSITIONAL:
            rest = wanted
        elif parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            needed.append(wanted)
    return tuple(needed), rest
