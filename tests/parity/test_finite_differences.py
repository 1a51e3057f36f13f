# SPDX-License-Identifier: Apache-2.0
"""Gradients of whole models against finite differences of onnxruntime, leaf by leaf.

A model's loss is a fixed random combination of all its float outputs. Its gradient to every leaf
and input comes from the executor; what it is compared with, from onnxruntime running the model
file with that leaf changed. Where onnxruntime has kernels for it, file, weights and computation
are doubles, steps are tiny and single weights are compared as well. Where it has none (Conv,
Attention, LSTM ...), its results carry float32's rounding errors: a step then changes the loss by
far more than these, and whole directions are compared, of which the gradient's own has the most
signal. What noise may explain is allowed on top, and no leaf may drown in it unless its gradient
is zero.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from small_models import EXPORTED, Built, Feeds
from small_models_handmade import HANDMADE

from lancet_onnx.model import load
from lancet_onnx.runtime.executor import GraphModule

MODELS = {**EXPORTED, **HANDMADE}

IN_DOUBLE = {
    *("constant_nodes", "einsum", "float64", "functions", "if", "indexing", "loop", "mlp"),
    *("mlp_newer", "scan", "sklearn", "sparse_initializer", "tied", "token_norms"),
}
"""Models that onnxruntime computes in double precision."""

EXPONENT = "the exponent of negative numbers has no derivative"
HOST = "scales of Resize are read on the host, for they set a shape"
UNTESTED: Mapping[str, Mapping[str, str]] = {
    "convnext": {"/norm/Constant_output_0": EXPONENT},
    "pooling": {"/branches.3/Constant_output_0": EXPONENT},
    "upsampling": {"/1/Constant_output_0": HOST, "/4/Constant_output_0": HOST},
}
"""Leaves that no finite difference speaks of, by model, and why."""


@dataclass(frozen=True)
class Precision:
    """How far a step goes and what is then allowed, as shares.

    Attributes:
        change: what a step along the gradient changes the loss by, of the loss's terms.
        noise: rounding error of the loss, of its terms.
        along: error of the slope along the gradient, of that slope.
        across: error of the slope along other directions, of the slope along the gradient.
    """

    change: float
    noise: float
    along: float
    across: float


PRECISIONS = {
    "float64": Precision(1e-5, 1e-14, 1e-6, 1e-6),
    # Each float32 operator is off by a few times 2**-24, and some dozen follow one another; the
    # step is as small as that allows, for larger ones meet kinks of ReLU and of pooling.
    "float32": Precision(2e-4, 1e-6, 0.01, 0.02),
    # Weights, and results between operators, are rounded to 11 bits (2**-12); a step that is
    # larger than this meets kinks of ReLU.
    "float16": Precision(0.1, 1e-3, 0.1, 0.1),
}
LARGEST_STEP = 0.05
"""Of a leaf's norm."""
DROWNED = 0.1
"""Share of noise in the steepest slope from which on a comparison says nothing."""


def doubled(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every float32 tensor, type and cast is float64."""
    result = copy.deepcopy(proto)
    for entry in (*result.graph.input, *result.graph.output):
        _double_type(entry)
    for function in result.functions:
        for node in function.node:
            _double_node(node)
    _double_graph(result.graph)
    return result


def _double_type(entry: onnx.ValueInfoProto) -> None:
    if entry.type.tensor_type.elem_type == TensorProto.FLOAT:
        entry.type.tensor_type.elem_type = TensorProto.DOUBLE


def _double_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _double_node(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            _double_tensor(attribute.t)
        elif attribute.type == onnx.AttributeProto.GRAPH:
            _double_graph(attribute.g)
        elif attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
        elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            array = np.array(onnx.helper.get_attribute_value(attribute), np.float64)
            attribute.CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(array)))


def _double_graph(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for entry in (*graph.input, *graph.output):
        _double_type(entry)
    for tensor in graph.initializer:
        _double_tensor(tensor)
    for sparse in graph.sparse_initializer:
        _double_tensor(sparse.values)
    for node in graph.node:
        _double_node(node)


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class Subject:
    """One model: its leaves, its loss in the executor, and its loss in onnxruntime."""

    def __init__(self, built: Built, folder: Path) -> None:
        proto, feeds = built
        self.kind, self.proto, self.feeds = _finest(proto, feeds)
        path = folder / "model.onnx"
        onnx.save(self.proto, path)
        model = load(path)
        self.stored, self.graph = model.stored, model.graph
        self.module = GraphModule(model.graph, torch.device("cpu"))
        results = session(self.proto).run(None, self.feeds)
        rng = np.random.default_rng(0)
        self.outputs = {
            spec.name: rng.standard_normal(np.shape(result))
            for spec, result in zip(model.graph.outputs, results, strict=True)
            if np.asarray(result).dtype.kind == "f"
        }
        terms = [
            result.astype(np.float64) * self.outputs[spec.name]
            for spec, result in zip(model.graph.outputs, results, strict=True)
            if spec.name in self.outputs
        ]
        self.size = float(np.sqrt(sum(np.square(term).sum() for term in terms)))

    def gradients(self) -> dict[str, np.ndarray]:
        """Return the loss's gradient to every leaf and input, zeros where there is none."""
        given = {name: torch.from_numpy(array) for name, array in self.feeds.items()}
        given |= self.module.leaves
        points = {
            name: tensor.clone().requires_grad_()
            for name, tensor in given.items()
            if tensor.is_floating_point()
        }
        params = {name: points[name] for name in self.module.leaves}
        feeds = {name: points.get(name, given[name]) for name in self.feeds}
        found = self.module.run(feeds, list(self.outputs), params)
        loss = torch.stack(
            [(found[n].double() * torch.from_numpy(w)).sum() for n, w in self.outputs.items()]
        ).sum()
        gradients = torch.autograd.grad(loss, list(points.values()), allow_unused=True)
        return {
            name: np.zeros(point.shape) if gradient is None else gradient.double().numpy()
            for (name, point), gradient in zip(points.items(), gradients, strict=True)
        }

    def values(self, name: str) -> np.ndarray:
        return np.asarray(self.feeds[name] if name in self.feeds else self.graph.constants[name])

    def directions(self, name: str, gradient: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the gradient's direction, a random one and, in doubles, the steepest weight's."""
        kept = np.ones(gradient.size)
        if name in self.stored and self.stored[name].positions is not None:
            kept[:] = 0  # of a sparse tensor, the file holds and onnxruntime can change only some
            kept[self.stored[name].positions] = 1
        slopes = gradient * kept.reshape(gradient.shape)
        if slopes.any():
            yield "along", slopes / np.linalg.norm(slopes)
        drawn = np.random.default_rng(1).standard_normal(slopes.shape) * kept.reshape(slopes.shape)
        yield "across", drawn / np.linalg.norm(drawn)
        if self.kind == "float64" and slopes.size > 1:
            one = np.zeros(slopes.size)
            one[np.abs(slopes).argmax()] = 1
            yield "across", one.reshape(slopes.shape)

    def loss(self, name: str, values: np.ndarray) -> float:
        """Return onnxruntime's loss of the file with a leaf, or of the input, changed."""
        changed, feeds = self.proto, {**self.feeds}
        if name in feeds:
            feeds[name] = values
        else:
            changed = copy.deepcopy(changed)
            _store(changed, self.stored[name], values)
        results = session(changed).run(list(self.outputs), feeds)
        return float(
            sum(
                (result.astype(np.float64) * weight).sum()
                for result, weight in zip(results, self.outputs.values(), strict=True)
            )
        )

    def difference(self, name: str, gradient: np.ndarray, towards: np.ndarray) -> Difference:
        """Change a leaf both ways along a direction of length 1."""
        precision = PRECISIONS[self.kind]
        values = self.values(name)
        size = float(np.linalg.norm(values.astype(np.float64)))
        steepest = float(np.linalg.norm(gradient))
        step = LARGEST_STEP * max(size, 0.1)
        if steepest:
            step = min(step, precision.change * self.size / steepest)
        up, down = ((values + sign * step * towards).astype(values.dtype) for sign in (1, -1))
        moved = up.astype(np.float64) - down.astype(np.float64)  # as rounded in the file
        length = float(np.linalg.norm(moved))
        rise = self.loss(name, up) - self.loss(name, down)
        wanted, found = rise / length, float((gradient * moved).sum()) / length
        return Difference(wanted, found, steepest, precision.noise * self.size / length)


@dataclass(frozen=True)
class Difference:
    """Slopes along one direction, the steepest slope there is, and what noise looks like."""

    wanted: float
    found: float
    steepest: float
    noise: float

    def within(self, share: float) -> bool:
        return abs(self.found - self.wanted) <= share * self.steepest + self.noise

    @property
    def tells(self) -> bool:
        return self.noise < DROWNED * self.steepest or self.steepest < self.noise


def _finest(proto: onnx.ModelProto, feeds: Feeds) -> tuple[str, onnx.ModelProto, Feeds]:
    """Return the model in double precision if onnxruntime computes it so."""
    if any(array.dtype == np.float16 for array in feeds.values()):
        return "float16", proto, feeds
    wide = {
        name: array.astype(np.float64) if array.dtype == np.float32 else array
        for name, array in feeds.items()
    }
    copied = doubled(proto)
    try:
        session(copied).run(None, wide)
    except Exception as error:
        reasons = ("NOT_IMPLEMENTED", "INVALID_GRAPH", "does not support double")
        if not any(reason in str(error) for reason in reasons):
            raise
        return "float32", proto, feeds
    return "float64", copied, wide


def _store(proto: onnx.ModelProto, at: Any, values: np.ndarray) -> None:
    """Put new values where the file keeps a leaf."""
    message: Any = proto
    for number, occurrence in at.path:
        inner = getattr(message, message.DESCRIPTOR.fields_by_number[number].name)
        message = inner[occurrence] if hasattr(inner, "__len__") else inner
    kept = values if at.positions is None else values.reshape(-1)[at.positions]
    if isinstance(message, onnx.TensorProto):
        message.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(kept), message.name))
    elif message.name == "value_floats":
        message.floats[:] = kept.tolist()
    else:
        message.f = float(kept)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_gradients_equal_those_of_onnxruntime(name: str, tmp_path: Path) -> None:
    subject = Subject(MODELS[name](), tmp_path)
    assert subject.kind == "float64" or name not in IN_DOUBLE
    precision = PRECISIONS[subject.kind]
    untested = set(subject.graph.leaves) - set(subject.module.leaves)
    wrong = {}
    for leaf, gradient in subject.gradients().items():
        if not np.isfinite(gradient).all():
            untested.add(leaf)
            continue
        for way, direction in subject.directions(leaf, gradient):
            found = subject.difference(leaf, gradient, direction)
            share = precision.along if way == "along" else precision.across
            if not (found.within(share) and found.tells):
                wrong[leaf, way] = found
    assert wrong == {}
    assert untested == set(UNTESTED.get(name, {}))


def test_there_are_models_of_every_kind() -> None:
    assert len(MODELS) >= 30
    assert set(UNTESTED) | IN_DOUBLE <= set(MODELS)
