# SPDX-License-Identifier: Apache-2.0
"""RNN, GRU and LSTM as a plain loop over time, with the products of the inputs taken before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import meet
from lancet_onnx.ops.registry import op

Activation = Callable[[torch.Tensor], torch.Tensor]
States = tuple[torch.Tensor, ...]
Step = Callable[[torch.Tensor, States], States]
"""Takes one time's products of inputs and weights, and the states; the first is the output."""
Direction = tuple[Activation, Step]
"""How all inputs are multiplied by the weights, and the step."""


def _affine(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return alpha * x + beta


def _scaled_tanh(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return alpha * torch.tanh(beta * x)


def _hard_sigmoid(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _thresholded_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


_PLAIN: dict[str, Activation] = {
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "tanh": torch.tanh,
}
_WITH_NUMBERS: dict[str, tuple[Callable[..., torch.Tensor], dict[str, float | None]]] = {
    "affine": (_affine, {"alpha": None, "beta": None}),
    "elu": (functional.elu, {"alpha": 1.0}),
    "hardsigmoid": (_hard_sigmoid, {"alpha": 0.2, "beta": 0.5}),
    "leakyrelu": (functional.leaky_relu, {"alpha": 0.01}),
    "scaledtanh": (_scaled_tanh, {"alpha": None, "beta": None}),
    "thresholdedrelu": (_thresholded_relu, {"alpha": None}),
}
"""With their defaults; None where onnxruntime takes 0 and the specification something else."""


def activations_of(
    names: list[str], alphas: list[float] | None, betas: list[float] | None
) -> list[Activation]:
    """Return activations; each that takes an alpha or a beta uses up the next one given."""
    given: dict[str, Iterator[float]] = {"alpha": iter(alphas or ()), "beta": iter(betas or ())}
    found: list[Activation] = []
    for name in names:
        key = name.lower()
        if key in _PLAIN:
            found.append(_PLAIN[key])
        elif key in _WITH_NUMBERS:
            function, defaults = _WITH_NUMBERS[key]
            numbers = [next(given[which], default) for which, default in defaults.items()]
            if None in numbers:
                raise UnsupportedError(f"activation {name} needs its {' and '.join(defaults)}")
            found.append(lambda x, f=function, n=numbers: f(x, *n))  # type: ignore[misc]
        else:
            raise UnsupportedError(f"activation {name!r} of a recurrent operator is not computed")
    return found


def limited(values: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Clamp what goes into an activation."""
    return values if not clip else torch.clamp(values, -clip, clip)


def _sweep(
    products: torch.Tensor,
    states: States,
    alive: torch.Tensor | None,
    step: Step,
    *,
    backwards: bool,
) -> tuple[torch.Tensor, States]:
    """Run one direction over time; beyond a sequence's end the output is 0 and states stay."""
    count = products.shape[0]
    rows: dict[int, torch.Tensor] = {}
    for t in range(count - 1, -1, -1) if backwards else range(count):
        new = step(products[t], states)
        if alive is None:
            rows[t] = new[0]
        else:
            rows[t] = torch.where(alive[t], new[0], torch.zeros_like(new[0]))
            pairs = zip(new, states, strict=True)
            new = tuple(torch.where(alive[t], now, before) for now, before in pairs)
        states = new
    return torch.stack([rows[t] for t in range(count)]), states


def run_directions(
    X: torch.Tensor,
    count: int,
    size: int,
    initial: list[torch.Tensor | None],
    sequence_lens: torch.Tensor | None,
    direction: str,
    layout: int,
    direction_of: Callable[[int], Direction],
) -> tuple[torch.Tensor, ...]:
    """Run count directions over X, with states of the given size."""
    if direction not in ("forward", "reverse", "bidirectional"):
        raise UnsupportedError(f"direction {direction!r} of a recurrent operator is not known")
    if layout:
        X = X.transpose(0, 1)
        initial = [state if state is None else state.transpose(0, 1) for state in initial]
    alive = None
    if sequence_lens is not None:
        times = torch.arange(X.shape[0], device=sequence_lens.device)
        alive = (times.reshape(-1, 1) < sequence_lens).unsqueeze(-1)
        _, alive = meet(X, alive)
    outputs, ends = [], []
    for d in range(count):
        product_of, step = direction_of(d)
        zeros = X.new_zeros(X.shape[1], size)
        states = tuple(zeros if state is None else state[d] for state in initial)
        backwards = direction == "reverse" or d == 1
        output, end = _sweep(product_of(X), states, alive, step, backwards=backwards)
        outputs.append(output)
        ends.append(end)
    Y = torch.stack(outputs, 1)
    last = [torch.stack(states) for states in zip(*ends, strict=True)]
    if layout:
        Y, last = Y.permute(2, 0, 1, 3), [state.transpose(0, 1) for state in last]
    return Y, *last


def _together(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Move what lives on the host, such as zeros to start from, to the device of the rest."""
    met = iter(meet(*(t for t in tensors if t is not None)))
    return [None if t is None else next(met) for t in tensors]


def _needed(tensors: list[torch.Tensor | None]) -> list[torch.Tensor]:
    return [t for t in tensors if t is not None]


def _check_size(hidden_size: int | None, R: torch.Tensor, op_type: str) -> None:
    if hidden_size not in (None, R.shape[-1]):
        raise UnsupportedError(f"{op_type}: hidden_size {hidden_size} but weights {R.shape[-1]}")


@op("RNN", 7, 14, 22)
def rnn(
    X: torch.Tensor,
    W: torch.Tensor,
    R: torch.Tensor,
    B: torch.Tensor | None = None,
    sequence_lens: torch.Tensor | None = None,
    initial_h: torch.Tensor | None = None,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[torch.Tensor, ...]:
    """RNN (7, 14, 22)."""
    _check_size(hidden_size, R, "RNN")
    X, W, R = _needed(_together(X, W, R, B, initial_h)[:3])
    _, B, initial_h = _together(X, B, initial_h)
    names = activations or ["Tanh"] * W.shape[0]
    functions = activations_of(names, activation_alpha, activation_beta)

    def direction_of(d: int) -> Direction:
        def step(product: torch.Tensor, states: States) -> States:
            return (functions[d](limited(product + functional.linear(states[0], R[d]), clip)),)

        bias = None if B is None else B[d].reshape(2, -1).sum(0)
        return partial(functional.linear, weight=W[d], bias=bias), step

    count, size, initial = W.shape[0], R.shape[-1], [initial_h]
    return run_directions(X, count, size, initial, sequence_lens, direction, layout, direction_of)


@op("GRU", 7, 14, 22)
def gru(
    X: torch.Tensor,
    W: torch.Tensor,
    R: torch.Tensor,
    B: torch.Tensor | None = None,
    sequence_lens: torch.Tensor | None = None,
    initial_h: torch.Tensor | None = None,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[torch.Tensor, ...]:
    """GRU (7, 14, 22)."""
    _check_size(hidden_size, R, "GRU")
    X, W, R = _needed(_together(X, W, R, B, initial_h)[:3])
    _, B, initial_h = _together(X, B, initial_h)
    size = R.shape[-1]
    names = activations or ["Sigmoid", "Tanh"] * W.shape[0]
    functions = activations_of(names, activation_alpha, activation_beta)

    def direction_of(d: int) -> Direction:
        f, g = functions[2 * d : 2 * d + 2]
        inner: torch.Tensor | None = None
        bias = None
        if B is not None:
            bias, recurrent = B[d].reshape(2, -1)
            if linear_before_reset:
                inner = recurrent[2 * size :]
                recurrent = functional.pad(recurrent[: 2 * size], [0, size])
            bias = bias + recurrent
        gate_weights, weights = R[d, : 2 * size], R[d, 2 * size :]

        def step(product: torch.Tensor, states: States) -> States:
            (h,) = states
            sums = product[..., : 2 * size] + functional.linear(h, gate_weights)
            z, r = f(limited(sums, clip)).chunk(2, -1)
            if linear_before_reset:
                memory = r * functional.linear(h, weights, inner)
            else:
                memory = functional.linear(r * h, weights)
            new = g(limited(product[..., 2 * size :] + memory, clip))
            return ((1 - z) * new + z * h,)

        return partial(functional.linear, weight=W[d], bias=bias), step

    count, initial = W.shape[0], [initial_h]
    return run_directions(X, count, size, initial, sequence_lens, direction, layout, direction_of)


def lstm_step(
    recur: Activation,
    peepholes: torch.Tensor | None,
    functions: list[Activation],
    clip: float | None,
    input_forget: int,
) -> Step:
    """Return the step of one direction of an LSTM; gates come as input, output, forget, cell.

    recur multiplies the last output by the recurrent weights.
    """
    f, g, h = functions
    Pi, Po, Pf = (None, None, None) if peepholes is None else peepholes.chunk(3)

    def gate(sums: torch.Tensor, weight: torch.Tensor | None, cell: torch.Tensor) -> torch.Tensor:
        return f(limited(sums if weight is None else sums + weight * cell, clip))

    def step(product: torch.Tensor, states: States) -> States:
        output, cell = states
        i, o, forget, c = (product + recur(output)).chunk(4, -1)
        i = gate(i, Pi, cell)
        forget = 1 - i if input_forget else gate(forget, Pf, cell)
        cell = forget * cell + i * g(limited(c, clip))
        return gate(o, Po, cell) * h(cell), cell

    return step


@op("LSTM", 7, 14, 22)
def lstm(
    X: torch.Tensor,
    W: torch.Tensor,
    R: torch.Tensor,
    B: torch.Tensor | None = None,
    sequence_lens: torch.Tensor | None = None,
    initial_h: torch.Tensor | None = None,
    initial_c: torch.Tensor | None = None,
    P: torch.Tensor | None = None,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[torch.Tensor, ...]:
    """LSTM (7, 14, 22)."""
    _check_size(hidden_size, R, "LSTM")
    X, W, R = _needed(_together(X, W, R, B, initial_h, initial_c, P)[:3])
    _, B, initial_h, initial_c, P = _together(X, B, initial_h, initial_c, P)
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * W.shape[0]
    functions = activations_of(names, activation_alpha, activation_beta)

    def direction_of(d: int) -> Direction:
        bias = None if B is None else B[d].reshape(2, -1).sum(0)
        peepholes = None if P is None else P[d]
        step = lstm_step(
            partial(functional.linear, weight=R[d]),
            peepholes,
            functions[3 * d : 3 * d + 3],
            clip,
            input_forget,
        )
        return partial(functional.linear, weight=W[d], bias=bias), step

    count, size, initial = W.shape[0], R.shape[-1], [initial_h, initial_c]
    return run_directions(X, count, size, initial, sequence_lens, direction, layout, direction_of)
