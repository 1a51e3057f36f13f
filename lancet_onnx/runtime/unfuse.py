# SPDX-License-Identifier: Apache-2.0
"""Fused and quantised operators written out, so that each weight meets one plain linear operator.

Location and repair reason about f = W * h + b. onnxruntime's optimiser and quantiser fold the
scaling, the bias, the activation and a residual sum into one node; here such a node becomes the
nodes it stands for, around a Conv, Gemm or MatMul of real numbers. The file is not touched, and
the stored weight stays the leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lancet_onnx.model import Graph, Node
from lancet_onnx.model.graph import Array, Attribute
from lancet_onnx.types import NodeName, ValueName

_REVISIONS = {
    "DequantizeLinear": 13,
    "QuantizeLinear": 13,
    "DynamicQuantizeLinear": 11,
    "Conv": 11,
    "Gemm": 13,
    "MatMul": 13,
    "Add": 14,
    "Mul": 14,
    "Relu": 14,
    "Tanh": 13,
    "Sigmoid": 13,
    "LeakyRelu": 6,
    "HardSigmoid": 6,
    "Clip": 13,
}
_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
}
_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_GEMM = ("alpha", "beta", "transA", "transB")


@dataclass(slots=True)
class _Parts:
    """The nodes that stand for one fused node, and the constants that they need."""

    fused: Node
    nodes: list[Node] = field(default_factory=list)
    constants: dict[ValueName, Array] = field(default_factory=dict)

    def value(self, part: str) -> ValueName:
        return ValueName(f"{self.fused.name}.{part}")

    def constant(self, part: str, number: Array) -> ValueName:
        self.constants[self.value(part)] = number
        return self.value(part)

    def add(
        self,
        op_type: str,
        inputs: Sequence[ValueName],
        outputs: Sequence[ValueName],
        attributes: Mapping[str, Attribute] | None = None,
    ) -> ValueName:
        linear = op_type in ("Conv", "Gemm", "MatMul")
        self.nodes.append(
            Node(
                self.fused.name if linear else NodeName(outputs[0]),
                op_type,
                "",
                _REVISIONS[op_type],
                tuple(inputs),
                tuple(outputs),
                dict(attributes or {}),
            )
        )
        return outputs[0]

    def real(
        self, part: str, x: ValueName, scale: ValueName, zero: ValueName, axis: int
    ) -> ValueName:
        """Add the node that turns quantised numbers into real ones."""
        return self.add("DequantizeLinear", [x, scale, zero], [self.value(part)], {"axis": axis})

    def taken(self, names: Sequence[str]) -> dict[str, Attribute]:
        return {name: v for name, v in self.fused.attributes.items() if name in names}

    def input(self, position: int) -> ValueName:
        inputs = self.fused.inputs
        return inputs[position] if position < len(inputs) else ValueName("")


def unfused(graph: Graph) -> Graph:
    """Return the graph with every fused linear operator written out."""
    nodes: list[Node] = []
    constants = dict(graph.constants)
    for node in graph.nodes:
        rewrite = _REWRITES.get(node.op_type)
        parts = _Parts(node)
        if rewrite is not None and rewrite(parts, graph):
            nodes += parts.nodes
            constants.update(parts.constants)
        else:
            nodes.append(node)
    if len(nodes) == len(graph.nodes):
        return graph
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _fused_conv(parts: _Parts, _graph: Graph) -> bool:
    """com.microsoft.FusedConv: activation(Conv(X, W, B) + Z)."""
    return _activated(parts, "Conv", _CONV, parts.input(3))


def _fused_gemm(parts: _Parts, _graph: Graph) -> bool:
    """com.microsoft.FusedGemm: activation(Gemm(A, B, C))."""
    return _activated(parts, "Gemm", _GEMM, ValueName(""))


def _activated(parts: _Parts, op_type: str, own: Sequence[str], more: ValueName) -> bool:
    attributes = parts.fused.attributes
    activation = attributes.get("activation", "")
    result = parts.fused.outputs[0]
    if not isinstance(activation, str):
        return False
    given = attributes.get("activation_params", [])
    limits: list[Attribute] = list(given) if isinstance(given, list) else []
    if op_type == "Gemm":
        names = ("activation_alpha", "activation_beta")
        limits = [attributes[name] for name in names if name in attributes]
    if activation and activation != "Clip" and activation not in _ACTIVATIONS:
        return False
    steps = 1 + bool(more) + bool(activation)
    values = [parts.value(f"part{i}") for i in range(steps - 1)] + [result]
    value = parts.add(op_type, list(parts.fused.inputs[:3]), values[:1], parts.taken(own))
    if more:
        value = parts.add("Add", [value, more], [values[1]])
    if activation == "Clip":
        bounds = [
            parts.constant(f"bound{i}", np.array(bound, np.float32))
            for i, bound in enumerate(limits)
        ]
        parts.add("Clip", [value, *bounds], [result])
    elif activation:
        named = dict(zip(_ACTIVATIONS[activation], limits, strict=False))
        parts.add(activation, [value], [result], named)
    return True


def _qlinear_conv(parts: _Parts, graph: Graph) -> bool:
    """QLinearConv: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, B."""
    x_scale, w_scale = (graph.constants.get(parts.input(i)) for i in (1, 4))
    bias = parts.input(8)
    if bias and (x_scale is None or w_scale is None):
        return False
    inputs = [
        parts.real("x", parts.input(0), parts.input(1), parts.input(2), 1),
        parts.real("w", parts.input(3), parts.input(4), parts.input(5), 0),
    ]
    if bias and x_scale is not None and w_scale is not None:
        scale = parts.constant("bias_scale", np.asarray(x_scale.reshape(-1)[0] * w_scale))
        inputs.append(parts.real("bias", bias, scale, ValueName(""), 0))
    y = parts.add("Conv", inputs, [parts.value("y")], parts.taken(_CONV))
    parts.add("QuantizeLinear", [y, parts.input(6), parts.input(7)], parts.fused.outputs)
    return True


def _qlinear_matmul(parts: _Parts, graph: Graph) -> bool:
    """QLinearMatMul: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero."""
    inputs = [
        parts.real("a", parts.input(0), parts.input(1), parts.input(2), -1),
        parts.real("b", parts.input(3), parts.input(4), parts.input(5), -1),
    ]
    y = parts.add("MatMul", inputs, [parts.value("y")])
    parts.add("QuantizeLinear", [y, parts.input(6), parts.input(7)], parts.fused.outputs)
    return True


def _qgemm(parts: _Parts, graph: Graph) -> bool:
    """com.microsoft.QGemm: A, a_scale, a_zero, B, b_scale, b_zero, C, y_scale, y_zero."""
    a_scale, b_scale = (graph.constants.get(parts.input(i)) for i in (1, 4))
    bias = parts.input(6)
    if a_scale is None or b_scale is None:
        return False
    alpha = parts.fused.attributes.get("alpha", 1.0)
    axis = 0 if parts.fused.attributes.get("transB", 0) else 1
    inputs = [
        parts.real("a", parts.input(0), parts.input(1), parts.input(2), 1),
        parts.real("b", parts.input(3), parts.input(4), parts.input(5), axis),
    ]
    if bias and isinstance(alpha, (int, float)):
        number = np.asarray(np.float32(alpha) * a_scale.reshape(-1)[0] * b_scale, np.float32)
        scale = parts.constant("bias_scale", number)
        inputs.append(parts.real("bias", bias, scale, ValueName(""), 0))
    whole = not parts.input(7)
    y = parts.fused.outputs[0] if whole else parts.value("y")
    parts.add("Gemm", inputs, [y], parts.taken(("alpha", "transA", "transB")))
    if not whole:
        parts.add("QuantizeLinear", [y, parts.input(7), parts.input(8)], parts.fused.outputs)
    return True


def _integer(op_type: str) -> Callable[[_Parts, Graph], bool]:
    """ConvInteger and MatMulInteger: x, w, x_zero, w_zero; the scales come after them."""

    def rewrite(parts: _Parts, graph: Graph) -> bool:
        one = parts.constant("one", np.array(1, np.float32))
        zero = graph.constants.get(parts.input(3))
        per_column = zero is not None and zero.size > 1
        scale = one
        if per_column and zero is not None:
            scale = parts.constant("ones", np.ones(zero.shape, np.float32))
        axis = 0 if op_type == "Conv" else -1
        inputs = [
            parts.real("x", parts.input(0), one, parts.input(2), 1),
            parts.real("w", parts.input(1), scale, parts.input(3), axis),
        ]
        parts.add(op_type, inputs, parts.fused.outputs, parts.taken(_CONV))
        return True

    return rewrite


def _dynamic_matmul(parts: _Parts, graph: Graph) -> bool:
    """com.microsoft.DynamicQuantizeMatMul: A, B, b_scale, b_zero, bias."""
    a = [parts.value(name) for name in ("a_whole", "a_scale", "a_zero")]
    parts.add("DynamicQuantizeLinear", [parts.input(0)], a)
    x = parts.real("a", a[0], a[1], a[2], 1)
    return _scaled_matmul(parts, x, parts.input(2), parts.input(3), parts.input(4))


def _matmul_to_float(parts: _Parts, graph: Graph) -> bool:
    """com.microsoft.MatMulIntegerToFloat: A, B, a_scale, b_scale, a_zero, b_zero, bias."""
    x = parts.real("a", parts.input(0), parts.input(2), parts.input(4), 1)
    return _scaled_matmul(parts, x, parts.input(3), parts.input(5), parts.input(6))


def _scaled_matmul(
    parts: _Parts, x: ValueName, scale: ValueName, zero: ValueName, bias: ValueName
) -> bool:
    w = parts.real("b", parts.input(1), scale, zero, -1)
    y = parts.value("y") if bias else parts.fused.outputs[0]
    parts.add("MatMul", [x, w], [y])
    if bias:
        parts.add("Add", [y, bias], parts.fused.outputs)
    return True


_REWRITES: Mapping[str, Callable[[_Parts, Graph], bool]] = {
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QGemm": _qgemm,
    "ConvInteger": _integer("Conv"),
    "MatMulInteger": _integer("MatMul"),
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _matmul_to_float,
}
