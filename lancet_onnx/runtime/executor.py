# SPDX-License-Identifier: Apache-2.0
"""Run any part of a graph: feed some values, ask for others, override any leaf.

Nothing is kept between calls: a run holds its values in a local table and drops each after its
last use, so runs may nest (under vmap and grad) and memory is bounded by what is alive at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.model import Graph, Node
from lancet_onnx.ops import Operator, OpResult
from lancet_onnx.ops.quantization import whole_numbers
from lancet_onnx.runtime.binding import find, refusals
from lancet_onnx.runtime.control import run_control
from lancet_onnx.runtime.fuse import Fused, fuse
from lancet_onnx.runtime.plan import Plan, Step, make_plan
from lancet_onnx.runtime.tensors import carried, computable, to_torch, unpackable, widen_half
from lancet_onnx.types import ParamName, ValueName

Values = Mapping[ValueName, torch.Tensor]
Params = Mapping[ParamName, torch.Tensor]

_Compute = Callable[[Values], OpResult]
_PlanKey = tuple[
    frozenset[ValueName], frozenset[ParamName], frozenset[ValueName], tuple[ValueName, ...]
]


class GraphModule:
    """A graph whose leaves are the file's own constants, ready to run and differentiate.

    Half-precision values are computed in float32, their leaves being float32 master copies, much
    as onnxruntime does on a CPU. Quantised weights are float leaves of whole numbers; what
    overrides one is rounded and clamped first, as it is on writing.

    Attributes:
        graph: the frozen graph.
        device: where float values live; integers (shapes, axes, indices) live on the CPU.
        leaves: every float or quantised constant by its ONNX name, in its ONNX layout; they
            require no gradient, a caller that wants one passes its own tensor in `params`.
    """

    def __init__(self, graph: Graph, device: torch.device) -> None:
        """Bind `graph` to `device`.

        Raises:
            UnsupportedError: naming every node that is not computed.
        """
        missing = refusals(graph)
        if missing:
            raise UnsupportedError(
                "operators that lancet-onnx does not compute: "
                + "; ".join(str(refusal) for refusal in missing[:5])
                + (f"; and {len(missing) - 5} more" if len(missing) > 5 else "")
                + ". `lancet-onnx inspect` lists them all"
            )
        self.graph = graph
        self.device = device
        self._host: set[ValueName] = set()
        self._compute = {node.name: self._bind(node) for node in graph.nodes}
        constants: dict[ValueName, torch.Tensor] = {}
        for name, array in graph.constants.items():
            place = torch.device("cpu") if name in self._host else device
            if name in graph.quantised:
                constants[name] = carried(array, place)
            elif computable(array.dtype) or unpackable(
                array.dtype
            ):  # a node that reads anything else was refused
                constants[name] = widen_half(to_torch(array, place))
        self.leaves: dict[ParamName, torch.Tensor] = {
            ParamName(name): constants[name]
            for name in graph.leaves
            if name in constants and name not in self._host
        }
        self._plans: dict[_PlanKey, Plan] = {}
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
        nudges = nudges or {}
        plan = self._plan(frozenset(feeds), frozenset(params), frozenset(nudges), tuple(outputs))
        table = {name: self._known(name) for name in plan.constants}
        table.update((name, self._as_written(name, value)) for name, value in params.items())
        table.update((name, widen_half(value)) for name, value in feeds.items())
        for value in nudges.keys() & feeds.keys():
            table[value] = table[value] + nudges[value]
        for step in plan.steps:
            self._run_step(step, table, nudges, feeds)
        return {value: table[value] for value in outputs}

    def nodes_between(self, feeds: Iterable[ValueName], output: ValueName) -> tuple[Node, ...]:
        """Return the nodes that a run from `feeds` to `output` executes."""
        return self._plan(frozenset(feeds), frozenset(), frozenset(), (output,)).nodes

    def _bind(self, node: Node) -> _Compute:
        """Return what computes the node from a table of values."""
        if node.graphs:
            return self._bind_control(node)
        found = find(node, self.graph)
        if isinstance(found, Graph):
            names = [spec.name for spec in found.inputs]
            outputs = [spec.name for spec in found.outputs[: len(node.outputs)]]
            run = GraphModule(found, self.device)
            given = [(a, b) for a, b in zip(names, node.inputs, strict=False) if b]

            def by_definition(table: Values) -> OpResult:
                results = run.run({inner: table[outer] for inner, outer in given}, outputs)
                return tuple(results[name] for name in outputs)

            return by_definition
        assert found is not None  # noqa: S101 - what is missing was refused
        self._host.update(node.inputs[i] for i in found.host if i < len(node.inputs))
        return _bind_operator(node, found)

    def _bind_control(self, node: Node) -> _Compute:
        modules = {name: GraphModule(body, self.device) for name, body in node.graphs.items()}

        def control(table: Values) -> OpResult:
            def body(name: str) -> Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]:
                module = modules[name]
                graph = module.graph
                around = {value: table[value] for value in graph.captured}
                outputs = [spec.name for spec in graph.outputs]

                def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
                    formal = (spec.name for spec in graph.inputs)
                    given = dict(zip(formal, inputs, strict=False))
                    results = module.run({**around, **given}, outputs)
                    return [results[value] for value in outputs]

                return run

            inputs = [table[value] if value else None for value in node.inputs]
            return run_control(node, inputs, {name: body(name) for name in modules})

        return control

    def _plan(
        self,
        feeds: frozenset[ValueName],
        params: frozenset[ParamName],
        nudges: frozenset[ValueName],
        outputs: tuple[ValueName, ...],
    ) -> Plan:
        plan = self._plans.get((feeds, params, nudges, outputs))
        if plan is None:
            stale = {value for name in params for value in self._from_leaf.get(name, ())}
            fixed = self._fixed.keys() - stale
            nodes = self.graph.between(feeds | fixed, outputs)
            known = (self._constants.keys() | fixed) - feeds
            constant = known - params
            fused = fuse(
                nodes, nudges.union(outputs), lambda v: self._known(v) if v in constant else None
            )
            plan = make_plan(nodes, outputs, known, fused)
            self._plans[feeds, params, nudges, outputs] = plan
        return plan

    def _known(self, name: ValueName) -> torch.Tensor:
        found = self._constants.get(name)
        return self._fixed[name] if found is None else found

    def _as_written(self, name: ParamName, value: torch.Tensor) -> torch.Tensor:
        """Return an override as the file would hold it, gradients passing straight through."""
        if name not in self.graph.quantised:
            return widen_half(value)
        return whole_numbers(value, getattr(torch, self.graph.constants[name].dtype.name))

    def _run_step(
        self, step: Step, table: dict[ValueName, torch.Tensor], nudges: Values, feeds: Values
    ) -> None:
        """Compute a step into `table`; nothing outside it holds a result when this returns."""
        joined = None if step.fused is None else _run_fused(step.fused, table)
        if joined is not None:
            value = step.nodes[-1].outputs[0]
            table[value] = joined + nudges[value] if value in nudges else joined
            for value in step.finished:
                del table[value]
            return
        for node, finished in zip(step.nodes, step.dead, strict=True):
            for value, result in zip(node.outputs, self._run_node(node, table), strict=False):
                if value not in feeds:  # of a node that is run for another of its outputs
                    table[value] = result + nudges[value] if value in nudges else result
            for value in finished:
                del table[value]

    def _run_node(self, node: Node, table: Values) -> tuple[torch.Tensor, ...]:
        try:
            result = self._compute[node.name](table)
        except UnsupportedError as error:
            raise UnsupportedError(f"{node}: {error.text}", error.rule) from error
        except (TypeError, RuntimeError, ValueError, IndexError) as error:
            raise UnsupportedError(f"{node} could not be computed: {error}") from error
        count = len(result) if isinstance(result, tuple) else 1
        if any(node.outputs[count:]):
            raise UnsupportedError(
                f"{node} has {len(node.outputs)} outputs, of which {count} can be computed"
            )
        if isinstance(result, torch.Tensor):
            return (widen_half(result),)
        if isinstance(result, list):
            # A sequence is one value; only operators on sequences read it.
            return (cast(torch.Tensor, list(map(widen_half, result))),)
        return tuple(map(widen_half, result))

    def _trace_leaves(self) -> dict[ParamName, tuple[ValueName, ...]]:
        """Map each leaf to the values computed from constants only, this leaf among them."""
        sources: dict[ValueName, set[ParamName]] = {name: {name} for name in self.leaves}
        for node in self.graph.nodes:
            if any(value in self.graph.fed for value in node.outputs):
                continue
            union = set().union(*(sources.get(value, set()) for value in node.reads))
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
                if any(value in self.graph.fed for value in (*node.outputs, *node.reads)):
                    continue
                results = dict(zip(node.outputs, self._run_node(node, table), strict=False))
                table.update(results)
                self._fixed.update(results)


def _run_fused(fused: Fused, table: Values) -> torch.Tensor | None:
    try:
        return fused.function(*[table[value] for value in fused.inputs])
    except (TypeError, RuntimeError, ValueError, IndexError):
        return None  # computed node by node it works, or is refused by name


def _bind_operator(node: Node, operator: Operator) -> _Compute:
    function, inputs = operator.function, node.inputs
    named: dict[str, object] = dict(node.attributes)
    if operator.counts_outputs:
        named["n_outputs"] = len(node.outputs)

    def compute(table: Values) -> OpResult:
        return function(*[table[value] if value else None for value in inputs], **named)

    return compute
