# SPDX-License-Identifier: Apache-2.0
"""What a run executes, in which steps, and after which of them each value can be forgotten."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lancet_onnx.model import Node
from lancet_onnx.runtime.fuse import Fused
from lancet_onnx.types import NodeName, ValueName


@dataclass(frozen=True, slots=True)
class Step:
    """One node, or several that may be computed at once.

    Attributes:
        nodes: in order.
        dead: per node, the values that nothing reads after it.
        fused: what computes them at once.
        finished: the values that nothing reads after that.
    """

    nodes: tuple[Node, ...]
    dead: tuple[tuple[ValueName, ...], ...]
    fused: Fused | None
    finished: tuple[ValueName, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one combination of feeds, overrides, nudges and outputs runs.

    Attributes:
        nodes: in the graph's order.
        steps: the same nodes.
        constants: stored and folded values that the nodes read.
    """

    nodes: tuple[Node, ...]
    steps: tuple[Step, ...]
    constants: tuple[ValueName, ...]


def make_plan(
    nodes: Sequence[Node],
    outputs: Collection[ValueName],
    known: Collection[ValueName],
    fused: Mapping[NodeName, Fused],
) -> Plan:
    """Return the plan that runs `nodes`, those of each of `fused` where its last one stands.

    `known` values belong to the graph; a run never forgets them, nor `outputs`.
    """
    joined = {inner.name for run in fused.values() for inner in run.nodes[:-1]}
    runs = [
        fused[node.name].nodes if node.name in fused else (node,)
        for node in nodes
        if node.name not in joined
    ]
    last: dict[ValueName, NodeName] = {}
    for node in (node for run in runs for node in run):
        last.update(dict.fromkeys([*node.reads, *node.outputs], node.name))
    dying: dict[NodeName, list[ValueName]] = {}
    for value, name in last.items():
        if value and value not in outputs and value not in known:
            dying.setdefault(name, []).append(value)
    steps = tuple(_step(run, dying, fused.get(run[-1].name)) for run in runs)
    constants = tuple(value for value in {*last, *outputs} if value in known)
    return Plan(tuple(nodes), steps, constants)


def _step(
    nodes: tuple[Node, ...], dying: Mapping[NodeName, Sequence[ValueName]], fused: Fused | None
) -> Step:
    dead = tuple(tuple(dying.get(node.name, ())) for node in nodes)
    inner = {value for node in nodes[:-1] for value in node.outputs}
    finished = tuple(value for values in dead for value in values if value not in inner)
    return Step(nodes, dead, fused, finished)
