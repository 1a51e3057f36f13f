# SPDX-License-Identifier: Apache-2.0
"""What names mean at one place of a file, and what is gathered while its graphs are walked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from lancet_onnx.errors import ModelError
from lancet_onnx.model.external import External
from lancet_onnx.model.graph import Array
from lancet_onnx.model.values import ReadTensor
from lancet_onnx.model.wire import FieldPath, Span
from lancet_onnx.rules import NAMES
from lancet_onnx.types import ValueName

SpanOf = Callable[[FieldPath], Span | None]
"""Returns where the numbers of the tensor or attribute at a path lie."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A constant as the file keeps it.

    Attributes:
        path: to its tensor, or to the attribute that holds plain numbers.
        dtype: element type as numpy names it.
        shape: of the whole tensor.
        span: where its numbers lie in the .onnx file; None for none there.
        external: its bytes outside the .onnx file, if they are there.
        positions: of a sparse tensor, the flat positions of the values that are stored.
        read: returns all its values, as a read-only array.
    """

    path: FieldPath
    dtype: str
    shape: tuple[int, ...]
    span: Span | None
    read: Callable[[], Array]
    external: External | None = None
    positions: Array | None = None

    @property
    def width(self) -> int:
        """Bytes that one value takes in an array; 0 for text."""
        return 0 if self.dtype == "object" else np.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        """Bytes that all values take in an array."""
        return math.prod(self.shape) * self.width


@dataclass(slots=True)
class Collected:
    """What is gathered over the whole file while its graphs are walked."""

    path: Path
    read: ReadTensor
    span_of: SpanOf
    functions: Mapping[tuple[str, str], tuple[int, onnx.FunctionProto]]
    opsets: Mapping[str, int]
    stored: dict[ValueName, Stored] = field(default_factory=dict)
    at: dict[FieldPath, ValueName] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    taken: frozenset[str] = frozenset()
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean at one place of the file.

    Attributes:
        at: path of the message that holds the nodes.
        prefix: goes before the names of nodes and values of a function call.
        owner: goes before the names of the function's own constants, which all calls share.
        opsets: version per domain that counts here.
        values: names that stand for something else than themselves.
        given: attributes of the call, for those that the body refers to.
        depth: how many calls and branches deep.
        qualify: prefix for constants of a branch whose name is taken.
    """

    at: FieldPath
    prefix: str
    owner: str
    opsets: Mapping[str, int]
    values: dict[str, ValueName]
    given: Mapping[str, tuple[onnx.AttributeProto, FieldPath]]
    depth: int
    qualify: str


def lift(name: str, stored: Stored, scope: Scope, found: Collected) -> None:
    """Give a constant a name of its own in the whole file, and make the scope know it.

    One place in the file is one leaf, however often a function is called.
    """
    known = found.at.get(stored.path)
    if known is None:
        of_body = stored.path[: len(scope.at)] == scope.at
        known = ValueName(f"{scope.owner if of_body else scope.prefix}{name}")
        if scope.depth and (known in found.taken or known in found.stored):
            known = ValueName(f"{scope.qualify}{known}")
        if known in found.stored:
            raise ModelError(f"{found.path}: two constants have the name '{known}'; refused", NAMES)
        found.stored[known] = stored
        found.at[stored.path] = known
    if scope.depth:
        scope.values[name] = known


def title_of(node: onnx.NodeProto, position: int, scope: Scope, found: Collected) -> str:
    """Return a name for a node that no other has; unnamed ones are named by kind and place."""
    title = f"{scope.prefix}{node.name or f'{node.op_type}_{position}'}"
    while title in found.names:
        title = f"{title}_{position}"
    found.names.add(title)
    return title


def bound(
    entry: onnx.AttributeProto, where: FieldPath, scope: Scope
) -> tuple[onnx.AttributeProto | None, FieldPath]:
    """Return the attribute that `entry` is or refers to, and where it is stored."""
    if not entry.ref_attr_name:
        return entry, where
    given = scope.given.get(entry.ref_attr_name)
    if given is None:
        return None, ()
    attribute = onnx.AttributeProto()
    attribute.CopyFrom(given[0])
    attribute.name = entry.name
    return attribute, given[1]


def read_name(name: str, scope: Scope) -> ValueName:
    """Return what a name that is read stands for."""
    known = scope.values.get(name)
    if known is not None or not name:
        return known or ValueName("")
    return ValueName(f"{scope.prefix}{name}")


def made_name(name: str, scope: Scope) -> ValueName:
    """Return the name for a value that is computed here."""
    if name and name not in scope.values and scope.prefix:
        scope.values[name] = ValueName(f"{scope.prefix}{name}")
    return read_name(name, scope)
