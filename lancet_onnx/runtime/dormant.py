# SPDX-License-Identifier: Apache-2.0
"""Switches in a graph's logic, also those that hide behind weights and arithmetic.

Whoever hides a switch wants it to sleep on ordinary images, or everybody would notice. So a few
numbers that are computed from the image, meet what else is computed from it, and yet are the same
for every ordinary image are suspicious wherever they come from: a steep sigmoid of a matched filter
sleeps as a comparison does. In honest networks everything that depends on the image moves with it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.model import Graph, Node
from lancet_onnx.model.logic import Origin, Switch, bends, logic_on_input, meets, origins
from lancet_onnx.rules import DORMANT
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.types import NodeName, ValueName

NARROW = 4
"""Numbers an image that a switch is made of at most; squeeze and excitation has more."""

IMAGES = 8
"""Ordinary images that are run."""

STILL = 1e-6
"""A value that moves by less than this share of its size does not move."""

_LARGEST = 1 << 16
"""Elements an image of the values that are looked at; switches are small until they are spread."""

NOTHING = 1e-5
"""A value does nothing if its mean over the images changes a result by less than this share."""

_OVER_AXIS = {"Softmax", "LogSoftmax", "Hardmax", "LayerNormalization"}
"""Operators that make the same of whatever number they get, if it is alone on its axis."""

Inputs = NDArray[np.generic]


def switches(
    graph: Graph, classifier: Classifier | None, inputs: Inputs | None = None
) -> tuple[Switch, ...]:
    """Return the switches that the graph shows and, with a classifier, those that sleep.

    A sleeping one is looked for on made-up images; where there are real ones, `inputs` (as the
    model takes them), it must sleep on these as well. A graph that cannot be run is only looked at.

    Raises:
        UnsupportedError: the graph met something on these images that is not computed.
    """
    if classifier is None:
        return logic_on_input(graph)
    found = logic_on_input(classifier.graph, classifier.elements)
    if not classifier.signature.input.dtype.startswith("float"):
        return found
    known = {switch.node.name for switch in found}
    asleep: dict[NodeName, Switch] = {}
    real = None if inputs is None else _Look.of(classifier, inputs[:IMAGES])
    for images in ordinary_inputs(classifier):
        for switch, value in _dormant(_Look.of(classifier, images)):
            if real is None or real.at_rest(switch.node, value):
                asleep.setdefault(switch.node.name, switch)
    return (*found, *(switch for name, switch in asleep.items() if name not in known))


def ordinary_inputs(classifier: Classifier, seed: int = 0) -> list[Inputs]:
    """Return made-up images in the two usual ranges, 0 to 1 and around 0.

    Half of them are smooth, as photographs are, half are noise.
    """
    rng = np.random.default_rng(seed)
    shape = tuple(classifier.blank().shape[1:])
    images = rng.random((IMAGES, *shape), np.float32)
    for image in images[: IMAGES // 2]:
        image[...] = _smooth(rng, shape)
    return [images, (images - np.float32(0.5)) * np.float32(4)]


def _smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a slowly varying image: a few waves in every axis longer than a colour's."""
    image = np.full(shape, rng.random(), np.float32)
    for axis, size in enumerate(shape):
        if size > 4:
            wave = np.sin(np.linspace(0, rng.uniform(1, 6), size) + rng.uniform(0, 6))
            image += rng.uniform(0.05, 0.3) * np.expand_dims(
                wave.astype(np.float32), [n for n in range(len(shape)) if n != axis]
            )
    return image.clip(0, 1)


def _dormant(look: _Look) -> Iterator[tuple[Switch, ValueName]]:
    """Yield the switches that sleep on the images of a look, each with the value that sleeps."""
    signature = look.classifier.signature
    for node in look.graph.between([look.name], [signature.logits]):
        fed = [v for v in dict.fromkeys(node.inputs) if v in look.origins]
        if not meets(node) or not any(look.moves(value) for value in fed):
            continue
        for value in (v for v in fed if look.origins[v].width <= NARROW):
            how = look.asleep(node, value)
            if how:
                origin = look.origins[value]
                count = "one number" if origin.width == 1 else f"{int(origin.width)} numbers"
                text = f"meets '{value}', {count} an image {how} for ordinary images"
                path = tuple(step.name for step in look.way(value))
                yield Switch(DORMANT, node, path, text, origin.learned), value
                break


@dataclass(frozen=True, eq=False)
class _Look:
    """What the values of a graph are on some ordinary images.

    Attributes:
        rows: values by name, one row an image; those too large, or that mix images, are missing.
        origins: what each value that depends on the images is made of.
    """

    classifier: Classifier
    name: ValueName
    rows: Mapping[ValueName, torch.Tensor]
    origins: Mapping[ValueName, Origin]

    @classmethod
    def of(cls, classifier: Classifier, images: Inputs) -> _Look:
        graph, name = classifier.graph, classifier.signature.input.name
        elements = classifier.elements
        made_of = origins(graph, elements)
        nodes = graph.between([name], [classifier.signature.logits])
        watched = [
            value
            for node in nodes
            for value in node.outputs
            if value in made_of and elements.get(value, _LARGEST + 1) <= _LARGEST
        ]
        if classifier.batching.step is None:
            watched = [value for value in watched if value in classifier.batching.leading]
        x = classifier.tensor(images)
        rows = {name: x}
        with torch.no_grad(), contextlib.suppress(UnsupportedError):
            rows |= classifier.run({name: x}, watched)
        return cls(classifier, name, rows, made_of)

    @property
    def graph(self) -> Graph:
        return self.classifier.graph

    def moves(self, value: ValueName) -> bool:
        """Return whether a value differs between the images; what is not known moves."""
        rows = self.rows.get(value)
        return rows is None or _spread(rows) > STILL * _size(rows)

    def at_rest(self, node: Node, value: ValueName) -> bool:
        """Return whether `value` does nothing at `node` on these images."""
        return not self.moves(value) or self._changes_nothing(node, value)

    def asleep(self, node: Node, value: ValueName) -> str:
        """Say in which way `value` does nothing at `node`, and not rightly; nothing if it does."""
        if not self.moves(value):
            keeper = self._keeper(value)
            return "" if keeper is None else f"that node '{keeper.name}' keeps still"
        if self._changes_nothing(node, value) and any(
            bends(step, self.origins) for step in self.way(value)
        ):
            return "that moves but changes nothing"
        return ""

    def way(self, value: ValueName) -> list[Node]:
        """Return the nodes that make `value` of few numbers, in their order."""
        nodes: list[Node] = []
        current: ValueName | None = value
        while current is not None and current in self.origins:
            if self.origins[current].width > NARROW:
                break
            node = self.graph.producer.get(current)
            if node is None or node in nodes:
                break
            nodes.append(node)
            current = next((v for v in node.inputs if v in self.origins), None)
        return nodes[::-1]

    def _keeper(self, value: ValueName) -> Node | None:
        """Return the node that keeps `value` still although what it reads moves, unless rightly."""
        seen: set[NodeName] = set()
        while True:
            node = self.graph.producer.get(value)
            if node is None or node.name in seen:
                return None
            seen.add(node.name)
            fed = [v for v in node.inputs if v in self.origins]
            if any(self.moves(v) for v in fed):
                honest = not bends(node, self.origins) or self._normalises_one(node)
                return None if honest else node
            if not fed:
                return None
            value = fed[0]

    def _changes_nothing(self, node: Node, value: ValueName) -> bool:
        """Return whether the mean of `value` over the images would do as well at `node`."""
        fed = [v for v in node.inputs if v in self.origins]
        output = node.outputs[0]
        before, rows = self.rows.get(output), self.rows.get(value)
        if before is None or rows is None or any(v not in self.rows for v in fed):
            return False
        if not rows.is_floating_point():
            return False
        mean = rows.mean(dim=0, keepdim=True).expand_as(rows)
        with torch.no_grad():
            try:
                # Shapes that the node needs come from the input.
                feeds = {v: self.rows[v] for v in (self.name, *fed)} | {value: mean}
                after = self.classifier.run(feeds, [output])[output]
            except UnsupportedError:
                return False
        return _size(after - before) <= NOTHING * _size(before)

    def _normalises_one(self, node: Node) -> bool:
        """Return whether a node makes the same of whatever it reads, which is a single number."""
        shape = self.classifier.shapes.get(node.outputs[0], ())
        if node.op_type == "InstanceNormalization":
            return math.prod(shape[2:]) == 1
        if node.op_type not in _OVER_AXIS:
            return False
        early = node.op_type != "LayerNormalization" and node.since_version < 13
        axis = int(str(node.attributes.get("axis", 1 if early else -1)))
        if early or node.op_type == "LayerNormalization":
            return math.prod(shape[axis:]) == 1
        return bool(shape) and shape[axis] == 1


def _spread(rows: torch.Tensor) -> float:
    if not rows.numel():
        return 0.0
    flat = rows.reshape(len(rows), -1).double()
    return float((flat.amax(0) - flat.amin(0)).max())


def _size(rows: torch.Tensor) -> float:
    return float(rows.double().abs().max()) if rows.numel() else 0.0
