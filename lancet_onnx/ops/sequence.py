# SPDX-License-Identifier: Apache-2.0
"""Sequences of tensors, which are lists here: what exporters split, collect and join.

Positions and lengths are read on the host. A sequence lives between nodes only; it is no input, no
output and no leaf of a model.
"""

from __future__ import annotations

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_int, host_ints, positive_axis
from lancet_onnx.ops.registry import op

Tensors = list[torch.Tensor]


def _place(sequence: Tensors, position: torch.Tensor | None, *, room: int) -> int:
    """Return a position counted from the front, by default the last of len + room places."""
    places = len(sequence) + room
    at = places - 1 if position is None else host_int(position, "a position in a sequence")
    if not -len(sequence) <= at < places:
        raise UnsupportedError(f"position {at} in a sequence of {len(sequence)}")
    return at + len(sequence) if at < 0 else at


@op("SequenceEmpty", 11)
def sequence_empty(*, dtype: int = 1) -> Tensors:
    """SequenceEmpty (11)."""
    return []


@op("SequenceConstruct", 11)
def sequence_construct(*inputs: torch.Tensor) -> Tensors:
    """SequenceConstruct (11)."""
    return list(inputs)


@op("SequenceAt", 11)
def sequence_at(input_sequence: Tensors, position: torch.Tensor) -> torch.Tensor:
    """SequenceAt (11)."""
    return input_sequence[_place(input_sequence, position, room=0)]


@op("SequenceInsert", 11)
def sequence_insert(
    input_sequence: Tensors, tensor: torch.Tensor, position: torch.Tensor | None = None
) -> Tensors:
    """SequenceInsert (11): at the end by default."""
    at = _place(input_sequence, position, room=1)
    return [*input_sequence[:at], tensor, *input_sequence[at:]]


@op("SequenceErase", 11)
def sequence_erase(input_sequence: Tensors, position: torch.Tensor | None = None) -> Tensors:
    """SequenceErase (11): the last one by default."""
    at = _place(input_sequence, position, room=0)
    return [*input_sequence[:at], *input_sequence[at + 1 :]]


@op("SequenceLength", 11)
def sequence_length(input_sequence: Tensors) -> torch.Tensor:
    """SequenceLength (11): on the host."""
    return torch.tensor(len(input_sequence))


@op("SplitToSequence", 11, 24)
def split_to_sequence(
    input: torch.Tensor, split: torch.Tensor | None = None, *, axis: int = 0, keepdims: int = 1
) -> Tensors:
    """SplitToSequence (11, 24): by one size, by several, or into single places."""
    at = positive_axis(axis, input.ndim)
    if split is None:
        return list(torch.split(input, 1, at) if keepdims else torch.unbind(input, at))
    sizes = host_ints(split, "the sizes of SplitToSequence")
    return list(torch.split(input, sizes if split.ndim else sizes[0], at))


@op("ConcatFromSequence", 11)
def concat_from_sequence(input_sequence: Tensors, *, axis: int, new_axis: int = 0) -> torch.Tensor:
    """ConcatFromSequence (11)."""
    if new_axis:
        rank = input_sequence[0].ndim + 1
        return torch.stack(input_sequence, positive_axis(axis, rank))
    return torch.cat(input_sequence, axis)
