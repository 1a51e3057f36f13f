# SPDX-License-Identifier: Apache-2.0
"""Which weights may be edited, and where each one acts.

A layer is one weight (a leaf of the graph) with the Conv, ConvTranspose, Gemm or MatMul node that
multiplies it with its input, and the bias that shifts the node's output, if there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lancet_onnx.model import Graph, Node
from lancet_onnx.model.graph import REARRANGING
from lancet_onnx.runtime.classifier import LINEAR, Classifier
from lancet_onnx.runtime.tensors import unpackable
from lancet_onnx.types import ParamName, ValueName

_PASS_THROUGH = (*REARRANGING, "Cast")
_FLOATS = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True, slots=True, eq=False)
class Bias:
    """What shifts a layer's output, channel by channel.

    Adding ``d * scale`` (reshaped to the leaf's own shape) to the leaf moves the layer's output
    by d: the scale is 1 for a bias, gamma / sqrt(var + eps) for a normalisation's shift, and over
    the quantisation's step where the bias is quantised.
    """

    param: ParamName
    scale: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One editable weight.

    Attributes:
        node: the operator that multiplies the weight with its input.
        param: the weight's leaf, as the file names it.
        source: the value that the weight is multiplied with.
        output: the pre-activation value.
        channel_axis: axis of `output` along which the bias runs, counted from the last.
        bias: None where the file has none that serves this layer alone.
        size: number of weights.
        depth: 0 for the first layer of the network.
        zero: what stands for 0 among the leaf's numbers, of a shape that broadcasts to the leaf's;
            not 0 only where the weight is quantised with a zero point.
    """

    node: Node
    param: ParamName
    source: ValueName
    output: ValueName
    channel_axis: int
    bias: Bias | None
    size: int
    depth: int
    zero: NDArray[np.float32]

    def centred(self, weight: torch.Tensor) -> torch.Tensor:
        """Return how far the leaf's numbers are from what stands for 0."""
        return weight - torch.from_numpy(self.zero).to(weight)

    def scaled(self, weight: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
        """Return the leaf's numbers with the real weights multiplied by `factor`."""
        zero = torch.from_numpy(self.zero).to(weight)
        return zero + (weight - zero) * factor


def find_layers(classifier: Classifier) -> tuple[Layer, ...]:
    """Return the editable layers in execution order.

    A weight that several nodes share, or that a node multiplies with another weight, is left out:
    an edit there would act in places that were not looked at.
    """
    graph = classifier.graph
    path = classifier.module.nodes_between(
        [classifier.signature.input.name], classifier.signature.logits
    )
    layers: list[Layer] = []
    for node in path:
        if node.op_type not in LINEAR or len(node.inputs) < 2 or node.inputs[0] not in graph.fed:
            continue
        found = _origin(graph, node.inputs[1])
        if found is None or len(list(_readers(graph, found[0]))) != 1:
            continue
        param, zero = found
        array = graph.constants[param]
        if array.ndim < 2:
            continue
        layers.append(
            Layer(
                node,
                param,
                node.inputs[0],
                node.outputs[0],
                _channel_axis(graph, node),
                _bias(graph, node, classifier.shapes[node.outputs[0]]),
                int(array.size),
                len(layers),
                zero,
            )
        )
    return tuple(layers)


def unedited(classifier: Classifier) -> dict[ParamName, str]:
    """Return the weights (two axes or more) on the way to the logits that are no layer, and why."""
    graph, signature = classifier.graph, classifier.signature
    nodes = graph.between([signature.input.name], [signature.logits])
    read = {value for node in nodes for value in node.reads}
    layers = find_layers(classifier)
    known = {layer.param for layer in layers} | {layer.bias.param for layer in layers if layer.bias}
    return {
        name: _why_not(graph, name)
        for name, leaf in classifier.module.leaves.items()
        if name in read and name not in known and leaf.ndim > 1
    }


def _why_not(graph: Graph, name: ParamName) -> str:
    readers = list(_readers(graph, name))
    if unpackable(graph.constants[name].dtype):
        return "stored in 4 bits, which patches do not carry"
    if len(readers) > 1:
        return f"shared by {len(readers)} nodes: an edit would act in all of them"
    reader = readers[0]
    if reader.graphs:
        return f"used inside the {reader.op_type} '{reader.name}'"
    if reader.outputs[0] not in graph.fed:
        return f"one of several that the weight '{reader.outputs[0]}' is computed from"
    if reader.op_type in LINEAR and reader.inputs[0] not in graph.fed:
        return f"on the left of the {reader.op_type} '{reader.name}'"
    return f"feeds the {reader.op_type} '{reader.name}', which is no Conv, Gemm or MatMul"


def weight_leaf(graph: Graph, value: ValueName) -> ParamName | None:
    """Follow a weight back through Identity, Transpose and the like to the leaf that is stored."""
    found = _origin(graph, value)
    return None if found is None else found[0]


def _origin(graph: Graph, value: ValueName) -> tuple[ParamName, NDArray[np.float32]] | None:
    """Return the leaf that a weight is read from, and what stands for 0 among its numbers."""
    zero: NDArray[np.float32] | None = np.zeros((), np.float32)
    while value not in graph.constants:
        node = graph.producer.get(value)
        if node is None:
            return None
        value = node.inputs[0]
        if node.op_type == "DequantizeLinear" and value in graph.constants:
            zero = _zero(graph, node)
        elif node.op_type not in _PASS_THROUGH:
            return None
    dtype = graph.constants[value].dtype
    known = dtype.name in _FLOATS or (value in graph.quantised and not unpackable(dtype))
    return (ParamName(value), zero) if known and zero is not None else None


def _zero(graph: Graph, node: Node) -> NDArray[np.float32] | None:
    """Return the zero point of a quantised weight, to broadcast against it; None if unknown."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return np.zeros((), np.float32)
    stored = graph.constants.get(node.inputs[2])
    shape = graph.constants[node.inputs[0]].shape
    if stored is None:
        return None
    zero = stored.astype(np.float32)
    if zero.size == 1:
        return zero.reshape(())
    axis = node.attributes.get("axis", 1)
    if not isinstance(axis, int) or zero.shape != (shape[axis],):
        return None
    aligned = [1] * len(shape)
    aligned[axis] = -1
    return zero.reshape(aligned)


def _readers(graph: Graph, value: ValueName) -> Iterator[Node]:
    """Yield the nodes that read `value`, looking through pass-through nodes."""
    for node in graph.consumers.get(value, ()):
        unseen = (*_PASS_THROUGH, "DequantizeLinear")
        if node.op_type in unseen and node.outputs[0] not in graph.fed:
            yield from _readers(graph, node.outputs[0])
        else:
            yield node


def _bias(graph: Graph, node: Node, shape: tuple[int, ...]) -> Bias | None:
    axis = _channel_axis(graph, node)
    channels = shape[axis]
    if (
        node.op_type in ("Conv", "ConvTranspose", "Gemm")
        and len(node.inputs) > 2
        and node.inputs[2]
    ):
        beta = node.attributes.get("beta", 1.0)
        if not isinstance(beta, (int, float)) or not beta:
            return None
        unit = 1.0 / float(beta)
        return _own(graph, node.inputs[2], channels, np.full(channels, unit, np.float32))
    readers = graph.consumers.get(node.outputs[0], ())
    if len(readers) != 1:
        return None
    after = readers[0]
    if after.op_type == "Add":
        other = next((v for v in after.inputs if v != node.outputs[0]), None)
        stored = graph.constants.get(other) if other else None
        if other is None or stored is None or not _along(stored.shape, shape, axis):
            return None
        return _own(graph, other, channels, np.ones(channels, np.float32))
    if after.op_type == "BatchNormalization" and axis == 1 - len(shape):
        gamma, variance = (graph.constants.get(after.inputs[i]) for i in (1, 4))
        epsilon = after.attributes.get("epsilon", 1e-5)
        if gamma is None or variance is None or not isinstance(epsilon, float):
            return None
        deviation = np.sqrt(variance.astype(np.float64) + epsilon)
        scale = (gamma.astype(np.float64) / deviation).astype(np.float32)
        return _own(graph, after.inputs[2], channels, scale)
    return None


def _channel_axis(graph: Graph, node: Node) -> int:
    """Return the channel axis of a linear operator's output: behind it lie the spatial axes."""
    if not node.op_type.startswith("Conv"):
        return -1
    stored = graph.constants.get(node.inputs[1])
    leaf = _origin(graph, node.inputs[1])
    rank = stored.ndim if stored is not None else graph.constants[leaf[0]].ndim if leaf else 4
    return 1 - rank


def _along(stored: tuple[int, ...], shape: tuple[int, ...], axis: int) -> bool:
    """Return whether an addend of shape `stored` varies along the channel axis only."""
    aligned = (1,) * (len(shape) - len(stored)) + stored
    wanted = [1] * len(shape)
    wanted[axis] = shape[axis]
    return list(aligned) == wanted


def _own(graph: Graph, value: ValueName, channels: int, scale: NDArray[np.float32]) -> Bias | None:
    """Return the bias if it is a leaf of one number a channel that nothing else reads."""
    leaf = weight_leaf(graph, value)
    if leaf is None or graph.constants[leaf].size != channels:
        return None
    # Counted by use: simplifiers let one tensor be shift and mean of the same normalisation.
    uses = sum(node.inputs.count(value) for node in graph.consumers.get(value, ()))
    if uses != 1 or len(list(_readers(graph, leaf))) != 1:
        return None
    node = graph.producer.get(value)
    if node is not None and node.op_type == "DequantizeLinear":
        step = graph.constants.get(node.inputs[1])
        if step is None:
            return None
        return Bias(leaf, (scale / step.astype(np.float32).reshape(-1)).astype(np.float32))
    return Bias(leaf, scale)
