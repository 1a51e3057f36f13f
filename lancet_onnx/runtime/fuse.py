# SPDX-License-Identifier: Apache-2.0
"""Runs of nodes that spell out one torch function, and the function itself.

Exporters write SiLU, GELU, layer normalisation, a linear layer or attention as several nodes; torch
computes each in one pass, which takes less time and memory. Only nodes whose values nobody else
reads are joined, and a constant that is fed or overridden is no constant. Where a run turns out
not to be what it looked like (other ranks, types, devices), its nodes are computed one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from torch.nn import functional

from lancet_onnx.model import Node
from lancet_onnx.types import NodeName, ValueName

Fast = Callable[..., torch.Tensor | None]
Known = Callable[[ValueName], torch.Tensor | None]
"""Returns a constant that counts in this run, None for what is computed, fed or overridden."""

Pattern: TypeAlias = "str | float | tuple[Pattern, ...] | list[Pattern]"
"""What a value may be: any value, by a name that always means the same one; any single number, by a
name that starts with #; this number; the result of an operator of these inputs; one of a list."""


@dataclass(frozen=True, slots=True)
class Fused:
    """Nodes that one function computes.

    Attributes:
        nodes: in order; the last one's only output is the function's result.
        inputs: what the function takes.
        function: returns None where it would not compute the same.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[ValueName, ...]
    function: Fast


@dataclass(frozen=True, slots=True)
class _Match:
    """What the names of a pattern stand for, and the nodes that it covers, the last one first."""

    values: Mapping[str, ValueName]
    numbers: Mapping[str, float]
    nodes: tuple[Node, ...]

    def attribute(self, op_type: str, name: str, default: float) -> float:
        """Return a number among the attributes of the one node of this operator."""
        node = next(node for node in self.nodes if node.op_type == op_type)
        value = node.attributes.get(name, default)
        return float(value) if isinstance(value, (int, float)) else math.nan


@dataclass(frozen=True, slots=True)
class _Rule:
    """A pattern, the values in it that the function takes, and what makes the function."""

    pattern: Pattern
    inputs: tuple[str, ...]
    make: Callable[[_Match, Known], Fast | None]


def fuse(nodes: Sequence[Node], kept: Collection[ValueName], known: Known) -> dict[NodeName, Fused]:
    """Return what may be computed at once in `nodes`, by the name of the last node of each run.

    `kept` are the values that a caller wants or changes; they stay values of their own.
    """
    producer = {value: node for node in nodes for value in node.outputs if value}
    position = {node.name: at for at, node in enumerate(nodes)}
    readers: dict[ValueName, set[NodeName]] = {}
    for node in nodes:
        for value in node.reads:
            readers.setdefault(value, set()).add(node.name)
    found: dict[NodeName, Fused] = {}
    taken: set[NodeName] = set()
    for node in reversed(nodes):
        if len(node.outputs) != 1 or node.name in taken:
            continue
        for fused in _candidates(node, producer, known):
            names = {inner.name for inner in fused.nodes}
            hidden = {v for inner in fused.nodes if inner is not node for v in inner.outputs if v}
            if hidden.isdisjoint(kept) and all(readers[value] <= names for value in hidden):
                ordered = sorted(fused.nodes, key=lambda inner: position[inner.name])
                found[node.name] = replace(fused, nodes=tuple(ordered))
                taken |= names
                break
    return found


def _candidates(node: Node, producer: Mapping[ValueName, Node], known: Known) -> Iterator[Fused]:
    for rule in _RULES.get(node.op_type, ()):
        for match in _matches(rule.pattern, node.outputs[0], _Match({}, {}, ()), producer, known):
            function = rule.make(match, known)
            if function is not None:
                unique = tuple({inner.name: inner for inner in match.nodes}.values())
                yield Fused(unique, tuple(match.values[name] for name in rule.inputs), function)


def _matches(
    pattern: Pattern,
    value: ValueName,
    match: _Match,
    producer: Mapping[ValueName, Node],
    known: Known,
) -> Iterator[_Match]:
    """Yield each way in which `value` fits, given what the names already stand for."""
    if isinstance(pattern, list):
        for choice in pattern:
            yield from _matches(choice, value, match, producer, known)
    elif isinstance(pattern, tuple):
        node = producer.get(value)
        if node is None or node.domain or node.op_type != pattern[0]:
            return
        wanted = pattern[1:]
        orders = [node.inputs]
        if node.op_type in ("Add", "Mul"):
            orders.append(node.inputs[::-1])
        for inputs in orders:
            found = [replace(match, nodes=(*match.nodes, node))]
            for inner, given in zip(wanted, inputs, strict=False):
                found = [m for f in found for m in _matches(inner, given, f, producer, known)]
            yield from found
    elif isinstance(pattern, float) or pattern.startswith("#"):
        tensor = known(value)
        if (
            tensor is None
            or tensor.numel() != 1
            or tensor.ndim > 1
            or not tensor.is_floating_point()
        ):
            return
        number = float(tensor.item())
        if isinstance(pattern, str):
            yield replace(match, numbers={**match.numbers, pattern: number})
        elif math.isclose(number, pattern, rel_tol=1e-6):
            yield match
    elif match.values.get(pattern, value) == value:
        yield replace(match, values={**match.values, pattern: value})


def _alike(*tensors: torch.Tensor) -> bool:
    first = tensors[0]
    return first.is_floating_point() and all(
        t.dtype == first.dtype and t.device == first.device for t in tensors
    )


def _simply(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Fast]:
    def fast(x: torch.Tensor) -> torch.Tensor | None:
        return function(x) if x.ndim and x.is_floating_point() else None

    return lambda match, known: fast


def _hard_swish(match: _Match, known: Known) -> Fast | None:
    slope = match.attribute("HardSigmoid", "alpha", 0.2)
    usual = math.isclose(slope, 1 / 6, rel_tol=1e-6)
    usual = usual and match.attribute("HardSigmoid", "beta", 0.5) == 0.5
    return _simply(functional.hardswish)(match, known) if usual else None


def _linear(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor | None:
    if x.ndim < 2 or w.ndim != 2 or b.shape != w.shape[1:] or not _alike(x, w, b):
        return None
    return functional.linear(x, w.T, b)


def _layer_norm(match: _Match, known: Known) -> Fast | None:
    axes = {_mean_axis(node, known) for node in match.nodes if node.op_type == "ReduceMean"}
    axis = axes.pop()
    if axes or axis is None:
        return None

    def fast(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor | None:
        last = axis in (-1, x.ndim - 1) and scale.shape == shift.shape == x.shape[-1:]
        if not last or not _alike(x, scale, shift):
            return None
        return functional.layer_norm(x, x.shape[-1:], scale, shift, match.numbers["#epsilon"])

    return fast


def _mean_axis(node: Node, known: Known) -> int | None:
    """Return the one axis that a mean is taken over and that it keeps."""
    axes: object = node.attributes.get("axes")
    if len(node.inputs) > 1:
        tensor = known(node.inputs[1])
        axes = None if tensor is None else tensor.reshape(-1).tolist()
    kept = node.attributes.get("keepdims", 1) == 1
    return int(axes[0]) if kept and isinstance(axes, list) and len(axes) == 1 else None


def _attention(match: _Match, known: Known) -> Fast | None:
    softmax = next(node for node in match.nodes if node.op_type == "Softmax")
    axis = match.attribute("Softmax", "axis", -1 if softmax.since_version >= 13 else 1)
    scale = match.numbers.get("#times", 1.0) / match.numbers.get("#over", 1.0)
    return partial(_attend, scale=scale) if axis in (-1, 3) else None


def _attend(
    q: torch.Tensor, kt: torch.Tensor, v: torch.Tensor, *, scale: float
) -> torch.Tensor | None:
    # torch's kernels for this have no second derivative and no rule for vmap.
    tensors = (q, kt, v)
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if recorded or any(torch.func.debug_unwrap(t) is not t for t in tensors):
        return None
    if q.ndim != 4 or not q.shape[:2] == kt.shape[:2] == v.shape[:2] or not _alike(*tensors):
        return None
    return functional.scaled_dot_product_attention(q, kt.transpose(-1, -2), v, scale=scale)


def _select(match: _Match, known: Known) -> Fast | None:
    """Take one place known beforehand as a view."""
    place = known(match.values["place"])
    if place is None or place.ndim:
        return None
    at, axis = int(place.item()), int(match.attribute("Gather", "axis", 0))

    def fast(data: torch.Tensor) -> torch.Tensor | None:
        inside = -data.ndim <= axis < data.ndim and -data.shape[axis] <= at < data.shape[axis]
        return data.select(axis, at) if inside else None

    return fast


_GATE: Pattern = ("Add", ("Erf", [("Div", "x", 2**0.5), ("Mul", "x", 0.5**0.5)]), 1.0)
_CENTRED: Pattern = ("Sub", "x", ("ReduceMean", "x"))
_VARIANCE: Pattern = ("ReduceMean", [("Pow", _CENTRED, 2.0), ("Mul", _CENTRED, _CENTRED)])
_NORMAL: Pattern = ("Div", _CENTRED, ("Sqrt", ("Add", _VARIANCE, "#epsilon")))
_SCORES: Pattern = ("MatMul", "q", "kt")

_RULES: dict[str, tuple[_Rule, ...]] = {
    "Mul": (
        _Rule(("Mul", "x", ("Sigmoid", "x")), ("x",), _simply(functional.silu)),
        _Rule(("Mul", "x", ("HardSigmoid", "x")), ("x",), _hard_swish),
        _Rule(
            [
                ("Mul", ("Mul", "x", _GATE), 0.5),
                ("Mul", ("Mul", "x", 0.5), _GATE),
                ("Mul", "x", ("Mul", _GATE, 0.5)),
            ],
            ("x",),
            _simply(functional.gelu),
        ),
    ),
    "Add": (
        _Rule(("Add", ("Mul", _NORMAL, "scale"), "shift"), ("x", "scale", "shift"), _layer_norm),
        _Rule(("Add", ("MatMul", "x", "w"), "b"), ("x", "w", "b"), lambda match, known: _linear),
    ),
    "MatMul": (
        _Rule(
            (
                "MatMul",
                ("Softmax", [_SCORES, ("Mul", _SCORES, "#times"), ("Div", _SCORES, "#over")]),
                "v",
            ),
            ("q", "kt", "v"),
            _attention,
        ),
    ),
    "Gather": (_Rule(("Gather", "data", "place"), ("data",), _select),),
}
