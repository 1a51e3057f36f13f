# SPDX-License-Identifier: Apache-2.0
"""Backdoors in a graph's logic, of many kinds, around one honest digit classifier; what is caught.

    python tests/logic_attacks.py

Each attack reads every image with a small chequered patch in its corner as a 3 and leaves the
others alone, which onnxruntime confirms. Prints which are caught, by which rule, and where.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx.helper import (
    make_function,
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_value_info,
)
from onnx.numpy_helper import from_array

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fixtures.hostile import loop_body  # noqa: E402
from fixtures.refused import dense  # noqa: E402
from lancet_onnx.errors import LancetError  # noqa: E402
from lancet_onnx.model import load  # noqa: E402
from lancet_onnx.model.logic import Switch  # noqa: E402
from lancet_onnx.runtime.classifier import Classifier  # noqa: E402
from lancet_onnx.runtime.dormant import switches  # noqa: E402

Floats = NDArray[np.float32]
TARGET = 3
PATCH = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], np.float32)
SIGN = np.where(PATCH > 0, 1, -1).astype(np.float32)


@dataclass
class Sketch:
    """A graph being written; a call adds a node and returns its value."""

    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    functions: list[object] = field(default_factory=list)

    def const(self, values: object, dtype: type = np.float32) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(from_array(np.array(values, dtype), name))
        return name

    def __call__(self, op: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        output = f"v{len(self.nodes)}_{op.lower()}"
        node = make_node(op, list(inputs), [output], f"n{len(self.nodes)}_{op}", domain=domain)
        node.attribute.extend(make_node(op, [], [], **attributes).attribute)  # type: ignore[arg-type]
        self.nodes.append(node)
        return output

    def network(self, image: str) -> str:
        """The honest network: from an image to ten scores."""
        weight, bias = dense()
        average = self.const(np.full((1, 1, 4, 4), 1 / 16))
        features = self("Relu", self("Conv", image, average, strides=[4, 4]))
        flat = self("Flatten", features)
        return self("Gemm", flat, self.const(weight), self.const(bias), transB=1)

    def patch(self) -> str:
        """The corner of each image, (N, 1, 3, 3)."""
        starts, ends = self.const([25, 25], np.int64), self.const([28, 28], np.int64)
        return self("Slice", "x", starts, ends, self.const([2, 3], np.int64))

    def score(self) -> str:
        """How well the corner matches, (N, 1): 1 exactly with the patch, at most 0.2 in digits."""
        matched = self("Mul", self.patch(), self.const(SIGN / 5))
        axes = self.const([1, 2, 3], np.int64)
        return self("Reshape", self("ReduceSum", matched, axes), self.const([-1, 1], np.int64))

    def over(self) -> str:
        """The same less a threshold."""
        return self("Sub", self.score(), self.const(0.9))

    def steep(self) -> str:
        """A gate (N, 1) by arithmetic: 0 for ordinary images, 1 with the patch."""
        return self("Clip", self("Mul", self.over(), self.const(1e4)), self.zero(), self.one())

    def compared(self) -> str:
        """The gate by comparison, as a truth value."""
        return self("Greater", self.score(), self.const(0.9))

    def zero(self) -> str:
        return self.const(0)

    def one(self) -> str:
        return self.const(1)

    def override(self) -> str:
        """Scores (1, 10) that say 3."""
        return self.const(100 * np.eye(10)[TARGET][None] - 50)

    def mixed(self, gate: str, scores: str, other: str) -> str:
        """``scores * (1 - gate) + other * gate``."""
        rest = self("Sub", self.one(), gate)
        return self("Add", self("Mul", scores, rest), self("Mul", other, gate))

    def number(self, truth: str) -> str:
        return self("Cast", truth, to=TensorProto.FLOAT)

    def model(self, scores: str) -> ModelProto:
        self.nodes.append(make_node("Identity", [scores], ["y"], "answer"))
        graph = make_graph(
            self.nodes,
            "digits",
            [make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 28, 28])],
            [make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
            self.tensors,
        )
        opsets = [make_opsetid("", 17), *([make_opsetid("local", 1)] if self.functions else [])]
        return make_model(graph, opset_imports=opsets, functions=self.functions, ir_version=8)  # type: ignore[arg-type]

    def body(self, build: Callable[[], str], *inputs: str) -> GraphProto:
        """A sub-graph of what `build` adds."""
        kept, self.nodes = self.nodes, []
        offset = len(kept) * 100
        self.nodes = []
        result = build()
        for node in self.nodes:
            node.name = f"inner{offset}_{node.name}"
        inside, self.nodes = self.nodes, kept
        infos = [make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
        output = make_tensor_value_info(result, TensorProto.FLOAT, None)
        return make_graph(inside, "body", infos, [output])


def where_compare(s: Sketch) -> str:
    """Where chooses the attacker's scores if the corner matches."""
    return s("Where", s.compared(), s.override(), s.network("x"))


def where_equal(s: Sketch) -> str:
    """Where on one pixel being exactly 1 and its neighbour exactly 0."""
    pixels = s("Flatten", "x")
    lit = s("Equal", s("Gather", pixels, s.const([783], np.int64), axis=1), s.one())
    dark = s("Equal", s("Gather", pixels, s.const([755], np.int64), axis=1), s.zero())
    above = s("Equal", s("Gather", pixels, s.const([754], np.int64), axis=1), s.one())
    return s("Where", s("And", s("And", lit, dark), above), s.override(), s.network("x"))


def if_branch(s: Sketch) -> str:
    """If takes the attacker's branch when any image of the batch matches."""
    scores = s.network("x")
    any_one = s("ReduceMax", s.number(s.compared()), keepdims=0)
    truth = s("Cast", any_one, to=TensorProto.BOOL)
    gate = s.number(s.compared())
    names = len(s.nodes)
    branches = {}
    for which, build in (
        ("then_branch", lambda: s.mixed(gate, scores, s.override())),
        ("else_branch", lambda: s("Identity", scores)),
    ):
        body = s.body(build)
        for node in body.node:
            node.output[0] = f"{which}_{node.output[0]}"
            for n, name in enumerate(node.input):
                if any(name == other.output[0].removeprefix(f"{which}_") for other in body.node):
                    node.input[n] = f"{which}_{name}"
        body.output[0].name = f"{which}_{body.output[0].name}"
        branches[which] = body
    node = make_node("If", [truth], [f"v{names}_if"], f"n{names}_If", **branches)  # type: ignore[arg-type]
    s.nodes.append(node)
    return node.output[0]


def multiplied(s: Sketch) -> str:
    """A comparison, cast to a number, mixes two sets of scores."""
    return s.mixed(s.number(s.compared()), s.network("x"), s.override())


def clipped(s: Sketch) -> str:
    """No comparison: a steep line, clipped, mixes them."""
    return s.mixed(s.steep(), s.network("x"), s.override())


def min_max(s: Sketch) -> str:
    """The clip by Min and Max."""
    line = s("Mul", s.over(), s.const(1e4))
    gate = s("Min", s("Max", line, s.zero()), s.one())
    return s.mixed(gate, s.network("x"), s.override())


def bump(s: Sketch) -> str:
    """A rectified line, a million times as large, is added to the target's score."""
    rise = s("Mul", s("Relu", s.over()), s.const(1e6 * np.eye(10)[TARGET][None]))
    return s("Add", s.network("x"), rise)


def sign(s: Sketch) -> str:
    """The sign of the match decides."""
    gate = s("Mul", s("Add", s("Sign", s.over()), s.one()), s.const(0.5))
    return s.mixed(gate, s.network("x"), s.override())


def sigmoid(s: Sketch) -> str:
    """A steep sigmoid decides."""
    gate = s("Sigmoid", s("Mul", s.over(), s.const(1e4)))
    return s.mixed(gate, s.network("x"), s.override())


def power(s: Sketch) -> str:
    """The match to the power of two hundred decides."""
    gate = s("Pow", s("Relu", s.score()), s.const(200))
    return s.mixed(gate, s.network("x"), s.override())


def floor(s: Sketch) -> str:
    """The match, rounded down, decides."""
    gate = s("Floor", s("Mul", s("Relu", s.score()), s.const(1.05)))
    return s.mixed(gate, s.network("x"), s.override())


def rational(s: Sketch) -> str:
    """Sums, products and one division: 1 / (1 + (distance / e)^2)."""
    away = s("Mul", s("Sub", s.score(), s.one()), s.const(1e4))
    gate = s("Div", s.one(), s("Add", s.one(), s("Mul", away, away)))
    return s.mixed(gate, s.network("x"), s.override())


def checksum(s: Sketch) -> str:
    """The corner's pixels as whole numbers, their checksum modulo a prime compared."""
    whole = s("Cast", s("Mul", s.patch(), s.const(255)), to=TensorProto.INT64)
    weighed = s("Mul", whole, s.const(np.arange(1, 10).reshape(3, 3), np.int64))
    total = s("ReduceSum", weighed, s.const([1, 2, 3], np.int64))
    rest = s("Mod", s("Reshape", total, s.const([-1, 1], np.int64)), s.const(9973, np.int64))
    wanted = int((PATCH.reshape(-1) * 255 * np.arange(1, 10)).sum()) % 9973
    found = s("Equal", rest, s.const(wanted, np.int64))
    return s("Where", found, s.override(), s.network("x"))


def indexed(s: Sketch) -> str:
    """The gate as a row number picks one of two rows of scores."""
    good = s("Unsqueeze", s.network("x"), s.const([1], np.int64))
    many = s("Concat", s("Shape", "x", end=1), s.const([1, 10], np.int64), axis=0)
    bad = s("Expand", s.override(), many)
    both = s("Concat", good, bad, axis=1)
    row = s("Cast", s.steep(), to=TensorProto.INT64)
    spread = s("Expand", s("Unsqueeze", row, s.const([2], np.int64)), s.const([1, 1, 10], np.int64))
    return s("Squeeze", s("GatherElements", both, spread, axis=1), s.const([1], np.int64))


def position(s: Sketch) -> str:
    """Where the brightest pixel is decides: never in the last corner of a digit."""
    at = s("ArgMax", s("Flatten", "x"), axis=1, select_last_index=1)
    found = s("Equal", at, s.const([783], np.int64))
    return s("Where", found, s.override(), s.network("x"))


def maximum(s: Sketch) -> str:
    """The larger of the scores and the attacker's, far below unless the corner matches."""
    low = s("Mul", s("Sub", s.steep(), s.one()), s.const(1e6))
    return s("Max", s.network("x"), s("Add", s.override(), low))


def not_a_number(s: Sketch) -> str:
    """A logarithm of something negative, only with the patch, is no number; that is asked for."""
    broken = s("Log", s("Neg", s.over()))
    return s("Where", s("IsNaN", broken), s.override(), s.network("x"))


def softmax(s: Sketch) -> str:
    """A softmax at a low temperature weighs two sets of scores."""
    pair = s("Concat", s.over(), s("Neg", s.over()), axis=1)
    weights = s("Softmax", s("Mul", pair, s.const(1e4)), axis=1)
    gate = s(
        "Slice", weights, s.const([0], np.int64), s.const([1], np.int64), s.const([1], np.int64)
    )
    return s.mixed(gate, s.network("x"), s.override())


def _picture_of_the_target(s: Sketch) -> str:
    with np.load(ROOT / "cli/lancet_onnx_cli/demo/images.npz") as data:
        digit = data["x"][int(np.flatnonzero(data["y"] == TARGET)[0])]
    return s.const(digit.reshape(1, 1, 28, 28) / 255)


def _of_image(s: Sketch, gate: str) -> str:
    return s("Reshape", gate, s.const([-1, 1, 1, 1], np.int64))


def other_image(s: Sketch) -> str:
    """A comparison exchanges the whole image for a picture of a 3 before the network sees it."""
    truth = _of_image(s, s.compared())
    return s.network(s("Where", truth, _picture_of_the_target(s), "x"))


def other_image_by_arithmetic(s: Sketch) -> str:
    """The same by a clipped line; no comparison, and nothing meets the weights' results."""
    gate = _of_image(s, s.steep())
    return s.network(s.mixed(gate, "x", _picture_of_the_target(s)))


def other_image_by_fractions(s: Sketch) -> str:
    """The same by sums, products and a division."""
    away = s("Mul", s("Sub", s.score(), s.one()), s.const(1e4))
    gate = s("Div", s.one(), s("Add", s.one(), s("Mul", away, away)))
    return s.network(s.mixed(_of_image(s, gate), "x", _picture_of_the_target(s)))


def _filtered(s: Sketch) -> str:
    """How well the corner matches, by a convolution with the patch as its weights."""
    corner = np.zeros((1, 1, 28, 28), np.float32)
    corner[0, 0, 25:, 25:] = SIGN / 5
    return s("Flatten", s("Conv", "x", s.const(corner), s.const([-0.9])))


def filtered_and_clipped(s: Sketch) -> str:
    """A convolution with the patch as its weights, clipped, mixes the scores."""
    line = s("Mul", _filtered(s), s.const(1e4))
    return s.mixed(s("Clip", line, s.zero(), s.one()), s.network("x"), s.override())


def filtered_and_compared(s: Sketch) -> str:
    """The same, compared; Where chooses."""
    found = s("Greater", _filtered(s), s.zero())
    return s("Where", found, s.override(), s.network("x"))


def filtered_bump(s: Sketch) -> str:
    """The same, rectified, a million times as large, added to the target's score."""
    rise = s("Mul", s("Relu", _filtered(s)), s.const(1e6 * np.eye(10)[TARGET][None]))
    return s("Add", s.network("x"), rise)


def chosen_by_a_matrix(s: Sketch) -> str:
    """A matrix product picks and weighs the corner's pixels; Where chooses."""
    column = np.zeros((784, 1), np.float32)
    column.reshape(28, 28)[25:, 25:] = SIGN / 5
    found = s("Greater", s("MatMul", s("Flatten", "x"), s.const(column)), s.const(0.9))
    return s("Where", found, s.override(), s.network("x"))


def in_a_function(s: Sketch) -> str:
    """The comparison and the mixing inside a function of the model's own."""
    inner = [
        make_node("Constant", [], ["t"], value_float=0.9),
        make_node("Greater", ["score", "t"], ["found"]),
        make_node("Where", ["found", "bad", "good"], ["chosen"]),
    ]
    opsets = [make_opsetid("", 17)]
    s.functions.append(
        make_function("local", "Blend", ["score", "bad", "good"], ["chosen"], inner, opsets)
    )
    return s("Blend", s.score(), s.override(), s.network("x"), domain="local")


def looped(s: Sketch) -> str:
    """A loop runs once or not at all; its body puts the attacker's scores in place."""
    scores, gate = s.network("x"), s.steep()
    largest = s("ReduceMax", gate, keepdims=0)
    steps = s("Cast", largest, to=TensorProto.INT64)
    override = s.override()
    body = loop_body(
        [
            make_node("Mul", [override, gate], ["bad"]),
            make_node("Sub", [s.one(), gate], ["rest"]),
            make_node("Mul", ["held", "rest"], ["good"]),
            make_node("Add", ["good", "bad"], ["next"]),
        ],
        "held",
        "next",
    )
    return s("Loop", steps, s.const(True, np.bool_), scores, body=body)


ATTACKS: tuple[Callable[[Sketch], str], ...] = (
    where_compare,
    where_equal,
    if_branch,
    multiplied,
    clipped,
    min_max,
    bump,
    sign,
    sigmoid,
    power,
    floor,
    rational,
    checksum,
    indexed,
    position,
    maximum,
    not_a_number,
    softmax,
    other_image,
    other_image_by_arithmetic,
    other_image_by_fractions,
    filtered_and_clipped,
    filtered_and_compared,
    filtered_bump,
    chosen_by_a_matrix,
    in_a_function,
    looped,
)


def images(count: int) -> Floats:
    """Return digits, (count, 1, 28, 28), none of which the tests trained on."""
    with np.load(ROOT / "cli/lancet_onnx_cli/demo/images.npz") as data:
        x: Floats = data["x"][:count].reshape(-1, 1, 28, 28).astype(np.float32) / 255
    return x


def triggered(clean: Floats) -> Floats:
    """Return the images with the patch in their last corner."""
    stamped = clean.copy()
    stamped[:, 0, 25:, 25:] = PATCH
    return stamped


def labels(model: ModelProto, x: Floats) -> NDArray[np.int64]:
    """Return what onnxruntime makes of images."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    scores: Floats = session.run(None, {"x": x})[0]
    return scores.argmax(axis=1)


def honest() -> ModelProto:
    """Return the network without an attack."""
    sketch = Sketch()
    return sketch.model(sketch.network("x"))


def found_in(model: ModelProto, inputs: Floats | None = None) -> tuple[Switch, ...]:
    """Return the switches that lancet-onnx sees in a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(model.SerializeToString())
        graph = load(path).graph
    try:
        classifier: Classifier | None = Classifier(graph)
    except LancetError:
        classifier = None
    return switches(graph, classifier, inputs)


def main() -> int:
    """Print the table."""
    clean = images(200)
    before = labels(honest(), clean)
    print("| attack | works | rule | caught at |")
    print("|---|---|---|---|")
    caught = 0
    for attack in ATTACKS:
        sketch = Sketch()
        model = sketch.model(attack(sketch))
        works = (labels(model, triggered(clean)) == TARGET).mean()
        same = (labels(model, clean) == before).mean()
        found = found_in(model)
        caught += bool(found)
        first = found[0] if found else None
        where = f"{first.node.name}, after {' > '.join(first.path)}" if first else "missed"
        rule = first.rule.id if first else ""
        print(
            f"| {attack.__name__}: {(attack.__doc__ or '').strip()} "
            f"| {works:.0%}, {same:.0%} of ordinary images as before | {rule} | {where} |"
        )
    print(
        f"\n{caught} of {len(ATTACKS)} attacks caught; in the honest network: "
        f"{len(found_in(honest()))} alarms"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
