# SPDX-License-Identifier: Apache-2.0
"""Two patches, one after the other, as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lancet_onnx.errors import PatchError
from lancet_onnx.patch.core import Elements, Patch, TensorDelta


def compose(first: Patch, second: Patch) -> Patch:
    """Return the patch that does what `first` and then `second` do.

    Raises:
        PatchError: `second` was not made for the result of `first`, or contradicts it.
    """
    if first.result is None or first.result != second.base:
        found = str(first.result)[:12] if first.result else "unknown"
        raise PatchError(
            f"the second patch was made for a model of digest {str(second.base)[:12]}..., but the "
            f"first one's result is {found}...; give patches that follow each other"
        )
    later = {delta.param: delta for delta in second.deltas}
    deltas = []
    for delta in first.deltas:
        after = later.pop(delta.param, None)
        deltas.append(delta if after is None else _merged(delta, after))
    deltas += [delta for delta in second.deltas if delta.param in later]
    metrics = {f"first.{name}": value for name, value in first.metrics.items()}
    metrics |= {f"second.{name}": value for name, value in second.metrics.items()}
    return Patch(
        first.base,
        first.base_weights,
        second.result,
        tuple(delta for delta in deltas if delta.count),
        f"compose({first.method}, seed {first.seed}; {second.method}, seed {second.seed})",
        second.seed,
        metrics,
        first.metadata + second.metadata,
    )


def _merged(first: TensorDelta, second: TensorDelta) -> TensorDelta:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        raise PatchError(
            f"the patches disagree about '{first.param}': {first.dtype} {first.shape} in the "
            f"first, {second.dtype} {second.shape} in the second"
        )

    def blocks() -> Iterator[Elements]:
        for one, other in _side_by_side(first.blocks(), second.blocks()):
            merged = _both(one, other, first)
            if len(merged.at):
                yield merged

    count = sum(len(block.at) for block in blocks())
    return replace(first, count=count, source=blocks)


def _side_by_side(
    first: Iterator[Elements], second: Iterator[Elements]
) -> Iterator[tuple[Elements, Elements]]:
    """Yield parts of both that cover the same positions, in order."""
    one, other = next(first, None), next(second, None)
    while one is not None or other is not None:
        if one is None or other is None:
            known = one if other is None else other
            assert known is not None  # noqa: S101 - not both are None
            nothing = _part(known, 0, 0)
            yield (known, nothing) if other is None else (nothing, known)
            one, other = (next(first, None), None) if other is None else (None, next(second, None))
            continue
        upto = min(int(one.at[-1]), int(other.at[-1]))
        ends = [int(np.searchsorted(e.at, upto, side="right")) for e in (one, other)]
        yield _part(one, 0, ends[0]), _part(other, 0, ends[1])
        one = _part(one, ends[0], None) if ends[0] < len(one.at) else next(first, None)
        other = _part(other, ends[1], None) if ends[1] < len(other.at) else next(second, None)


def _part(elements: Elements, start: int, stop: int | None) -> Elements:
    at, old, new = elements
    return Elements(at[start:stop], old[start:stop], new[start:stop])


def _both(one: Elements, other: Elements, delta: TensorDelta) -> Elements:
    """Return what the two together change, without what the second puts back."""
    index = np.union1d(one.at, other.at)
    old, new = np.empty(len(index), one.old.dtype), np.empty(len(index), one.old.dtype)
    first, then = np.searchsorted(index, one.at), np.searchsorted(index, other.at)
    new[first] = one.new
    shared = np.isin(other.at, one.at, assume_unique=True)
    wrong = np.flatnonzero(new[then[shared]] != other.old[shared])
    if len(wrong):
        raise PatchError(
            f"element {int(other.at[shared][wrong[0]])} of '{delta.param}': the second patch "
            "expects another value than the first one writes"
        )
    old[then] = other.old
    old[first] = one.old
    new[then] = other.new
    changed = old != new
    return Elements(index[changed], old[changed], new[changed])
