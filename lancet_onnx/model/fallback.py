# SPDX-License-Identifier: Apache-2.0
"""Operators that our table lacks, one node at a time, through onnx2torch where it is installed.

Whole models are never converted that way: it renames, copies and transposes weights (see
docs/decisions). For a single node its float inputs stay inputs, so that leaves remain leaves.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from lancet_onnx.model.graph import Graph, Node, is_float
from lancet_onnx.types import ValueName

_LOG = logging.getLogger(__name__)

Converted = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]


def available() -> bool:
    """Return whether onnx2torch is installed (the extra ``fallback``)."""
    return importlib.util.find_spec("onnx2torch") is not None


def convert_node(node: Node, graph: Graph) -> Converted | None:
    """Return a function of the node's inputs, or None if onnx2torch does not convert it.

    The function takes inputs as our own operators do, by position with None for absent ones, and
    ignores attributes, which are part of the conversion.
    """
    if not available() or node.graphs or node.since_version == 0:
        return None
    fed = list(dict.fromkeys(v for v in node.inputs if v and not _host_constant(graph, v)))
    held = [v for v in dict.fromkeys(node.inputs) if v and v not in fed]
    proto = helper.make_node(
        node.op_type, list(node.inputs), list(node.outputs), node.name, domain=node.domain
    )
    for name, value in node.attributes.items():
        tensor = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        proto.attribute.append(helper.make_attribute(name, tensor))
    body = helper.make_graph(
        [proto],
        "single",
        [helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, None) for v in fed],
        [helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, None) for v in node.outputs if v],
        [numpy_helper.from_array(np.asarray(graph.constants[v]), v) for v in held],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import onnx2torch

            module = onnx2torch.convert(helper.make_model(body, opset_imports=opsets))
    except Exception as error:
        # onnx2torch raises whatever comes; for us the node is then simply not supported.
        _LOG.debug("onnx2torch does not convert %s: %s", node, error)
        return None
    positions = [node.inputs.index(value) for value in fed]

    def run(
        *inputs: torch.Tensor | None, **_attributes: object
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        result: torch.Tensor | tuple[torch.Tensor, ...] = module(*(inputs[i] for i in positions))
        return result

    return run


def _host_constant(graph: Graph, value: ValueName) -> bool:
    array = graph.constants.get(value)
    return array is not None and not is_float(array.dtype)
