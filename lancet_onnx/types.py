# SPDX-License-Identifier: Apache-2.0
"""The names that all rooms share: parameters, nodes, values, tensor specifications, digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NewType

ValueName = NewType("ValueName", str)
"""Name of a tensor that flows through the graph; the empty name is an absent optional input."""

ParamName = NewType("ParamName", ValueName)
"""Name of a float initializer (or of a Constant node's output): a value that is a leaf."""

NodeName = NewType("NodeName", str)
"""Name of a node; nodes that the file leaves unnamed get ``<op_type>_<position>``."""

Kind = Literal["flip", "mute"]
"""What is done to a located weight: its sign turned, or set to zero."""

Method = Literal["auto", "flip", "mute", "tune"]
"""How weights are changed: flipped, muted, tuned on the pairs; auto takes what measures best."""

Device = Literal["auto", "cpu", "cuda"]
"""Where onnxruntime runs a model; auto takes a GPU where there is one."""

Dimension = int | str | None
"""A fixed size, a symbolic size, or unknown."""

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done, 0 to 1."""


def no_progress(_what: str, _share: float) -> None:
    """A `Progress` that says nothing."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type (numpy's name, such as ``float32``) and shape of an input or output."""

    name: ValueName
    dtype: str
    shape: tuple[Dimension, ...] | None


@dataclass(frozen=True, slots=True)
class Digest:
    """A SHA-256, as 64 lower-case hexadecimal digits."""

    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the digest of `data`."""
        return cls(hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return self.sha256
