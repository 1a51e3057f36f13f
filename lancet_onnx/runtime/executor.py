# SPDX-License-Identifier: Apache-2.0
"""Run any part of a graph: feed some values, ask for others, override any leaf.

Nothing is kept between calls: a run holds its values in a local table and drops each after its
last use, so runs may nest (under vmap and grad) and memory is bounded by what is alive at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.model import Graph, Node
from lancet_onnx.model.fallback import convert_node
from lancet_onnx.ops import Operator, lookup
from lancet_onnx.runtime.tensors import to_torch
from lancet_onnx.types import NodeName, ParamName, ValueName

Values = Mapping[ValueName, torch.Tensor]
Params = Mapping[ParamName, torch.Tensor]

_Plan = tuple[tuple[Node, ...], tuple[tuple[ValueName, ...], ...]]


class GraphModule:
    """A graph whose leaves are the file's own float constants, ready to run and differentiate.

    Attributes:
        graph: the frozen graph.
        device: where float values live; integers (shapes, axes, indices) live on the CPU.
        leaves: every float constant by its ONNX name, in its ONNX layout; they require no
            gradient, a caller that wants one passes its own tensor in `params`.
    """

    def __init__(self, graph: Graph, device: torch.device) -> None:
        """Bind `graph` to `device`.

        Raises:
            UnsupportedError: naming every node whose operator version is not in the table.
        """
        found = {node.name: _find(node, graph) for node in graph.nodes}
        missing = [node for node in graph.nodes if found[node.name] is None]
        if missing:
            raise UnsupportedError(
                "operators that lancet-onnx does not compute: "
                + "; ".join(str(node) for node in missing[:5])
                + (f"; and {len(missing) - 5} more" if len(missing) > 5 else "")
                + ". `lancet-onnx inspect` lists them all"
            )
        self.graph = graph
        self.device = device
        operators = {name: entry for name, entry in found.items() if entry is not None}
        host = {
            node.inputs[i]
            for node in graph.nodes
            for i in operators[node.name].host
            if i < len(node.inputs)
        }
        cpu = torch.device("cpu")
        constants = {
            name: to_torch(array, cpu if name in host else device)
            for name, array in graph.constants.items()
        }
        self.leaves: dict[ParamName, torch.Tensor] = {
            ParamName(name): constants[name] for name in graph.leaves if name not in host
        }
        self._operators = operators
        self._plans: dict[tuple[frozenset[ValueName], tuple[ValueName, ...]], _Plan] = {}
        self._constants = constants
        self._fixed: dict[ValueName, torch.Tensor] = {}
        self._from_leaf = self._trace_leaves()
        self._fold()

    def run(
        self,
        feeds: Values,
        outputs: Sequence[ValueName],
        params: Params | None = None,
        nudges: Values | None = None,
    ) -> dict[ValueName, torch.Tensor]:
        """Compute `outputs` from `feeds`, with `params` in place of the leaves they name.

        `feeds` may be any values of the graph, so a suffix runs from cached inputs, through a cut
        set (`Graph.cut_set`). Only the nodes between are run. `nudges` are added to the values
        they name: the gradient of a result to a nudge of zeros is its gradient to that value,
        under vmap as well.

        Raises:
            UnsupportedError: an operator met something it does not compute exactly.
        """
        params = params or {}
        table: dict[ValueName, torch.Tensor] = dict(self._constants)
        table.update(params.items())
        stale = {value for name in params for value in self._from_leaf.get(name, ())}
        table.update((k, v) for k, v in self._fixed.items() if k not in stale)
        table.update(feeds)
        for value in (nudges or {}).keys() & feeds.keys():
            table[value] = table[value] + (nudges or {})[value]
        nodes, dead = self._plan(
            frozenset(feeds) | frozenset(self._fixed.keys() - stale), tuple(outputs)
        )
        for node, finished in zip(nodes, dead, strict=True):
            results = dict(zip(node.outputs, self._call(node, table), strict=False))
            for value in (nudges or {}).keys() & results.keys():
                results[value] = results[value] + (nudges or {})[value]
            table.update(results)
            for value in finished:
                table.pop(value, None)
        return {value: table[value] for value in outputs}

    def nodes_between(self, feeds: Iterable[ValueName], output: ValueName) -> tuple[Node, ...]:
        """Return the nodes that a run from `feeds` to `output` executes."""
        return self._plan(frozenset(feeds) | frozenset(self._fixed), (output,))[0]

    def _plan(self, given: frozenset[ValueName], outputs: tuple[ValueName, ...]) -> _Plan:
        plan = self._plans.get((given, outputs))
        if plan is None:
            nodes = self.graph.between(given, outputs)
            last: dict[ValueName, NodeName] = {}
            for node in nodes:
                last.update(dict.fromkeys([*node.inputs, *node.outputs], node.name))
            kept = set(outputs) | set(self.graph.constants)
            dying: dict[NodeName, list[ValueName]] = {}
            for value, name in last.items():
                if value not in kept:
                    dying.setdefault(name, []).append(value)
            plan = nodes, tuple(tuple(dying.get(node.name, ())) for node in nodes)
            self._plans[given, outputs] = plan
        return plan

    def _call(
        self, node: Node, table: Mapping[ValueName, torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        arguments = [table[value] if value else None for value in node.inputs]
        operator = self._operators[node.name]
        extra = {"n_outputs": len(node.outputs)} if operator.counts_outputs else {}
        try:
            result = operator.function(*arguments, **node.attributes, **extra)
        except UnsupportedError as error:
            raise UnsupportedError(f"{node}: {error}") from error
        except (TypeError, RuntimeError, ValueError, IndexError) as error:
            raise UnsupportedError(f"{node} could not be computed: {error}") from error
        return result if isinstance(result, tuple) else (result,)

    def _trace_leaves(self) -> dict[ParamName, tuple[ValueName, ...]]:
        """Map each leaf to the values computed from constants only, this leaf among them."""
        sources: dict[ValueName, set[ParamName]] = {name: {name} for name in self.leaves}
        for node in self.graph.nodes:
            if any(value in self.graph.fed for value in node.outputs):
                continue
            union = set().union(*(sources.get(value, set()) for value in node.inputs))
            sources.update((value, union) for value in node.outputs)
        derived: dict[ParamName, list[ValueName]] = {}
        for value, names in sources.items():
            for name in names:
                if value != name:
                    derived.setdefault(name, []).append(value)
        return {name: tuple(values) for name, values in derived.items()}

    def _fold(self) -> None:
        """Compute once what depends on no input: axes, transposed weights, tied copies."""
        table = dict(self._constants)
        with torch.no_grad():
            for node in self.graph.nodes:
                if node.has_graph or any(value in self.graph.fed for value in node.outputs):
                    continue
                if any(value in self.graph.fed for value in node.inputs):
                    continue
                results = dict(zip(node.outputs, self._call(node, table), strict=False))
                table.update(results)
                self._fixed.update(results)


def unsupported(graph: Graph) -> list[Node]:
    """Return the nodes that neither our table nor onnx2torch computes in their exact version."""
    return [node for node in graph.nodes if _find(node, graph) is None]


def _key(node: Node) -> tuple[str, str, int]:
    return node.domain, node.op_type, node.since_version


def _find(node: Node, graph: Graph) -> Operator | None:
    if node.has_graph:
        return None
    known = lookup(_key(node))
    if known is not None:
        return known
    converted = convert_node(node, graph)
    return None if converted is None else Operator(converted)
