# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan: bodies are graphs, run as often as their conditions say.

Conditions and trip counts are read on the host. Under vmap a condition that differs from image to
image cannot be; both branches are then computed and selected from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.model import Node
from lancet_onnx.ops.host import positive_axis

Body = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]
"""Runs a body: its formal inputs by position in, its outputs by position out."""

_CONTROL = (1, 11, 13, 16, 19, 21, 23, 24, 25)
KNOWN: Mapping[str, tuple[int, ...]] = {
    "If": _CONTROL,
    "Loop": _CONTROL,
    "Scan": (8, 9, 11, 16, 19, 21, 23, 24, 25),
}
"""Revisions that are computed; they differ in the types they allow, Scan 8 in its batch axis."""

MOST_STEPS = 100_000
"""Steps that a loop may take; a hostile trip count would otherwise never end."""


def run_control(
    node: Node, inputs: Sequence[torch.Tensor | None], bodies: Mapping[str, Body]
) -> tuple[torch.Tensor, ...]:
    """Compute an If, Loop or Scan node (revisions in `KNOWN`).

    Raises:
        UnsupportedError: a condition that only the data of each image decides, or endless loops.
    """
    if node.op_type == "If":
        return _if(inputs, bodies)
    if node.op_type == "Loop":
        return _loop(node, inputs, bodies["body"])
    present = [value for value in inputs if value is not None]
    if node.since_version == 8:
        return _scan_8(node, inputs, bodies["body"])
    return _scan(node, present, bodies["body"])


def _if(
    inputs: Sequence[torch.Tensor | None], bodies: Mapping[str, Body]
) -> tuple[torch.Tensor, ...]:
    condition = inputs[0]
    if condition is None:
        raise UnsupportedError("an If without a condition")
    try:
        branch = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
    except RuntimeError:
        chosen, other = bodies["then_branch"]([]), bodies["else_branch"]([])
        if any(
            a.shape != b.shape or a.dtype != b.dtype for a, b in zip(chosen, other, strict=True)
        ):
            raise UnsupportedError(
                "each image chooses its own branch, and the branches give different shapes"
            ) from None
        single = condition.reshape(())
        return tuple(torch.where(single, a, b) for a, b in zip(chosen, other, strict=True))
    return tuple(bodies[branch]([]))


def _loop(
    node: Node, inputs: Sequence[torch.Tensor | None], body: Body
) -> tuple[torch.Tensor, ...]:
    count, condition = inputs[0], inputs[1] if len(inputs) > 1 else None
    carried = [value for value in inputs[2:] if value is not None]
    limit = MOST_STEPS + 1 if count is None else int(_host(count, "the trip count"))
    keep_going = torch.tensor(True) if condition is None else condition
    collected: list[list[torch.Tensor]] = [[] for _ in node.outputs[len(carried) :]]
    step = 0
    while step < limit and _host(keep_going, "the condition"):
        if step >= MOST_STEPS:
            raise UnsupportedError(f"a Loop of more than {MOST_STEPS} steps is not computed")
        results = body([torch.tensor(step), keep_going, *carried])
        keep_going, carried = results[0], results[1 : 1 + len(carried)]
        for values, value in zip(collected, results[1 + len(carried) :], strict=False):
            values.append(value)
        step += 1
    if step == 0 and collected:
        raise UnsupportedError("a Loop of no steps, of which the shape of a result is asked")
    return (*carried, *(torch.stack(values) for values in collected))


def _scan(node: Node, inputs: Sequence[torch.Tensor], body: Body) -> tuple[torch.Tensor, ...]:
    scanned = _number(node, "num_scan_inputs")
    states = list(inputs[: len(inputs) - scanned])
    sequences = list(inputs[len(inputs) - scanned :])
    outputs = len(node.outputs) - len(states)
    axes = _numbers(node, "scan_input_axes", scanned)
    backwards = _numbers(
        node, "directions" if node.since_version == 8 else "scan_input_directions", scanned
    )
    out_axes = _numbers(node, "scan_output_axes", outputs)
    out_backwards = _numbers(node, "scan_output_directions", outputs)
    columns = [
        list(value.unbind(positive_axis(axis, value.ndim)))[:: -1 if back else 1]
        for value, axis, back in zip(sequences, axes, backwards, strict=True)
    ]
    collected: list[list[torch.Tensor]] = [[] for _ in range(outputs)]
    for elements in zip(*columns, strict=True):
        results = body([*states, *elements])
        states = results[: len(states)]
        for values, value in zip(collected, results[len(states) :], strict=True):
            values.append(value)
    if outputs and not collected[0]:
        raise UnsupportedError("a Scan over an empty sequence, of which the result is asked")
    stacked = []
    for values, axis, back in zip(collected, out_axes, out_backwards, strict=True):
        line = values[::-1] if back else values
        stacked.append(torch.stack(line, positive_axis(axis, line[0].ndim + 1)))
    return (*states, *stacked)


def _scan_8(
    node: Node, inputs: Sequence[torch.Tensor | None], body: Body
) -> tuple[torch.Tensor, ...]:
    """Scan-8 has a batch axis in front of everything, and optional lengths as its first input."""
    if inputs[0] is not None:
        raise UnsupportedError("Scan-8 with sequence_lens is not computed")
    present = [value for value in inputs[1:] if value is not None]
    rows = [_scan(node, [value[i] for value in present], body) for i in range(len(present[0]))]
    return tuple(torch.stack(values) for values in zip(*rows, strict=True))


def _host(value: torch.Tensor, what: str) -> int:
    try:
        return int(value.reshape(-1)[0])
    except RuntimeError as error:
        raise UnsupportedError(f"{what} of the loop differs from image to image") from error


def _number(node: Node, name: str) -> int:
    value = node.attributes.get(name)
    if not isinstance(value, int):
        raise UnsupportedError(f"the attribute '{name}' is missing")
    return value


def _numbers(node: Node, name: str, count: int) -> list[int]:
    value = node.attributes.get(name)
    if value is None:
        return [0] * count
    numbers = [int(v) for v in value] if isinstance(value, list) else []
    if len(numbers) != count:
        raise UnsupportedError(f"the attribute '{name}' needs {count} numbers; found {value!r}")
    return numbers
