# SPDX-License-Identifier: Apache-2.0
"""Which leaves a gradient should reach, which it does, and whether a zero one is truly zero."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from corpus.reference import Reference, difference
from lancet_onnx.model import Graph, Node
from lancet_onnx.runtime.executor import GraphModule

_STEP = 0.03
_CHANGED = 1e-5
_MOST = 24
_LARGEST_COPY = 1_200_000_000

# Inputs that are settings, not weights (by position), and operators that nothing differentiates.
_SETTINGS: dict[str, tuple[int, ...]] = {
    "Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2), "Dropout": (1, 2), "Pad": (1, 2, 3),
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "OneHot": (0, 1, 2), "Where": (0,),
    "Loop": (0, 1), "If": (0,), "TopK": (1,), "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7), "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7), "QLinearSigmoid": (1, 2, 3, 4),
    "QLinearLeakyRelu": (1, 2, 3, 4), "QLinearGlobalAveragePool": (1, 2, 3, 4),
    "QLinearAveragePool": (1, 2, 3, 4), "QLinearSoftmax": (1, 2, 3, 4), "QGemm": (1, 2, 4, 5, 7, 8),
    "ConvInteger": (2, 3), "MatMulInteger": (2, 3), "DynamicQuantizeMatMul": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5), "MelWeightMatrix": (0, 1, 2, 3, 4),
}  # fmt: skip
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
_FLAT = {
    "Shape", "Size", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And",
    "Or", "Xor", "ArgMax", "ArgMin", "NonZero", "Floor", "Ceil", "Round", "Sign", "IsNaN",
    "IsInf", "Range", "ConstantOfShape", "Hardmax", "Mod", "HannWindow", "EyeLike",
    "SequenceLength", "NonMaxSuppression",
}  # fmt: skip


def expected(graph: Graph, outputs: Iterable[str], leaves: Iterable[str]) -> set[str]:
    """Return the leaves that lie on a differentiable path to one of the outputs."""
    known, wanted = set(leaves), list(outputs)
    seen: set[str] = set()
    while wanted:
        value = wanted.pop()
        if value in seen:
            continue
        seen.add(value)
        node = graph.producer.get(value)
        if node is not None and node.op_type not in _FLAT and not _to_integers(node):
            wanted += _inputs(node)
    return seen & known


def settings(graph: Graph) -> set[str]:
    """Return the constants that are read as settings only: bounds, scales, pads."""
    weights = {value for node in graph.nodes for value in _inputs(node)}
    read = {value for node in graph.nodes for value in node.reads}
    return {name for name in graph.constants if name in read and name not in weights}


def _to_integers(node: Node) -> bool:
    return node.op_type == "Cast" and node.attributes["to"] not in _FLOATS


def _inputs(node: Node) -> list[str]:
    skipped = _SETTINGS.get(node.op_type, ())
    positional = [value for i, value in enumerate(node.inputs) if i not in skipped and value]
    return positional + [v for v in node.reads if v not in node.inputs]


def reached(
    module: GraphModule, feeds: Mapping[str, torch.Tensor], outputs: list[str], names: set[str]
) -> tuple[set[str], set[str]]:
    """Return the leaves with a gradient that is not zero, and those where it is zero or absent."""
    params: Any = {
        name: module.leaves[name].detach().clone().requires_grad_()  # type: ignore[index]
        for name in sorted(names)
        if module.leaves[name].is_floating_point()  # type: ignore[index]
    }
    results = module.run(feeds, outputs, params)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for value in results.values():
        if value.is_floating_point() and value.requires_grad:
            weights = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            total = (
                total
                + (
                    value.double() / value.detach().double().abs().max().clamp(min=1e-30) * weights
                ).sum()
            )
    if not total.requires_grad:
        return set(), set(names)
    found = torch.autograd.grad(total, list(params.values()), allow_unused=True)
    good = {
        name
        for name, gradient in zip(params, found, strict=True)
        if gradient is not None
        and bool(torch.isfinite(gradient).all())
        and bool((gradient != 0).any())
        and gradient.shape == params[name].shape
    }
    return good, set(names) - good


def matters(
    file: Path, names: set[str], feeds: Mapping[str, NDArray[Any]], before: dict[str, NDArray[Any]]
) -> set[str] | None:
    """Return those of `names` that the reference's output has a slope to; None if unknown.

    A key bias or a unit that no image activates has a gradient that is truly zero, and so has a
    number that is only compared with others: its output jumps, however small the step.
    """
    if file.stat().st_size > _LARGEST_COPY:
        return None
    every = _change(file, names, feeds, before, _STEP)
    if every is None or every <= _CHANGED:
        return None if every is None else set()
    if len(names) > _MOST:
        return None
    found = set()
    for name in sorted(names):
        far = _change(file, {name}, feeds, before, _STEP)
        near = _change(file, {name}, feeds, before, _STEP / 8)
        if far is None or near is None:
            return None
        if far > _CHANGED and near < far / 2:
            found.add(name)
    return found


def _change(
    file: Path,
    names: set[str],
    feeds: Mapping[str, NDArray[Any]],
    before: dict[str, NDArray[Any]],
    step: float,
) -> float | None:
    """Return how far the reference's output moves when these tensors do; None if it cannot run."""
    proto = onnx.load(file)
    rng = np.random.default_rng(0)
    for name in sorted(names):
        tensor = _find(proto, name)
        if tensor is None:
            return None
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind in "iu":
            # Whole numbers move by one for the large step and stay for the small one.
            by = np.where(array > 0, -1, 1) * (step == _STEP)
            moved = (array + by).astype(array.dtype)
        else:
            scale = max(float(np.abs(array.astype(np.float64)).max(initial=0)), 0.01) * step
            noise = rng.choice([-1.0, 1.0], array.shape) * scale
            moved = (array.astype(np.float64) + noise).astype(array.dtype)
        tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "moved.onnx"
        try:
            onnx.save(proto, path)
            after = Reference(path).run(feeds)
        except Exception:
            return None
    return difference(after, before)


def _find(proto: onnx.ModelProto, name: str) -> onnx.TensorProto | None:
    """Return the tensor behind a leaf; those of branches and functions may have a longer name."""
    stored = list(_stored(proto.graph)) + [
        found for function in proto.functions for found in _constants(function.node)
    ]
    for known, tensor in stored:
        if known == name:
            return tensor
    ends = [tensor for known, tensor in stored if known and name.endswith("/" + known)]
    return ends[0] if len(ends) == 1 else None


def _stored(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    yield from _constants(graph.node)


def _constants(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                yield node.output[0], attribute.t
            if attribute.HasField("g"):
                yield from _stored(attribute.g)
