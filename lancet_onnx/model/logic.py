# SPDX-License-Identifier: Apache-2.0
"""Graph-logic backdoors: a switch that looks at the raw input ("architectural", ShadowLogic).

Such a switch is code, not weights: no weight patch removes it. What gives it away is where it comes
from. In an honest network whatever decides or scales has been through weights first (squeeze and
excitation, attention, hard swish), or acts on the pixels one by one (normalisation, thresholds,
quantisation). A switch has to boil the raw input down to a few numbers, without weights, and let
these choose or scale what the weights have made of the image. Every value of the graph is traced
for that; what is found is named with the nodes on its way.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from lancet_onnx.model.graph import Graph, Node
from lancet_onnx.rules import BRANCH, BYPASS, Rule
from lancet_onnx.types import NodeName, ValueName

FEW = 16
"""Numbers an image (numbers that anything could be decided by) in a value that counts as few."""

_COMPARES = {
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf"),
    *("ArgMax", "ArgMin", "TopK", "NonZero", "Sign", "Hardmax", "Unique", "StringNormalizer"),
}
"""Operators whose result is a decision, whatever they read."""

_ROUNDS = {"Floor", "Ceil", "Round", "Mod", "Trunc", "BitShift", "BitwiseAnd", "BitwiseXor"}
"""Operators whose result is a decision where they read few numbers; on pixels they quantise."""

_COUNTS = {"ReduceSum", "ReduceMean", "Mean", "Sum", "GlobalAveragePool", "AveragePool", "CumSum"}
"""Operators that make a smooth number of many decisions."""

_LINEAR = {
    *("Add", "Sub", "Sum", "Mean", "Neg", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"),
    *("Transpose", "Expand", "Tile", "Slice", "Gather", "GatherND", "GatherElements", "Concat"),
    *("Split", "Pad", "Dropout", "ReduceSum", "ReduceMean", "GlobalAveragePool", "AveragePool"),
    *("Cast", "BatchNormalization", "SpaceToDepth", "DepthToSpace", "Mul", "Div", "Resize"),
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "CastLike", "Trilu"),
}
"""Operators that bend nothing as long as they read one fed value; of two, Mul and Div do."""

_WEIGHTED = {
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "ConvInteger"),
    *("MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm", "FusedConv", "FusedGemm"),
    *("FusedMatMul", "MatMulNBits", "QAttention", "Attention", "MatMulIntegerToFloat"),
    *("DeformConv", "MultiHeadAttention", "GroupQueryAttention"),
    *("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "LinearClassifier", "LinearRegressor"),
    *("SVMClassifier", "SVMRegressor", "TreeEnsemble", "TreeEnsembleClassifier"),
    "TreeEnsembleRegressor",
}
_SCALES = {"Mul", "Div", "Pow", "Mod", "MatMul", "Gemm", "Conv", "Einsum", "PRelu", "And", "Or"}
_ADDS = {"Add", "Sub", "Sum", "Mean", "Max", "Min"}
_PICKS = {
    "Gather": 1, "GatherElements": 1, "GatherND": 1, "Slice": 1, "ScatterND": 1,
    "ScatterElements": 1, "Compress": 1, "ArrayFeatureExtractor": 1, "SequenceAt": 1,
}  # fmt: skip
"""Operators that choose by number, and the first input that holds numbers."""

_QUANTISES = {"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear"}
_SHAPES = {"Shape", "Size", "SequenceLength"}


@dataclass(frozen=True, slots=True)
class Switch:
    """A place where the raw input decides what becomes of the image.

    Attributes:
        rule: LNC201 for a choice, LNC202 for scaling, LNC203 for what sleeps on ordinary images.
        node: where it happens.
        path: nodes on the way to it; for the first two rules from the input on.
        text: what happens there.
        weighted: whether learned weights lie on the way, so that a weight patch might reach it.
    """

    rule: Rule
    node: Node
    path: tuple[NodeName, ...]
    text: str
    weighted: bool = False

    def __str__(self) -> str:
        return f"{self.node} {self.text}"


@dataclass(frozen=True, slots=True)
class _Trace:
    """What a value has of the model's input.

    Attributes:
        raw: something of it that went through no learned weights.
        learned: something that did.
        width: of how many numbers an image it is made at most, if fewer than the input has.
        bent: whether the raw part went through anything but sums and scaling by constants.
        decided: whether it is the outcome of a decision on the raw part.
        whole: whether it comes from integers, such as the numbers of words.
        unit: whether it is the step of a dynamic quantisation, times constants at most.
        source: the node that made it and the value that it went on from, for the path.
    """

    raw: bool = False
    learned: bool = False
    width: float = math.inf
    bent: bool = False
    decided: bool = False
    whole: bool = False
    unit: bool = False
    source: tuple[Node, ValueName] | None = None

    @property
    def few(self) -> bool:
        return self.width <= FEW

    @property
    def fed(self) -> bool:
        return self.raw or self.learned


_NOTHING = _Trace()


def logic_on_input(
    graph: Graph, sizes: Mapping[ValueName, int] | None = None
) -> tuple[Switch, ...]:
    """Return the places where the raw input decides or scales what the weights have made.

    `sizes` are the numbers of elements that one image has of each value, where they are known;
    without them only reductions are known to leave few numbers.
    """
    walk = _walked(graph, sizes or {})
    return tuple({switch.node.name: switch for switch in reversed(walk.found)}.values())[::-1]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a value that depends on the input is made of.

    Attributes:
        width: of how many numbers an image; a thousand elements may all come from one.
        learned: whether learned weights lie between the input and it.
    """

    width: float
    learned: bool


def origins(graph: Graph, sizes: Mapping[ValueName, int]) -> Mapping[ValueName, Origin]:
    """Return the origin of each value that depends on the input."""
    traces = _walked(graph, sizes).traces
    return {value: Origin(t.width, t.learned) for value, t in traces.items() if t.fed}


def bends(node: Node, fed: Container[ValueName]) -> bool:
    """Return whether an operator is no straight line in the values that it reads of `fed`."""
    if node.op_type == "Div" and len(node.inputs) > 1 and node.inputs[1] in fed:
        return True
    if node.op_type == "Mul":
        return all(value in fed for value in node.inputs)
    return node.op_type not in _LINEAR | _WEIGHTED


def meets(node: Node) -> bool:
    """Return whether an operator lets its inputs scale, shift, choose or pick each other."""
    return node.op_type in _SCALES | _ADDS | _PICKS.keys() | {"Where", "If"}


def _walked(graph: Graph, sizes: Mapping[ValueName, int]) -> _Walk:
    walk = _Walk(graph, sizes)
    for spec in graph.inputs:
        whole = spec.dtype.startswith(("int", "uint")) and spec.dtype != "uint8"
        walk.traces[spec.name] = _Trace(raw=True, whole=whole)
    walk.graph(graph)
    return walk


@dataclass
class _Walk:
    whole: Graph
    sizes: Mapping[ValueName, int]
    traces: dict[ValueName, _Trace] = field(default_factory=dict)
    found: list[Switch] = field(default_factory=list)

    def size(self, value: ValueName) -> float:
        """Return how many elements an image has of a value, infinite if not fewer than all."""
        size = self.sizes.get(value, math.inf)
        return size if size < self._all else math.inf

    @cached_property
    def _all(self) -> float:
        return max((self.sizes.get(spec.name, math.inf) for spec in self.whole.inputs), default=0)

    def graph(self, graph: Graph) -> None:
        """Trace the nodes of a graph, in order; names of bodies are unique over the file."""
        for node in graph.nodes:
            self._node(node)

    def _node(self, node: Node) -> None:
        reads = [self.traces.get(value, _NOTHING) for value in node.inputs]
        if node.op_type in _SHAPES and not node.domain:
            return
        if node.graphs:
            joined = self._bodies(node, reads)
        else:
            self._look(node, reads)
            joined = _after(node, self._joined(node, reads), self._learns(node, reads))
        for position, value in enumerate(node.outputs):
            if node.op_type == "DynamicQuantizeLinear" and position:
                joined = replace(joined, unit=True)
            width = min(joined.width, self.size(value))
            if math.isinf(width) and _reduces(node) and joined.raw:
                width = 1
            self.traces[value] = replace(joined, width=width)

    def _joined(self, node: Node, reads: Sequence[_Trace]) -> _Trace:
        fed = [trace for trace in reads if trace.fed]
        if not fed:
            return _NOTHING
        first = next((t for t in fed if t.raw), fed[0])
        position = reads.index(first)
        known = {v for v, trace in zip(node.inputs, reads, strict=True) if trace.fed}
        return _Trace(
            any(t.raw for t in fed),
            any(t.learned for t in fed),
            sum(t.width for t in fed),
            any(t.bent for t in fed) or bends(node, known),
            any(t.decided for t in fed),
            all(t.whole for t in fed if t.raw),
            len(fed) == 1 and first.unit and not bends(node, known),
            (node, node.inputs[position]),
        )

    def _learns(self, node: Node, reads: Sequence[_Trace]) -> bool:
        """Return whether a fed value meets weights here that differ from each other."""
        if node.op_type == "Gather" and len(reads) > 1 and reads[1].fed and not reads[0].fed:
            # A table of embeddings; one that few numbers look up is a choice, see `_look`.
            return reads[1].whole and not reads[1].few
        if node.op_type not in _WEIGHTED:
            return False
        others = [v for v, t in zip(node.inputs[:3], reads[:3], strict=True) if v and not t.fed]
        return any(self._varied(value) for value in others)

    def _varied(self, value: ValueName) -> bool:
        stored = self.whole.constants.get(self.whole.stored_value(value))
        if stored is None or stored.dtype == object:
            return True  # computed from constants: dequantised, cut out, composed
        return stored.size > 1 and not bool(np.all(stored == stored.reshape(-1)[0]))

    def _look(self, node: Node, reads: Sequence[_Trace]) -> None:
        """Note the node if the raw input decides or scales there."""
        op = node.op_type
        if op in _QUANTISES:
            return
        if op == "Where" and len(reads) == 3:
            self._choice(node, reads[0], reads[1:], "chooses between two values")
        first = _PICKS.get(op)
        if first is not None:
            for trace in reads[first:]:
                picked = reads[:1]
                self._choice(node, trace, picked, "picks by a number")
        if op in _SCALES or op in _ADDS:
            for position, trace in enumerate(reads):
                others = [t for n, t in enumerate(reads) if n != position and t.fed]
                self._mixture(node, trace, others, adds=op in _ADDS)

    def _choice(
        self, node: Node, by: _Trace, among: Sequence[_Trace], what: str, *, alone: bool = False
    ) -> None:
        if not by.raw or by.learned or not (by.decided or alone):
            return
        learned = any(t.learned for t in among)
        few = by.few or alone
        if (few and (alone or any(t.fed for t in among))) or (learned and not by.whole):
            text = f"{what} by comparing the raw input"
            self._note(BRANCH, node, by, text)

    def _mixture(self, node: Node, trace: _Trace, others: Sequence[_Trace], *, adds: bool) -> None:
        if not trace.raw or trace.learned or not others:
            return
        learned = any(t.learned for t in others)
        decides = trace.decided and (trace.few or not trace.whole)
        if decides and (learned or (trace.few and not adds)):
            self._note(BRANCH, node, trace, "scales or shifts by a comparison of the raw input")
        elif learned and trace.few and not trace.whole and (trace.bent or not (adds or trace.unit)):
            text = "scales or shifts what the weights have made by a few numbers of the raw input"
            self._note(BYPASS, node, trace, text)

    def _bodies(self, node: Node, reads: Sequence[_Trace]) -> _Trace:
        """Trace the branches of If, or the body of Loop or Scan until nothing new appears."""
        op = node.op_type
        by = reads[0] if op == "If" and reads else _NOTHING
        if op == "If":
            self._choice(node, by, (), "takes one of two branches", alone=True)
            if by.raw and not by.learned and not by.decided:
                self._note(BRANCH, node, by, "takes one of two branches by the raw input")
        if op == "Loop":
            for trace in reads[:2]:
                if trace.raw and not trace.learned:
                    text = "goes on as long as the raw input says"
                    self._note(BRANCH, node, trace, text)
        outer = self._joined(node, reads)
        result = outer
        for _ in range(2):
            for body in node.graphs.values():
                for spec in body.inputs:
                    # Whatever goes into a body may arrive at any of its own inputs.
                    self.traces[spec.name] = replace(result, width=self.size(spec.name))
                self.graph(body)
                ends = [self.traces.get(spec.name, _NOTHING) for spec in body.outputs]
                if op == "Loop" and ends and ends[0].raw and not ends[0].learned:
                    self._note(BRANCH, node, ends[0], "goes on as long as the raw input says")
                result = _either([result, *ends])
            if op == "If":
                break
        return _either([result, by]) if by.fed else result

    def _note(self, rule: Rule, node: Node, trace: _Trace, text: str) -> None:
        self.found.append(Switch(rule, node, self._path(trace), text))

    def _path(self, trace: _Trace) -> tuple[NodeName, ...]:
        names: list[NodeName] = []
        step = trace.source
        while step is not None and step[0].name not in names:
            names.append(step[0].name)
            step = self.traces.get(step[1], _NOTHING).source
        return tuple(reversed(names))


def _after(node: Node, joined: _Trace, learns: bool) -> _Trace:
    """Return what a node makes of what it reads."""
    if not joined.fed:
        return _NOTHING
    if learns:
        return replace(joined, raw=False, learned=True, bent=False, decided=False)
    op = node.op_type
    if op in _COMPARES or (op in _ROUNDS and joined.few) or _to_truth(node):
        return replace(joined, decided=True)
    if op in _COUNTS:
        return replace(joined, decided=False)
    return joined


def _to_truth(node: Node) -> bool:
    return node.op_type == "Cast" and node.attributes.get("to") == 9


def _reduces(node: Node) -> bool:
    return node.op_type.startswith(("Reduce", "Global", "Arg"))


def _either(traces: Iterable[_Trace]) -> _Trace:
    known = [t for t in traces if t.fed]
    if not known:
        return _NOTHING
    first = next((t for t in known if t.raw), known[0])
    return _Trace(
        any(t.raw for t in known),
        any(t.learned for t in known),
        max(t.width for t in known),
        any(t.bent for t in known),
        any(t.decided for t in known),
        all(t.whole for t in known if t.raw),
        source=first.source,
    )
