# SPDX-License-Identifier: Apache-2.0
"""A graph seen as a classifier: one input, logits, any number of images whatever the batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model import Graph, Node
from lancet_onnx.runtime.batching import Batching
from lancet_onnx.runtime.bundle import bundled
from lancet_onnx.runtime.executor import GraphModule, Params, Values
from lancet_onnx.runtime.head import find_head, with_rows
from lancet_onnx.runtime.signature import (
    Signature,
    blank_inputs,
    classifier_input,
    torch_dtype,
)
from lancet_onnx.runtime.unfuse import unfused
from lancet_onnx.types import ValueName

Loss = Callable[[torch.Tensor], torch.Tensor]

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input is a weight."""

_MIXING = ("DynamicQuantizeLinear", "DynamicQuantizeLSTM")
"""Operators that scale by the largest number of the whole batch."""

CHUNK = 128
"""Images that run at once; bounds memory to that many images' activations."""


class Classifier:
    """Runs a `GraphModule` over images and parts of it over cached values.

    Attributes:
        module: the graph with its leaves.
        signature: input, batch size, logits and number of classes.
        batching: how any number of images go through it.
        forwards: image-forward equivalents spent so far: a suffix counts by its share of the
            multiply-adds, a backward pass twice.
    """

    def __init__(
        self, graph: Graph, device: torch.device | None = None, output: str | None = None
    ) -> None:
        """Bind `graph`, run it once on a blank image and learn each value's type and cost.

        `output` names the output that holds the scores, if the model has several.

        Raises:
            ModelError: not a classifier with one input and a row of scores an image.
            UnsupportedError: an operator that is not computed.
        """
        head = find_head(graph, output)
        graph, parts = bundled(graph.leading_to([head.scores, head.logits]))
        spec = classifier_input(graph)
        graph = unfused(graph)
        where = device or torch.device("cpu")
        self.module = GraphModule(graph, where)
        self.forwards = 0.0
        batch = spec.shape[0] if spec.shape else None
        fixed = batch if isinstance(batch, int) and batch > 0 else None
        probe = fixed or 2
        blank = blank_inputs(spec, probe, where)
        table, sequences = self._values({spec.name: blank}, [head.logits, head.scores])
        if sequences & {head.logits, head.scores}:
            raise ModelError(f"the output '{head.scores}' is a sequence; expected a row of scores")
        found = table[head.logits].shape
        if not found or found[0] != probe:
            raise ModelError(
                f"the output '{head.logits}' gives shape {tuple(found)} for a batch of "
                f"{probe}; expected a classifier's scores of shape (batch, classes)"
            )
        graph, logits = with_rows(graph, head.logits, found)
        if logits != head.logits:
            self.module = GraphModule(graph, where)
            table |= self._values({head.logits: table[head.logits]}, [logits])[0]
        table[spec.name] = blank
        nodes = {n.name: n for n in self.module.graph.nodes if set(n.outputs) & table.keys()}
        classes = int(table[logits].shape[1])
        alone = any(node.op_type in _MIXING for node in nodes.values())
        head = replace(head, classes=classes, alone=alone)
        self.signature = Signature(spec, fixed, logits, classes, head, parts)
        self.recompute = frozenset(v for v, t in table.items() if not t.is_floating_point())
        self.recompute = (self.recompute | sequences) - {spec.name}
        self.shapes: Mapping[ValueName, tuple[int, ...]] = {
            value: tuple(tensor.shape) for value, tensor in table.items()
        }
        self._dtypes = {value: t.dtype for value, t in table.items() if t.is_floating_point()}
        self._cost = {node.name: self._macs(node) / probe for node in nodes.values()}
        self._total = sum(self._cost.values()) or 1.0
        self.batching = self._learn_batching(blank, [v for v in table if v != spec.name])

    @property
    def graph(self) -> Graph:
        """The frozen graph."""
        return self.module.graph

    def blank(self) -> torch.Tensor:
        """Return inputs of zeros, two or as many as the file's batch size."""
        return blank_inputs(self.signature.input, self.signature.batch or 2, self.module.device)

    def tensor(self, inputs: NDArray[np.generic]) -> torch.Tensor:
        """Return model inputs (as `Samples` prepares them) as a tensor on the device."""
        return torch.from_numpy(np.ascontiguousarray(inputs)).to(
            self.module.device, torch_dtype(self.signature.input)
        )

    def run(
        self, feeds: Values, outputs: Sequence[ValueName], params: Params | None = None
    ) -> dict[ValueName, torch.Tensor]:
        """Run the part between `feeds` and `outputs` for one chunk of images.

        The first dimension of every fed and returned float value is the image. A model with a
        baked-in batch size runs through vmap over batches of that size.

        Raises:
            UnsupportedError: an output does not have one row an image.
        """
        count = len(next(iter(feeds.values())))
        self.forwards += count * self.share(feeds, outputs)
        if self.batching.step is None:
            results = self.module.run(feeds, outputs, params)
        else:
            parts = {name: self.batching.stack(name, value) for name, value in feeds.items()}
            mapped = torch.func.vmap(
                lambda part: self.module.run(part, outputs, params), randomness="error"
            )(parts)
            results = {
                name: self.batching.unstack(name, value, count) for name, value in mapped.items()
            }
        for name, value in results.items():
            if len(value) != count:
                raise UnsupportedError(
                    f"'{name}' has {len(value)} rows for {count} images; the model mixes images "
                    "of a batch or ignores its batch size"
                )
        return results

    def gradients(
        self,
        inputs: torch.Tensor,
        values: Sequence[ValueName],
        at: Sequence[ValueName],
        loss: Loss,
    ) -> tuple[dict[ValueName, torch.Tensor], dict[ValueName, torch.Tensor]]:
        """Return `values` for one chunk of inputs, and the gradient of each image's loss to `at`.

        `loss` takes logits (N, classes) and gives one number an image; images do not mix.
        """
        name, logits = self.signature.input.name, self.signature.logits
        wanted = list(dict.fromkeys([*values, logits]))
        count, step = len(inputs), self.batching.step
        nudges = {value: self._zeros(value, count).requires_grad_() for value in at}

        def part(x: torch.Tensor, own: Values) -> dict[ValueName, torch.Tensor]:
            return self.module.run({name: x}, wanted, nudges=own)

        with torch.enable_grad():
            if step is None:
                results = part(inputs, nudges)
            else:
                stacked = {v: self.batching.stack(v, nudge) for v, nudge in nudges.items()}
                mapped = torch.func.vmap(part)(self.batching.stack(name, inputs), stacked)
                results = {v: self.batching.unstack(v, t, count) for v, t in mapped.items()}
            total = loss(results[logits]).sum()
            found = torch.autograd.grad(
                total, list(nudges.values()), allow_unused=True, materialize_grads=True
            )
        self.forwards += 3 * count
        gradients = dict(zip(nudges, found, strict=True))
        return {value: results[value].detach() for value in values}, gradients

    def run_each(
        self, feeds: Values, outputs: Sequence[ValueName], params: Params
    ) -> dict[ValueName, torch.Tensor]:
        """As `run`, but image i runs with its own parameters ``params[name][i]``."""
        count = len(next(iter(feeds.values())))
        self.forwards += count * self.share(feeds, outputs)
        batching = self.batching

        def single(part: Values, own: Params) -> dict[ValueName, torch.Tensor]:
            rows = {name: batching.alone(name, value) for name, value in part.items()}
            results = self.module.run(rows, outputs, own)
            return {name: batching.first(name, value) for name, value in results.items()}

        mapped: dict[ValueName, torch.Tensor] = torch.func.vmap(single)(dict(feeds), dict(params))
        return mapped

    def logits(self, inputs: torch.Tensor, params: Params | None = None) -> torch.Tensor:
        """Return logits (N, classes) for any number of inputs, in chunks, without gradients."""
        name, logits = self.signature.input.name, self.signature.logits
        with torch.no_grad():
            return torch.cat(
                [
                    self.run({name: part}, [logits], params)[logits]
                    for part in torch.split(inputs, CHUNK)
                ]
            )

    def cut_set(self, start: Sequence[Node]) -> tuple[ValueName, ...]:
        """Return the values to cache so that `start` and all after them can be run again."""
        return self.graph.cut_set(start, self.signature.logits, self.recompute)

    def share(self, feeds: Collection[ValueName], outputs: Sequence[ValueName]) -> float:
        """Return which share of a whole forward the run from `feeds` to `outputs` costs."""
        names = {n.name for out in outputs for n in self.module.nodes_between(feeds, out)}
        return sum(self._cost.get(name, 0.0) for name in names) / self._total

    def bytes_per_image(self, values: Sequence[ValueName]) -> int:
        """Return the memory that caching `values` takes for one image."""
        return sum(
            4 * math.prod(self._row_shape(value)) for value in values if value in self.shapes
        )

    @property
    def elements(self) -> Mapping[ValueName, int]:
        """How many elements one image has of each value."""
        return {value: math.prod(self._row_shape(value)) for value in self.shapes}

    def _row_shape(self, value: ValueName) -> tuple[int, ...]:
        """Return the shape of what one image has of a value."""
        shape = self.shapes[value]
        return shape[1:] if value in self.batching.leading else shape

    def _zeros(self, value: ValueName, count: int) -> torch.Tensor:
        dtype = self._dtypes.get(value, torch.float32)
        return torch.zeros((count, *self._row_shape(value)), dtype=dtype, device=self.module.device)

    def _values(
        self, feeds: Values, outputs: Sequence[ValueName]
    ) -> tuple[dict[ValueName, torch.Tensor], frozenset[ValueName]]:
        """Return all values on the way to `outputs`, and the names of those that are sequences."""
        nodes = {n.name: n for v in outputs for n in self.module.nodes_between(feeds, v)}
        names = {*outputs, *(v for node in nodes.values() for v in node.outputs if v)}
        found: Mapping[ValueName, object] = self.module.run(feeds, list(names))
        tensors = {v: t for v, t in found.items() if isinstance(t, torch.Tensor)}
        return tensors, frozenset(found.keys() - tensors.keys())

    def _learn_batching(self, blank: torch.Tensor, values: Sequence[ValueName]) -> Batching:
        """Find out which values have the image in front, and whether images must run alone.

        A model of free batch size is run on one image and on two: only then is an axis known to be
        the image, not something else of size two.
        """
        name, fixed = self.signature.input.name, self.signature.batch
        if fixed is not None:
            leading = [v for v, shape in self.shapes.items() if shape and shape[0] == fixed]
            return Batching(fixed, frozenset(leading))
        try:
            single = self.module.run({name: blank[:1]}, values)
        except UnsupportedError:
            single = {}  # it squeezes a batch of one away
        rows = {v: tuple(t.shape) for v, t in single.items() if v in self.shapes} or {
            v: (1, *shape[1:]) for v, shape in self.shapes.items()
        }
        leading = [name] + [
            v for v, one in rows.items() if one[:1] == (1,) and self.shapes[v][:1] == (2,)
        ]
        batching = Batching(None, frozenset(leading))
        weighted = [n for n in self.module.nodes_between([name], self.signature.logits)
                    if n.op_type in LINEAR and not set(n.inputs[1:2]) & self.graph.fed]  # fmt: skip
        cached = {v for n in weighted for v in (*n.inputs[:1], *n.outputs, *self.cut_set([n]))}
        folded = any(v in self._dtypes and v not in batching.leading for v in cached)
        if single and (folded or self.signature.head.alone):
            self.shapes = {**self.shapes, **rows, name: (1, *blank.shape[1:])}
            return replace(batching, step=1)
        return batching

    def _macs(self, node: Node) -> float:
        """Multiply-adds of a node on the probe batch: output size times weights per output."""
        size = float(np.prod(self.shapes.get(node.outputs[0], (0,))))
        if node.op_type in LINEAR and len(node.inputs) > 1:
            weight = self.graph.constants.get(node.inputs[1])
            if weight is not None and weight.ndim > 1:
                columns = weight.ndim == 2 and not node.attributes.get("transB", 0)
                outputs = (
                    weight.shape[-1] if columns and node.op_type != "Conv" else weight.shape[0]
                )
                return size * float(weight.size) / max(int(outputs), 1)
        return size


def compute_device(wanted: str) -> torch.device:
    """Return where torch computes: on the GPU only if ``cuda`` was asked for and torch has it.

    TF32 is switched off there: it rounds weights to 10 bits, and a location of a few weights must
    not depend on that.
    """
    if wanted != "cuda" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")
