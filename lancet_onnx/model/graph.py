# SPDX-License-Identifier: Apache-2.0
"""The frozen graph: nodes in execution order, constants, inputs and outputs; no protobuf inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.types import NodeName, ParamName, TensorSpec, ValueName

Array = NDArray[np.generic]
Attribute = int | float | str | bytes | list[int] | list[float] | list[str] | Array
"""An attribute's value; tensors are arrays. Sub-graphs have no form here: see `Node.has_graph`."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator call.

    `since_version` is the operator revision that the file's opset selects (`onnx.defs`), 0 for
    operators that the ONNX standard does not know.
    """

    name: NodeName
    op_type: str
    domain: str
    since_version: int
    inputs: tuple[ValueName, ...]
    outputs: tuple[ValueName, ...]
    attributes: Mapping[str, Attribute]
    has_graph: bool = False

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
        constants: every initializer and Constant node by value name, as stored.
        opsets: version per operator domain.
        metadata: the file's `metadata_props`.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    constants: Mapping[ValueName, Array]
    opsets: Mapping[str, int]
    metadata: Mapping[str, str]

    @cached_property
    def leaves(self) -> tuple[ParamName, ...]:
        """Names of all float constants: what a gradient, a score and a patch may speak of."""
        return tuple(
            ParamName(name) for name, array in self.constants.items() if is_float(array.dtype)
        )

    @cached_property
    def producer(self) -> Mapping[ValueName, Node]:
        """The node that computes each value."""
        return {output: node for node in self.nodes for output in node.outputs if output}

    @cached_property
    def consumers(self) -> Mapping[ValueName, tuple[Node, ...]]:
        """The nodes that read each value, each node once."""
        readers: dict[ValueName, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
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
            wanted.extend(value for value in node.inputs if value and value not in given)
        return tuple(node for node in self.nodes if node.name in needed)

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
        known = {spec.name for spec in self.inputs}
        for node in self.nodes:
            if any(value in known for value in node.inputs):
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
        pending = [value for node in suffix for value in node.inputs]
        while pending:
            value = pending.pop(0)
            if value in computed or value not in self.fed:
                continue
            if value in recompute:
                computed.add(value)
                pending.extend(self.producer[value].inputs)
            else:
                cut[value] = None
        return tuple(cut)


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """Return whether `dtype` is a floating type, ml_dtypes' bfloat16 and float8 included."""
    return dtype.kind == "f" or "float" in dtype.name
