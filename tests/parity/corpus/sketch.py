# SPDX-License-Identifier: Apache-2.0
"""A few lines over onnx.helper to write graphs by hand: a call adds a node, returns its value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from corpus.store import ROWS, Made

_IR = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9}


class Sketch:
    """A graph being written.

    Attributes:
        nodes, initializers: so far.
        rng: seeded; weights and inputs come from it.
    """

    def __init__(self, opset: int, seed: int = 0, dtype: Any = np.float32) -> None:
        self.opset, self.dtype = opset, dtype
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.domains: dict[str, int] = {}
        self._count = 0

    def fresh(self, stem: str) -> str:
        """Return an unused name."""
        self._count += 1
        return f"{stem}_{self._count}"

    def const(self, values: Any, dtype: Any = np.int64, name: str | None = None) -> str:
        """Add an initializer that holds `values`."""
        name = name or self.fresh("const")
        self.initializers.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def weight(self, *shape: int, name: str | None = None, gain: float = 1.0) -> str:
        """Add a float weight of this shape, scaled by its fan-in."""
        fan = max(int(np.prod(shape[1:])), 1) if len(shape) > 1 else 4
        values = gain * self.rng.normal(size=shape) / fan**0.5
        return self.const(values, self.dtype, name or self.fresh("weight"))

    def positive(self, *shape: int) -> str:
        """Add a weight between a half and three halves."""
        return self.const(self.rng.uniform(0.5, 1.5, shape), self.dtype, self.fresh("positive"))

    def __call__(
        self, op: str, *inputs: str, n: int = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """Add a node; return its output, or a list of them where `n` is not 1."""
        outputs = [self.fresh(op) for _ in range(n)]
        self.nodes.append(
            helper.make_node(
                op, list(inputs), outputs, name=self.fresh("node"), domain=domain, **attributes
            )
        )
        return outputs[0] if n == 1 else outputs

    def branch(
        self, build: Any, inputs: list[onnx.ValueInfoProto] | None = None
    ) -> onnx.GraphProto:
        """Return a sub-graph: what `build` adds and returns (output names with their types)."""
        kept = self.nodes
        self.nodes = []
        outputs = build()
        graph = helper.make_graph(
            self.nodes,
            self.fresh("branch"),
            inputs or [],
            [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        )
        self.nodes = kept
        return graph

    def save(
        self,
        path: Path,
        shapes: dict[str, tuple[int, ...]],
        output: str | dict[str, int],
        *,
        batch: int | None = None,
        inputs: dict[str, NDArray[Any]] | None = None,
        as_inputs: bool = False,
        kind: str = "float",
        mixes: bool = False,
    ) -> Made:
        """Write the model; `shapes` are the inputs' without the batch dimension."""
        rows = inputs or {
            name: self.rng.normal(size=(ROWS, *shape)).astype(self.dtype)
            for name, shape in shapes.items()
        }
        infos = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(rows[name].dtype), [batch or "N", *shape]
            )
            for name, shape in shapes.items()
        ]
        if as_inputs:
            infos += [
                helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
                for t in self.initializers
            ]
        code = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        outputs = {output: code} if isinstance(output, str) else output
        graph = helper.make_graph(
            self.nodes,
            "graph",
            infos,
            [helper.make_tensor_value_info(name, code, None) for name, code in outputs.items()],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            functions=self.functions,
            ir_version=8 if self.functions else _IR.get(self.opset, 10),
            producer_name="hand",
        )
        onnx.save(model, path)
        return Made(rows, batch, kind, mixes=mixes)


def info(name: str, shape: list[Any], code: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """Return a typed value for the inputs of a sub-graph."""
    return helper.make_tensor_value_info(name, code, shape)
