# SPDX-License-Identifier: Apache-2.0
"""Several inputs of one shape seen as one: token ids, their mask and their kinds, side by side.

Everything that reasons about samples knows one array, (N, ...). A text classifier takes two or
three of the same shape; they are stacked along a new second axis, and nodes in front of the graph
take them apart again. The file is not touched: onnxruntime gets them apart as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.errors import ModelError
from lancet_onnx.model import Graph, Node
from lancet_onnx.types import Dimension, NodeName, TensorSpec, ValueName

_NUMBERS = {"float32": 1, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}


def bundled(graph: Graph) -> tuple[Graph, tuple[TensorSpec, ...]]:
    """Return the graph with one input, and the inputs that it stands for (none if it had one).

    Raises:
        ModelError: inputs of different shapes, which make no single array.
    """
    parts = graph.inputs
    if len(parts) < 2:
        return graph, ()
    shapes = {spec.shape[1:] if spec.shape else None for spec in parts}
    rest = parts[0].shape[1:] if parts[0].shape else ()
    if len(shapes) > 1 or not rest or any(spec.dtype not in _NUMBERS for spec in parts):
        named = ", ".join(f"'{spec.name}' {spec.dtype} {spec.shape}" for spec in parts)
        raise ModelError(
            f"the model has {len(parts)} inputs ({named}); expected one, or several of one shape "
            "such as token ids and their mask"
        )
    batches = {spec.shape[0] for spec in parts if spec.shape}
    batch: Dimension = batches.pop() if len(batches) == 1 else None
    whole = all("int" in spec.dtype or spec.dtype == "bool" for spec in parts)
    name = ValueName("lancet.inputs")
    spec = TensorSpec(name, "int64" if whole else "float32", (batch, len(parts), *rest))
    nodes: list[Node] = []
    constants = dict(graph.constants)
    for number, part in enumerate(parts):
        index, taken = ValueName(f"lancet.part{number}"), ValueName(f"lancet.{part.name}")
        constants[index] = np.array(number, np.int64)
        nodes.append(_node("Gather", (name, index), taken, {"axis": 1}))
        nodes.append(_node("Cast", (taken,), part.name, {"to": _NUMBERS[part.dtype]}))
    more = replace(graph, inputs=(spec,), nodes=(*nodes, *graph.nodes), constants=constants)
    return more, parts


def taken_apart(
    inputs: NDArray[np.generic], spec: TensorSpec, parts: tuple[TensorSpec, ...]
) -> dict[str, NDArray[np.generic]]:
    """Return what the file's own inputs get of a stacked array, in their own types."""
    if not parts:
        return {spec.name: inputs.astype(spec.dtype, copy=False)}
    return {
        part.name: inputs[:, number].astype(part.dtype, copy=False)
        for number, part in enumerate(parts)
    }


def _node(
    op_type: str, inputs: tuple[ValueName, ...], output: ValueName, named: Mapping[str, int]
) -> Node:
    return Node(NodeName(f"lancet.{output}"), op_type, "", 13, inputs, (output,), dict(named))
