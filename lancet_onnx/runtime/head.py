# SPDX-License-Identifier: Apache-2.0
"""Where a classifier's answer is: which output to ask for, and where gradients start.

Exporters end their models in many ways: with scores, with a Softmax, with one number for two
classes, with a label beside a ZipMap of probabilities (scikit-learn), with a label alone. Each is
stepped back from, and each is read as one row of scores an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.errors import ModelError
from lancet_onnx.model import Graph, Node
from lancet_onnx.types import NodeName, TensorSpec, ValueName

_AFTER_LOGITS = {"Softmax", "LogSoftmax", "Identity", "Sigmoid", "Cast", "DequantizeLinear"}
_AFTER_LABEL = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten"}
_FLOATS = ("float32", "float16", "float64", "bfloat16")


@dataclass(frozen=True, slots=True)
class Head:
    """How a classifier answers.

    Attributes:
        output: the file's output that holds the answer.
        form: ``scores``: a row of numbers an image, or one number for two classes; ``maps``: a
            dictionary from class to score an image; ``labels``: nothing but the class.
        keys: for ``maps`` and ``labels`` the names of the classes in order, empty for 0, 1, 2 ...
        scores: the value that the scores come from; for ``labels``, what their largest is taken of.
        logits: the value that gradients start from.
        probability: one number for two classes is a probability, not a logit.
        classes: how many there are; 0 while that is not known.
        alone: each image must be run by itself: the model quantises by what is in a batch, so
            that the answer for an image would depend on its neighbours.
    """

    output: ValueName
    form: Literal["scores", "maps", "labels"]
    keys: tuple[object, ...]
    scores: ValueName
    logits: ValueName
    probability: bool
    classes: int = 0
    alone: bool = False

    def rows(self, answer: object) -> NDArray[np.float32]:
        """Return one row of scores an image, from what the output (or `scores`) holds.

        One number z for two classes becomes (0, z), a probability p becomes (1 - p, p), a label a
        row of zeros with a one.

        Raises:
            ModelError: the answer has another form than the graph promises.
        """
        if self.form == "maps" and isinstance(answer, Sequence):
            try:
                table = [[float(row[key]) for key in self.keys] for row in answer]
            except (KeyError, TypeError, ValueError) as error:
                raise self._odd(answer) from error
            return np.array(table, np.float32)
        if not isinstance(answer, np.ndarray):
            raise self._odd(answer)
        if self.form == "labels" and answer.dtype.kind not in "f":
            return self._one_hot(answer)
        values = answer.astype(np.float32)
        if values.ndim > 2 and all(size == 1 for size in values.shape[2:]):
            values = values.reshape(values.shape[:2])
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2:
            raise self._odd(answer)
        if values.shape[1] == 1:
            other = 1 - values if self.probability else np.zeros_like(values)
            values = np.concatenate([other, values], axis=1)
        return values

    def _one_hot(self, labels: NDArray[np.generic]) -> NDArray[np.float32]:
        flat = labels.reshape(-1).tolist()
        if self.keys:
            known = {key: number for number, key in enumerate(self.keys)}
            flat = [known.get(label, -1) for label in flat]
        size = self.classes or len(self.keys) or (max(flat, default=0) + 1)
        if labels.size != len(labels) or any(not 0 <= label < size for label in flat):
            raise self._odd(labels)
        rows: NDArray[np.float32] = np.eye(size, dtype=np.float32)[np.array(flat, np.int64)]
        return rows

    def _odd(self, answer: object) -> ModelError:
        shape = getattr(answer, "shape", type(answer).__name__)
        return ModelError(
            f"the output '{self.output}' has the shape {shape}; expected a classifier's scores, "
            "one row an image"
        )


def plain_head(output: ValueName) -> Head:
    """Return the head of a model whose output holds scores or one logit."""
    return Head(output, "scores", (), output, output, False)


def find_head(graph: Graph, wanted: str | None = None) -> Head:
    """Return how the model answers: the output `wanted`, else the first that can be read.

    Outputs of scores come before ZipMap's dictionaries, and these before bare labels.

    Raises:
        ModelError: no output, or none of that name, that can be read.
    """
    names = [spec.name for spec in graph.outputs]
    if wanted is not None and wanted not in names:
        listed = ", ".join(f"'{name}'" for name in names)
        raise ModelError(f"the model has no output '{wanted}'; it has {listed}")
    specs = [spec for spec in graph.outputs if wanted in (None, spec.name)]
    heads = [head for spec in specs if (head := _head(graph, spec)) is not None]
    order = ("scores", "maps", "labels")
    if heads:
        return min(heads, key=lambda head: order.index(head.form))
    if not names:
        raise ModelError("the model has no output; expected a classifier's scores")
    listed = ", ".join(f"'{spec.name}' ({spec.dtype})" for spec in specs)
    raise ModelError(
        f"no output holds a classifier's answer: {listed}; expected scores, a ZipMap of "
        "probabilities, or the ArgMax of scores. Name the right one with --output"
    )


def _head(graph: Graph, spec: TensorSpec) -> Head | None:
    node = graph.producer.get(spec.name)
    if node is not None and node.op_type == "ZipMap":
        keys = node.attributes.get("classlabels_int64s") or node.attributes.get(
            "classlabels_strings"
        )
        logits, probability = _logits(graph, node.inputs[0])
        known = tuple(keys) if isinstance(keys, list) else ()
        return Head(spec.name, "maps", known, node.inputs[0], logits, probability)
    if spec.dtype in _FLOATS:
        logits, probability = _logits(graph, spec.name)
        return Head(spec.name, "scores", (), spec.name, logits, probability)
    return _label_head(graph, spec)


def _label_head(graph: Graph, spec: TensorSpec) -> Head | None:
    """Trace a label back to the scores of which it is the largest."""
    value, keys = spec.name, ()
    while (node := graph.producer.get(value)) is not None:
        if node.op_type == "ArgMax":
            logits, probability = _logits(graph, node.inputs[0])
            return Head(spec.name, "labels", keys, node.inputs[0], logits, probability)
        if node.op_type == "ArrayFeatureExtractor" and node.inputs[0] in graph.constants:
            keys = tuple(graph.constants[node.inputs[0]].reshape(-1).tolist())
            value = node.inputs[1]
        elif node.op_type in _AFTER_LABEL:
            value = node.inputs[0]
        else:
            break
    return None


def _logits(graph: Graph, value: ValueName) -> tuple[ValueName, bool]:
    """Step back over Softmax and the like; return also whether a Sigmoid was among them."""
    probability = False
    while (node := graph.producer.get(value)) is not None:
        inner = _complement(graph, node)
        if inner is not None:
            value = inner
        elif node.op_type in _AFTER_LOGITS and not node.domain:
            probability = probability or node.op_type == "Sigmoid"
            value = node.inputs[0]
        else:
            break
    return value, probability


def _complement(graph: Graph, node: Node) -> ValueName | None:
    """Return p of a node that gives (1 - p, p), as scikit-learn's two-class models do."""
    if node.op_type != "Concat" or len(node.inputs) != 2:
        return None
    other, value = node.inputs
    minus = graph.producer.get(other)
    if minus is None or minus.op_type != "Sub" or minus.inputs[1] != value:
        return None
    one = graph.constants.get(minus.inputs[0])
    return value if one is not None and one.size == 1 and float(one.reshape(-1)[0]) == 1 else None


def with_rows(graph: Graph, value: ValueName, shape: Sequence[int]) -> tuple[Graph, ValueName]:
    """Return the graph with nodes that give `value` the shape (images, classes), and that value.

    One number z an image becomes (0, z): a two-class model has one logit.

    Raises:
        ModelError: a shape that is no row of scores.
    """
    if len(shape) == 2 and shape[1] > 1:
        return graph, value
    if not shape or any(size != 1 for size in shape[2:]):
        raise ModelError(
            f"the output '{value}' gives shape {tuple(shape)}; expected a classifier's scores "
            "of shape (batch, classes) with two classes or more"
        )
    single = len(shape) == 1 or shape[1] == 1
    rows = np.array([-1, 1] if single else [0, -1], np.int64)
    nodes = [_node("Reshape", 14, [value, "lancet.rows.shape"], "lancet.rows")]
    if single:
        nodes += [
            _node("Sub", 14, ["lancet.rows", "lancet.rows"], "lancet.zero"),
            _node("Concat", 13, ["lancet.zero", "lancet.rows"], "lancet.logits", axis=1),
        ]
    constants = {**graph.constants, ValueName("lancet.rows.shape"): rows}
    more = replace(graph, nodes=(*graph.nodes, *nodes), constants=constants)
    return more, nodes[-1].outputs[0]


def _node(op_type: str, version: int, inputs: Sequence[str], output: str, **named: int) -> Node:
    values: Mapping[str, int] = named
    return Node(
        NodeName(output),
        op_type,
        "",
        version,
        tuple(ValueName(name) for name in inputs),
        (ValueName(output),),
        dict(values),
    )
