# SPDX-License-Identifier: Apache-2.0
"""Where quantised integers, which are carried as floats, meet an operator that would misread them.

Between the operators of quantisation an 8-bit integer is a float of whole numbers here, so that
gradients pass. Moving, choosing and comparing such numbers is exact; dividing or averaging them is
not what ONNX does with integers, and a sum of two may wrap around there. That is refused by name.
"""

from __future__ import annotations

from lancet_onnx.model import Graph, Node
from lancet_onnx.model.graph import REARRANGING
from lancet_onnx.ops import lookup
from lancet_onnx.types import NodeName, ValueName

_READ_SCALES = frozenset(
    [
        "Cast",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "QAttention",
        "QEmbedLayerNormalization",
    ]
)
"""Operators that know what the integers stand for, beside those whose results are carried."""

_KEEP = REARRANGING | frozenset(
    [
        "Clip",
        "Compress",
        "Concat",
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Gather",
        "GatherElements",
        "GatherND",
        "GlobalMaxPool",
        "Max",
        "MaxPool",
        "Min",
        "Pad",
        "ReduceMax",
        "ReduceMin",
        "Relu",
        "ReverseSequence",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Tile",
        "TopK",
        "Trilu",
        "Where",
    ]
)
"""Operators that move or choose among numbers."""

_COMPARE = frozenset(
    [
        "ArgMax",
        "ArgMin",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Shape",
        "Size",
    ]
)
_WIDE = frozenset({"ConvInteger", "MatMulInteger"})
_SUMS = frozenset({"Add", "Mul", "ReduceSum", "Sub"})
"""Exact on 32-bit integers, which do not wrap around in a network; not on those of 8 bits."""


def misread(graph: Graph) -> dict[NodeName, str]:
    """Return the nodes that would compute with carried integers otherwise than ONNX, and why."""
    narrow: set[ValueName] = set(graph.quantised)
    wide: set[ValueName] = set()
    found: dict[NodeName, str] = {}
    for node in graph.nodes:
        small = [value for value in node.inputs if value in narrow]
        large = [value for value in node.inputs if value in wide]
        entry = lookup((node.domain, node.op_type, node.since_version))
        if entry is not None and entry.carried:
            (wide if node.op_type in _WIDE else narrow).update(_integers(node))
        elif not small and not large:
            continue
        elif _keeps(node):
            (narrow if small else wide).update(node.outputs[:1])
        elif node.op_type in _SUMS and not small:
            wide.update(node.outputs)
        elif node.op_type not in _READ_SCALES | _COMPARE and not node.graphs:
            found[node.name] = (
                f"it computes with the quantised integers '{(small or large)[0]}', which are "
                "carried as floats here; give the model before quantisation, or in QDQ form"
            )
    return found


def _integers(node: Node) -> tuple[ValueName, ...]:
    """Return the outputs of an operator of quantisation that are integers in ONNX."""
    if node.op_type == "DynamicQuantizeLinear":
        return node.outputs[::2]  # the scale between them is a float
    if node.op_type == "QGemm" and len(node.inputs) < 8:
        return ()  # without a scale of its result it gives floats
    return node.outputs


def _keeps(node: Node) -> bool:
    if node.op_type in ("Resize", "Upsample"):
        return node.attributes.get("mode", "nearest") == "nearest"
    if node.op_type in ("ScatterElements", "ScatterND"):
        return node.attributes.get("reduction", "none") in ("none", "max", "min")
    return node.op_type in _KEEP
