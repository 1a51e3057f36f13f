# SPDX-License-Identifier: Apache-2.0
"""Every operator of the table, in nodes whose inputs and outputs a hostile file chose.

None may bring down more than itself: whatever cannot be computed is refused with a sentence.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from builders import info, write
from onnx import helper, numpy_helper

from lancet_onnx.errors import LancetError
from lancet_onnx.model import load
from lancet_onnx.model.logic import logic_on_input
from lancet_onnx.ops import registry
from lancet_onnx.ops.registry import OpKey
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.dormant import switches

KEYS: dict[str, list[OpKey]] = defaultdict(list)
for found in sorted(registry.table()):
    KEYS[found[0]].append(found)
INPUTS = ([], [""], ["s"], ["s", "s"], ["", "s"], ["s", ""], ["s", "", "s"], ["s"] * 30)
OUTPUTS = (["y"], ["y", "more"], [""], [])
WEIGHT = numpy_helper.from_array(
    np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32), "w"
)


def model(key: OpKey, inputs: list[str], outputs: list[str]) -> bytes:
    """A classifier around one node of this operator and revision."""
    domain, op_type, version = key
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"], "product"),
        helper.make_node(op_type, inputs, outputs, "odd", domain=domain),
    ]
    if "y" not in outputs:
        nodes.append(helper.make_node("Identity", ["s"], ["y"], "last"))
    opsets = {"": 17} | {domain: version}
    graph = helper.make_graph(nodes, "g", [info("x", ["N", 4])], [info("y", None)], [WEIGHT])
    imports = [helper.make_opsetid(name, number) for name, number in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


@pytest.mark.filterwarnings("ignore")  # what torch thinks of such inputs is of no interest
@pytest.mark.parametrize("domain", KEYS)
def test_odd_nodes_are_computed_or_refused(tmp_path: Path, domain: str):
    computed = refused = 0
    for key in KEYS[domain]:
        for inputs in INPUTS:
            for outputs in OUTPUTS:
                path = write(tmp_path, model(key, inputs, outputs))
                try:
                    graph = load(path).graph
                    logic_on_input(graph)
                    switches(graph, Classifier(graph))
                    computed += 1
                except LancetError:
                    refused += 1
                except Exception as error:
                    raise AssertionError(f"{key}, {inputs} to {outputs}") from error
    assert computed
    assert refused
