# SPDX-License-Identifier: Apache-2.0
"""torch.autograd.gradcheck for every operator of the table, in double precision.

Each operator is one of three: it has a derivative, which finite differences confirm; it has none,
for a reason given here; or it rounds and its gradient passes straight through, which finite
differences confirm of the same computation with the rounding errors held.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from op_cases import RNG, Case, f, f32
from parity_nodes import attributes_of
from test_ops import MAKER_OF, SEQUENCES, opsets_of
from torch.autograd import gradcheck
from torch.overrides import TorchFunctionMode

from lancet_onnx.ops import lookup, table

Key = tuple[str, str]

OPERATORS: list[Key] = sorted(
    {(domain, op_type) for domain, op_type, _ in table()}
    # These only hand tensors on; gradients through them are in test_sequences.py.
    - {("", op_type) for op_type in SEQUENCES}
)
ENTRIES = 250
"""Every partial derivative is compared while there are no more inputs and outputs than this;
beyond, and in further cases of the same operator, one random combination of all of them."""
FURTHER = 12
SEEDED = np.random.default_rng(0).bit_generator.state

CONSTANT = "constant between its steps"
PLACES = "gives positions, classes or truth values"
INTEGERS = "computes with integers, bits or truth values"
STORED = "its numbers come from attributes or shapes"
HOST = "its floats are read on the host: they set a length"

NOT_DIFFERENTIABLE: dict[Key, str] = {
    ("", "And"): INTEGERS,
    ("", "ArgMax"): PLACES,
    ("", "ArgMin"): PLACES,
    ("", "BitCast"): "reads the bits of a number as another type",
    ("", "BitShift"): INTEGERS,
    ("", "BitwiseAnd"): INTEGERS,
    ("", "BitwiseNot"): INTEGERS,
    ("", "BitwiseOr"): INTEGERS,
    ("", "BitwiseXor"): INTEGERS,
    ("", "Ceil"): CONSTANT,
    ("", "Constant"): STORED,
    ("", "ConstantOfShape"): STORED,
    ("", "Equal"): PLACES,
    ("", "EyeLike"): STORED,
    ("", "Floor"): CONSTANT,
    ("", "Greater"): PLACES,
    ("", "GreaterOrEqual"): PLACES,
    ("", "Hardmax"): CONSTANT,
    ("", "IsInf"): PLACES,
    ("", "IsNaN"): PLACES,
    ("", "Less"): PLACES,
    ("", "LessOrEqual"): PLACES,
    ("", "MelWeightMatrix"): HOST,
    ("", "NonMaxSuppression"): PLACES,
    ("", "NonZero"): PLACES,
    ("", "Not"): INTEGERS,
    ("", "Or"): INTEGERS,
    ("", "Range"): HOST,
    ("", "Round"): CONSTANT,
    ("", "Shape"): STORED,
    ("", "Sign"): CONSTANT,
    ("", "Size"): STORED,
    ("", "TfIdfVectorizer"): "counts words",
    ("", "Xor"): INTEGERS,
    ("ai.onnx.ml", "Binarizer"): CONSTANT,
    ("ai.onnx.ml", "LabelEncoder"): "looks its input up in a table",
    ("ai.onnx.ml", "OneHotEncoder"): PLACES,
}

RESULT = "rounds its result"
MEASURED = "rounds its input, by a scale that it measures"
STRAIGHT_THROUGH: dict[Key, str] = {
    ("", "DynamicQuantizeLinear"): MEASURED,
    ("", "QLinearConv"): RESULT,
    ("", "QLinearMatMul"): RESULT,
    ("", "QuantizeLinear"): RESULT,
    ("com.microsoft", "DynamicQuantizeLSTM"): MEASURED,
    ("com.microsoft", "DynamicQuantizeMatMul"): MEASURED,
    ("com.microsoft", "QGemm"): RESULT,
    ("com.microsoft", "QLinearAdd"): RESULT,
    ("com.microsoft", "QLinearAveragePool"): RESULT,
    ("com.microsoft", "QLinearConcat"): "rounds its inputs to a scale in common",
    ("com.microsoft", "QLinearConv"): RESULT,
    ("com.microsoft", "QLinearGlobalAveragePool"): RESULT,
    ("com.microsoft", "QLinearLeakyRelu"): RESULT,
    ("com.microsoft", "QLinearMul"): RESULT,
    ("com.microsoft", "QLinearSigmoid"): RESULT,
    ("com.microsoft", "QLinearSoftmax"): RESULT,
    ("com.microsoft", "QLinearWhere"): "rounds its inputs to a scale in common",
    ("com.microsoft", "QuantizeLinear"): RESULT,
}


class Doubled(TorchFunctionMode):
    """Computes in double what an operator, as onnxruntime does, computes in single precision."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        named = {name: _double(value) for name, value in (kwargs or {}).items()}
        return function(*[_double(value) for value in args], **named)


def _double(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value == torch.float32 else value


class Held(TorchFunctionMode):
    """Repeats the rounding errors, clamps, ranges and counts of the first run in later ones.

    What is left is smooth, has the same value at the point of the first run, and its derivative
    there is what a straight-through gradient is meant to be.
    """

    ROUNDING = (torch.round, torch.Tensor.round)
    CLAMPING = (torch.clamp, torch.Tensor.clamp)
    MEASURING = (torch.amin, torch.amax, torch.Tensor.amin, torch.Tensor.amax, torch.floor)

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []
        self.roundings = 0
        self.turn: int | None = None

    def again(self) -> None:
        self.turn = 0

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        held = (*self.ROUNDING, *self.CLAMPING, *self.MEASURING)
        if function not in held:
            return function(*args, **(kwargs or {}))
        x = args[0].detach()
        if self.turn is None:
            result = function(*args, **(kwargs or {}))
            if function in self.ROUNDING:
                self.roundings += 1
                self.kept.append(result - x)
            elif function in self.CLAMPING:
                self.kept.append((result == x, result))
            else:
                self.kept.append(result)
            return result
        kept = self.kept[self.turn]
        self.turn += 1
        if function in self.ROUNDING:
            return x + kept
        return torch.where(kept[0], x, kept[1]) if function in self.CLAMPING else kept


def apart(op_type: str, opset: int) -> Iterator[Case]:
    """Yield cases of the operators that test_ops compares elsewhere than with onnxruntime."""
    if op_type == "BitCast":
        yield Case(op_type, opset, [f(2, 3)], {"to": 7})  # doubles here
    elif op_type == "CastLike":
        yield Case(op_type, opset, [f(2, 3), f(1)])
    elif op_type == "CausalConvWithState":
        yield Case(op_type, opset, [f(1, 2, 4), f(2, 1, 3), f(2)], {"activation": "silu"}, 2)
        yield Case(op_type, opset, [f(1, 2, 4), f(2, 1, 3), f(2), f(1, 2, 2)], {}, 2)
    elif op_type == "Constant":
        yield Case(op_type, opset, [], {"value": numpy_helper.from_array(f(2))})
    elif op_type == "CumProd":
        for exclusive, reverse in ((0, 0), (1, 0), (0, 1), (1, 1)):
            attributes = {"exclusive": exclusive, "reverse": reverse}
            yield Case(op_type, opset, [f(2, 3), np.int64(1)], attributes)
    elif op_type == "FlexAttention":
        inputs = [f(1, 4, 2, 4), f(1, 2, 3, 4), f(1, 2, 3, 2)]
        yield Case(op_type, opset, inputs, {}, domain="ai.onnx.preview")
    elif op_type == "LinearAttention":
        inputs = [f(1, 3, 8), f(1, 3, 4), f(1, 3, 4), f(1, 2, 2, 2), f(1, 3, 2), f(1, 3, 1)]
        yield Case(op_type, opset, inputs, {"q_num_heads": 4, "kv_num_heads": 2}, 2)
    elif op_type == "Upsample" and opset < 10:
        for mode in ("nearest", "linear"):
            data, attributes = f(1, 2, 3, 4), {"mode": mode}
            if opset < 9:
                yield Case(op_type, opset, [data], {**attributes, "scales": [1.0, 1.0, 2.0, 3.0]})
            else:
                yield Case(op_type, opset, [data, f32(1, 1, 2, 3)], attributes)


class Specimen:
    """One case as a function of those of its inputs that may have a gradient.

    Floats become doubles, and so do the integers that a quantised operator carries as floats.
    What is read on the host stays as it is, and so do infinities and NaN.
    """

    def __init__(self, key: Key, case: Case) -> None:
        model, feeds = case.model()
        node = model.graph.node[0]
        since = max(v for d, name, v in table() if (d, name) == key and v <= case.opset)
        operator = lookup((*key, since))
        assert operator is not None
        self.function, self.inputs = operator.function, list(node.input)
        self.attributes = attributes_of(node)
        if operator.counts_outputs:
            self.attributes["n_outputs"] = len(node.output)
        self.outputs = [place for place, name in enumerate(node.output) if name]
        parameters = list(inspect.signature(self.function).parameters)
        quantised = operator.carried or any("zero_point" in name for name in parameters)
        self.values = {name: torch.tensor(array) for name, array in feeds.items()}
        self.leaves: dict[str, torch.Tensor] = {}
        rng = np.random.default_rng(1)
        for place, name in enumerate(self.inputs):
            if not name or place in operator.host or not feeds[name].size:
                continue
            array = feeds[name]
            carried = quantised and _carries(array, parameters[min(place, len(parameters) - 1)])
            if array.dtype.kind == "f" or carried:
                data = np.where(np.isfinite(array), array, 0).astype(np.float64)
                if carried:  # between whole numbers nothing ties, and no kink is met
                    data += rng.uniform(-0.3, 0.3, data.shape)
                elif np.unique(data).size < data.size:
                    data += rng.uniform(-0.01, 0.01, data.shape)
                self.leaves[name] = torch.tensor(data)

    def __call__(self, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs in double precision, NaN that went in made zero."""
        given = dict(self.values)
        for name, leaf in zip(self.leaves, leaves, strict=True):
            known = self.values[name]
            given[name] = torch.where(known.isfinite(), leaf, known.double())
        result = self.function(*[given.get(name) for name in self.inputs], **self.attributes)
        parts = result if isinstance(result, tuple) else (result,)
        doubles = [parts[k] for k in self.outputs if parts[k].dtype == torch.float64]
        return tuple(torch.where(part.isfinite(), part, 0.0) for part in doubles)

    def point(self) -> list[torch.Tensor]:
        return [leaf.clone().requires_grad_() for leaf in self.leaves.values()]

    def gradient(self) -> list[torch.Tensor | None] | None:
        """Return the gradient of a random combination of the outputs; None if they have none."""
        point = self.point()
        parts = [part for part in self(*point) if part.requires_grad]
        if not parts:
            return None
        return list(
            torch.autograd.grad(parts, point, [cotangent(p) for p in parts], allow_unused=True)
        )


def _carries(array: np.ndarray[Any, Any], parameter: str) -> bool:
    beside = any(word in parameter for word in ("zero_point", "ids", "mask", "lens"))
    return bool(array.ndim) and array.dtype.kind in "iu" and array.itemsize <= 4 and not beside


def cotangent(part: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(part.numel())
    return torch.randn(part.shape, dtype=part.dtype, generator=generator)


def revisions(key: Key) -> list[list[Specimen]]:
    """Return, for each function that computes the operator, the newest cases, smallest first."""
    domain, op_type = key
    maker = MAKER_OF.get(key, apart)
    found: dict[Any, list[Specimen]] = {}
    before, RNG.bit_generator.state = RNG.bit_generator.state, SEEDED
    for opset in reversed(opsets_of(domain, op_type)):
        cases = list(maker(op_type, opset))
        cases.sort(key=lambda case: sum(np.size(x) for x in case.inputs if x is not None))
        if cases:
            several = [Specimen(key, case) for case in cases]
            found.setdefault(several[0].function, several)
    RNG.bit_generator.state = before
    assert found, f"{key} has no case"
    return list(found.values())


def chosen(key: Key) -> Iterator[tuple[bool, Specimen]]:
    """Yield, of each revision, the smallest specimen with leaves and some of the others."""
    for several in revisions(key):
        with_leaves = [specimen for specimen in several if specimen.leaves]
        rest = with_leaves[1:]
        yield from ((True, specimen) for specimen in with_leaves[:1])
        yield from ((False, specimen) for specimen in rest[:: len(rest) // FURTHER + 1])


def nonzero(gradient: Sequence[torch.Tensor | None] | None) -> bool:
    return any(part is not None and bool(part.any()) for part in gradient or ())


SMOOTH = [key for key in OPERATORS if key not in NOT_DIFFERENTIABLE and key not in STRAIGHT_THROUGH]


@pytest.mark.parametrize("key", SMOOTH, ids="-".join)
def test_gradient(key: Key) -> None:
    reached = False
    for smallest, specimen in chosen(key):
        with Doubled():
            point = specimen.point()
            parts = specimen(*point)
            size = sum(t.numel() for t in (*point, *parts))
            if not parts:
                continue  # a cast to half precision
            assert all(part.requires_grad for part in parts)
            assert gradcheck(specimen, point, fast_mode=not smallest or size > ENTRIES)
            reached = reached or nonzero(specimen.gradient())
    assert reached, "its gradient is zero everywhere: name it in NOT_DIFFERENTIABLE"


@pytest.mark.parametrize("key", sorted(NOT_DIFFERENTIABLE), ids="-".join)
def test_no_gradient(key: Key) -> None:
    with Doubled():
        gradients = [specimen.gradient() for several in revisions(key) for specimen in several]
    assert not any(map(nonzero, gradients)), "it has a gradient"


@pytest.mark.parametrize("key", sorted(STRAIGHT_THROUGH), ids="-".join)
def test_straight_through_gradient(key: Key) -> None:
    reached, rounded = False, 0
    for _, specimen in chosen(key):
        with Doubled():
            gradient = specimen.gradient()
            assert gradient is not None
            reached = reached or nonzero(gradient)
            wanted, roundings = held_derivatives(specimen)
        rounded += roundings
        for leaf, found, direction, slope in zip(
            specimen.leaves.values(), gradient, directions(specimen), wanted, strict=True
        ):
            scale = 0.0 if found is None else float(found.norm() * direction.norm())
            given = 0.0 if found is None else float((found * direction).sum())
            assert given == pytest.approx(slope, rel=1e-6, abs=1e-6 * scale + 1e-9), leaf.shape
    assert reached
    assert rounded, "it rounds nothing: its gradient is one that test_gradient checks"


def directions(specimen: Specimen) -> list[torch.Tensor]:
    return [cotangent(leaf) for leaf in specimen.leaves.values()]


def held_derivatives(specimen: Specimen) -> tuple[list[float], int]:
    """Return the derivative along a direction of each leaf, the rounding errors held."""
    held, point = Held(), [leaf.clone() for leaf in specimen.leaves.values()]
    with held:
        specimen(*point)

    def value(place: int, shift: torch.Tensor) -> float:
        moved = [x + shift if k == place else x for k, x in enumerate(point)]
        held.again()
        with held:
            parts = specimen(*moved)
        assert held.turn == len(held.kept)
        return float(sum((part * cotangent(part)).sum() for part in parts))

    slopes = []
    for place, direction in enumerate(directions(specimen)):
        step = 1e-5 * float(point[place].abs().max() / direction.abs().max())
        rise = value(place, step * direction) - value(place, -step * direction)
        slopes.append(rise / (2 * step))
    return slopes, held.roundings


def test_each_operator_is_of_one_kind() -> None:
    listed = [*NOT_DIFFERENTIABLE, *STRAIGHT_THROUGH]
    assert len(set(listed)) == len(listed)
    assert set(listed) <= set(OPERATORS)
