# SPDX-License-Identifier: Apache-2.0
"""Standard operators that ONNX itself defines as functions of other operators."""

from __future__ import annotations

import onnx
from onnx import defs

from lancet_onnx.model.freeze import schema_body
from lancet_onnx.model.graph import Graph, Node
from lancet_onnx.model.operators import MICROSOFT


def function_body(node: Node, opset: int) -> Graph | None:
    """Return what the ONNX specification defines the node's operator as, or None.

    Definitions that depend on element types are left out; `opset` selects among several. Inputs
    and outputs of the result are those of the operator, in order.
    """
    if node.since_version == 0 or node.domain == MICROSOFT:
        return None
    schema = defs.get_schema(node.op_type, node.since_version, node.domain)
    # onnx's type stubs lack what its schemas can tell of functions.
    known: list[int] = getattr(schema, "function_opset_versions", [])
    versions = [version for version in known if version <= opset]
    if not versions:
        return None
    content: bytes = getattr(schema, "get_function_with_opset_version")(max(versions))  # noqa: B009
    defaults = [a.default_value for a in schema.attributes.values() if a.default_value.name]
    return schema_body(node, onnx.FunctionProto.FromString(content), defaults)


def defined_by_functions() -> list[tuple[str, str, int]]:
    """Return domain, type and revision of the standard operators that have such a definition."""
    return sorted(
        (schema.domain, schema.name, int(schema.since_version))
        for schema in defs.get_all_schemas()
        if getattr(schema, "has_function", False) and not schema.deprecated
    )
