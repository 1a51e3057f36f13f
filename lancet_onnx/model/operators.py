# SPDX-License-Identifier: Apache-2.0
"""What the ONNX specification says of an operator: its revision, its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx import defs

from lancet_onnx.errors import ModelError
from lancet_onnx.model.graph import Node
from lancet_onnx.rules import ARITY

MICROSOFT = "com.microsoft"
"""onnxruntime's own domain, which the onnx package does not describe."""


def since_version(op_type: str, domain: str, opsets: Mapping[str, int]) -> int:
    """Return the operator revision that the opsets of a file select, 0 if there is none."""
    version = opsets.get(domain)
    if domain == MICROSOFT:
        return 1  # the only version there is; files that onnxruntime wrote may leave it out
    if version is None or not defs.has(op_type, domain):
        return 0
    try:
        return int(defs.get_schema(op_type, version, domain).since_version)
    except defs.SchemaError:
        return 0


def check_arity(node: Node, path: Path) -> None:
    """Refuse a node with fewer or more inputs or outputs than its operator has.

    Raises:
        ModelError: with the node and what was expected.
    """
    if node.since_version == 0 or node.domain == MICROSOFT:
        if node.outputs:
            return
        raise ModelError(f"{path}: {node} computes nothing; the file is damaged", ARITY)
    schema = defs.get_schema(node.op_type, node.since_version, node.domain)
    for what, names, fewest, most in (
        ("inputs", node.inputs, schema.min_input, schema.max_input),
        ("outputs", node.outputs, schema.min_output, schema.max_output),
    ):
        if not fewest <= len(names) <= most:
            expected = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            expected = expected if most < 1 << 30 else f"{fewest} or more"
            raise ModelError(
                f"{path}: {node} has {len(names)} {what}, its operator has {expected}; "
                "the file is damaged",
                ARITY,
            )


def needed_inputs(node: Node) -> tuple[bool, ...]:
    """Return of each input of a node's operator whether it may not be left out."""
    schema = defs.get_schema(node.op_type, node.since_version, node.domain)
    single = defs.OpSchema.FormalParameterOption.Single
    return tuple(formal.option == single for formal in schema.inputs)
