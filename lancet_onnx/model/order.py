# SPDX-License-Identifier: Apache-2.0
"""Nodes in an order in which every value is computed before it is read."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from pathlib import Path

from lancet_onnx.errors import ModelError
from lancet_onnx.model.graph import Graph, Node
from lancet_onnx.rules import BROKEN_GRAPH
from lancet_onnx.types import ValueName


def in_order(graph: Graph, path: Path, constants: Iterable[ValueName]) -> tuple[Node, ...]:
    """Return the nodes of `graph` sorted; files list them in any order (A. B. Kahn 1962).

    `constants` are there from the start, as are the graph's inputs and what it captures.

    Raises:
        ModelError: a value that nothing computes, or a cycle.
    """
    nodes = graph.nodes
    known = {spec.name for spec in graph.inputs} | set(constants) | set(graph.captured)
    computed = {output for node in nodes for output in node.outputs if output}
    readers: dict[ValueName, list[int]] = {}
    missing: list[int] = []
    for position, node in enumerate(nodes):
        wanted = {value for value in node.reads if value and value not in known}
        for value in wanted:
            if value not in computed:
                raise ModelError(
                    f"{path}: {node} reads '{value}', which nothing computes", BROKEN_GRAPH
                )
            readers.setdefault(value, []).append(position)
        missing.append(len(wanted & computed))
    ready = [position for position, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    ordered: list[Node] = []
    while ready:
        node = nodes[heapq.heappop(ready)]
        ordered.append(node)
        for output in dict.fromkeys(node.outputs):
            for position in readers.get(output, ()):
                missing[position] -= 1
                if missing[position] == 0:
                    heapq.heappush(ready, position)
    if len(ordered) < len(nodes):
        stuck = nodes[next(position for position, count in enumerate(missing) if count)]
        raise ModelError(
            f"{path}: {stuck} waits for its own result; the graph has a cycle", BROKEN_GRAPH
        )
    return tuple(ordered)
