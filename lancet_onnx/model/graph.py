# SPDX-License-Identifier: Apache-2.0
"""The frozen graph: nodes in execution order, constants, inputs and outputs; no protobuf inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.types import NodeName, ParamName, TensorSpec, ValueName

Array = NDArray[np.generic]
Attribute = int | float | str | bytes | list[int] | list[float] | list[str] | Array
"""An attribute's value; tensors are arrays. Branches and loop bodies are in `Node.graphs`."""

REARRANGING = frozenset({"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
"""Operators whose result holds the same numbers as their first input."""

_QUANTISED_TYPES = frozenset({"int4", "uint4", "int8", "uint8", "int16", "uint16", "int32"})
_QUANTISED_INPUTS = {
    "DequantizeLinear": (0,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (3,),
    "ConvInteger": (1,),
    "MatMulInteger": (1,),
    "DynamicQuantizeMatMul": (1,),
    "MatMulIntegerToFloat": (1,),
    "QGemm": (3, 6),
    "QAttention": (1,),
}
"""Positions of quantised weights and biases among the inputs of operators that know scales."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator call.

    `since_version` is the operator revision that the file's opset selects (`onnx.defs`), 0 for
    operators that the ONNX standard does not know, 1 for those of com.microsoft. `graphs` holds
    the bodies of If, Loop and Scan by attribute name; `unreadable` names an attribute of a kind
    that has no form here, empty for none.
    """

    name: NodeName
    op_type: str
    domain: str
    since_version: int
    inputs: tuple[ValueName, ...]
    outputs: tuple[ValueName, ...]
    attributes: Mapping[str, Attribute]
    graphs: Mapping[str, Graph] = field(default_factory=dict)
    unreadable: str = ""

    @property
    def reads(self) -> tuple[ValueName, ...]:
        """The values that must be there before the node runs: its inputs and what bodies use."""
        if not self.graphs:
            return self.inputs
        return (*self.inputs, *(v for graph in self.graphs.values() for v in graph.captured))

    def __str__(self) -> str:
        operator = f"{self.domain or 'ai.onnx'}.{self.op_type}-{self.since_version}"
        return f"node '{self.name}' ({operator})"


@dataclass(frozen=True)
class Graph:
    """A model's graph as lancet-onnx sees it.

    Attributes:
        nodes: in an order in which every input is computed before it is used; Constant nodes are
            not among them but in `constants`.
        inputs: what a caller feeds (initializers that the file also lists as inputs are left out).
        outputs: in the file's order.
        constants: every initializer and Constant node by value name, as stored; those of branches
            and functions as well.
        opsets: version per operator domain.
        metadata: the file's `metadata_props`.
        captured: for a body: the values of the graphs around it that it reads.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    constants: Mapping[ValueName, Array]
    opsets: Mapping[str, int]
    metadata: Mapping[str, str]
    captured: tuple[ValueName, ...] = ()

    @cached_property
    def leaves(self) -> tuple[ParamName, ...]:
        """Names of what a gradient, a score and a patch may speak of.

        These are all float constants, and the integer ones that are quantised weights.
        """
        return tuple(
            ParamName(name)
            for name, array in self.constants.items()
            if is_float(array.dtype) or name in self.quantised
        )

    @cached_property
    def quantised(self) -> frozenset[ValueName]:
        """Integer constants that stand for real weights: operators scale or multiply them."""
        found = {self.stored_value(value) for value in self._scaled()}
        return frozenset(
            value
            for value in found
            if value in self.constants and self.constants[value].dtype.name in _QUANTISED_TYPES
        )

    def _scaled(self) -> Iterator[ValueName]:
        """Yield what operators of quantisation read as weights, in bodies as well."""
        for node in self.nodes:
            for position in _QUANTISED_INPUTS.get(node.op_type, ()):
                if position < len(node.inputs):
                    yield node.inputs[position]
            for body in node.graphs.values():
                yield from (body.stored_value(value) for value in body._scaled())

    def stored_value(self, value: ValueName) -> ValueName:
        """Follow a value back through operators that only rearrange or rename it."""
        while value not in self.constants:
            node = self.producer.get(value)
            if node is None or node.op_type not in REARRANGING:
                break
            value = node.inputs[0]
        return value

    @cached_property
    def producer(self) -> Mapping[ValueName, Node]:
        """The node that computes each value."""
        return {output: node for node in self.nodes for output in node.outputs if output}

    @cached_property
    def consumers(self) -> Mapping[ValueName, tuple[Node, ...]]:
        """The nodes that read each value, each node once."""
        readers: dict[ValueName, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.reads):
                if value:
                    readers.setdefault(value, []).append(node)
        return {value: tuple(nodes) for value, nodes in readers.items()}

    def between(self, feeds: Iterable[ValueName], outputs: Iterable[ValueName]) -> tuple[Node, ...]:
        """Return the nodes needed for `outputs` when `feeds` are given, in execution order."""
        given = set(feeds) | set(self.constants)
        wanted = [value for value in outputs if value not in given]
        needed: set[NodeName] = set()
        while wanted:
            node = self.producer.get(wanted.pop())
            if node is None or node.name in needed:
                continue
            needed.add(node.name)
            wanted.extend(value for value in node.reads if value and value not in given)
        return tuple(node for node in self.nodes if node.name in needed)

    def leading_to(self, outputs: Iterable[ValueName]) -> Graph:
        """Return the part of the graph that `outputs` need; constants all stay."""
        return replace(self, nodes=self.between((), outputs))

    def downstream(self, start: Iterable[Node]) -> frozenset[NodeName]:
        """Return the names of `start` and of every node that reads, directly or not, from them."""
        reached: set[NodeName] = set()
        pending = list(start)
        while pending:
            node = pending.pop()
            if node.name in reached:
                continue
            reached.add(node.name)
            for output in node.outputs:
                pending.extend(self.consumers.get(output, ()))
        return frozenset(reached)

    @cached_property
    def fed(self) -> frozenset[ValueName]:
        """Every value that depends on a graph input."""
        known = {spec.name for spec in self.inputs} | set(self.captured)
        for node in self.nodes:
            if any(value in known for value in node.reads):
                known.update(node.outputs)
        return frozenset(known)

    def cut_set(
        self, start: Iterable[Node], output: ValueName, recompute: frozenset[ValueName]
    ) -> tuple[ValueName, ...]:
        """Return what must be fed so that `start` and all that follows can be run up to `output`.

        One tensor is not enough where connections skip the starting nodes (residual networks).
        Values in `recompute` (shapes, which belong to one batch size) are traced back instead to
        the values that they are computed from.
        """
        reached = self.downstream(start)
        suffix = [node for node in self.between((), [output]) if node.name in reached]
        computed = {value for node in suffix for value in node.outputs}
        cut: dict[ValueName, None] = {}
        pending = [value for node in suffix for value in node.reads]
        while pending:
            value = pending.pop(0)
            if value in computed or value not in self.fed:
                continue
            if value in recompute:
                computed.add(value)
                pending.extend(self.producer[value].reads)
            else:
                cut[value] = None
        return tuple(cut)


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """Return whether `dtype` is a floating type, ml_dtypes' bfloat16 and float8 included."""
    return dtype.kind == "f" or "float" in dtype.name
