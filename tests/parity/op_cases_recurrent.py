# SPDX-License-Identifier: Apache-2.0
"""One-node models of the recurrent operators; onnxruntime computes no layout=1."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import Case, Maker, f

TIME, BATCH, INPUTS, HIDDEN = 5, 3, 4, 6
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {
    "RNN": (["Relu"], ["LeakyRelu"], ["HardSigmoid"], ["Softsign"]),
    "GRU": (["HardSigmoid", "Softsign"], ["Sigmoid", "Elu"], ["Sigmoid", "Softplus"]),
    "LSTM": (
        ["HardSigmoid", "Relu", "Softsign"],
        ["Sigmoid", "LeakyRelu", "Elu"],
        ["Sigmoid", "Softplus", "Tanh"],
    ),
}
WITH_NUMBERS = {
    "RNN": (["Affine"], ["ScaledTanh"], ["ThresholdedRelu"]),
    "GRU": (["Sigmoid", "ScaledTanh"], ["HardSigmoid", "Affine"]),
    "LSTM": (["Sigmoid", "Affine", "ScaledTanh"], ["HardSigmoid", "ScaledTanh", "Relu"]),
}
NUMBERS = {"activation_alpha": [0.3, 0.6], "activation_beta": [0.4, 0.7]}


def weights(op_type: str, directions: int) -> list[Any]:
    """Return X, W, R and B."""
    rows = GATES[op_type] * HIDDEN
    shapes = ((directions, rows, INPUTS), (directions, rows, HIDDEN), (directions, 2 * rows))
    return [f(TIME, BATCH, INPUTS), *(f(*shape) / 2 for shape in shapes)]


def states(op_type: str, directions: int) -> list[Any]:
    count = 2 if op_type == "LSTM" else 1
    return [f(directions, BATCH, HIDDEN) for _ in range(count)]


def recurrent(op_type: str, opset: int) -> Iterator[Case]:
    count = 3 if op_type == "LSTM" else 2
    size = {"hidden_size": HIDDEN}

    def case(inputs: list[Any], **attributes: Any) -> Case:
        return Case(op_type, opset, inputs, {**size, **attributes}, outputs=count)

    for direction in ("forward", "reverse", "bidirectional"):
        ways = 2 if direction == "bidirectional" else 1
        plain = weights(op_type, ways)
        lengths = np.array([5, 2, 4], np.int32)
        yield case(plain, direction=direction)
        yield case(plain[:3], direction=direction)
        yield case([*plain, lengths], direction=direction)
        yield case([*plain, lengths, *states(op_type, ways)], direction=direction)
        yield case([*plain, None, *states(op_type, ways)], direction=direction, clip=0.4)
        yield case([*plain, np.array([5, 0, 1], np.int32)], direction=direction)
        for names in FUNCTIONS[op_type]:
            yield case(plain, direction=direction, activations=names * ways)
        for names in FUNCTIONS[op_type] + WITH_NUMBERS[op_type]:
            every = {k: v * ways for k, v in NUMBERS.items()}
            yield case(plain, direction=direction, activations=names * ways, **every)
        if op_type == "GRU":
            for rest in ({}, {"clip": 0.4}):
                yield case([*plain, lengths], direction=direction, linear_before_reset=1, **rest)
            yield case(plain[:3], direction=direction, linear_before_reset=1)
        if op_type == "LSTM":
            peepholes = f(ways, 3 * HIDDEN)
            for forget, rest in itertools.product((0, 1), ({}, {"clip": 0.4})):
                inputs = [*plain, lengths, *states(op_type, ways), peepholes]
                yield case(inputs, direction=direction, input_forget=forget, **rest)
                yield case(plain, direction=direction, input_forget=forget, **rest)


MAKERS: dict[Maker, list[str]] = {recurrent: ["RNN", "GRU", "LSTM"]}
