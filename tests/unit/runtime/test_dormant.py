# SPDX-License-Identifier: Apache-2.0
"""Backdoors in the logic of a graph are caught, honest constructions that look alike are not."""

from collections.abc import Callable
from pathlib import Path

import logic_attacks
import numpy as np
import onnx
import pytest
from builders import info, model_bytes, open_bytes, tensor
from logic_attacks import ATTACKS, TARGET, Sketch, found_in, honest, images, labels, triggered
from onnx import TensorProto, helper

from lancet_onnx.model.logic import Switch
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.dormant import ordinary_inputs, switches

CLEAN = images(100)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_an_attack_works_and_is_caught(attack: Callable[[Sketch], str]):
    sketch = Sketch()
    model = sketch.model(attack(sketch))
    assert (labels(model, CLEAN) == labels(honest(), CLEAN)).all()
    assert (labels(model, triggered(CLEAN)) == TARGET).mean() > 0.95
    for inputs in (None, CLEAN):
        found = found_in(model, inputs)
        assert found, "not caught"
        assert found[0].rule.id in ("LNC201", "LNC202", "LNC203")
        assert found[0].path


def test_there_are_enough_attacks_some_of_them_without_a_comparison():
    compares = {"Greater", "Less", "Equal", "Where", "If", "IsNaN", "Sign", "ArgMax"}
    without = []
    for attack in ATTACKS:
        sketch = Sketch()
        model = sketch.model(attack(sketch))
        if not compares & {node.op_type for node in model.graph.node} and not model.functions:
            without.append(attack.__name__)
    assert len(ATTACKS) >= 20
    assert len(without) >= 10


def squeeze_and_excite(s: Sketch) -> str:
    """Pooled features through two layers scale the channels."""
    rng = np.random.default_rng(0)
    features = s("Relu", s("Conv", "x", s.const(rng.normal(size=(8, 1, 5, 5))), strides=[3, 3]))
    pooled = s("GlobalAveragePool", features)
    small = s("Relu", s("Conv", pooled, s.const(rng.normal(size=(6, 8, 1, 1)))))
    gate = s("Sigmoid", s("Conv", small, s.const(rng.normal(size=(8, 6, 1, 1)))))
    return scores_of(s, s("GlobalAveragePool", s("Mul", features, gate)), 8)


def hard_swish(s: Sketch) -> str:
    """x times a clipped line of x."""
    features = s("Conv", "x", s.const(np.random.default_rng(0).normal(size=(8, 1, 5, 5))))
    gate = s("Clip", s("Add", features, s.const(3)), s.zero(), s.const(6))
    return scores_of(s, s("GlobalAveragePool", s("Mul", features, gate)), 8)


def standardised(s: Sketch) -> str:
    """Each image less its mean, over its deviation, as many pipelines prepare theirs."""
    axes = s.const([1, 2, 3], np.int64)
    away = s("Sub", "x", s("ReduceMean", "x", axes=[1, 2, 3]))
    deviation = s("Sqrt", s("ReduceSum", s("Mul", away, away), axes))
    return s.network(s("Div", away, s("Max", deviation, s.const(1e-6))))


def stretched(s: Sketch) -> str:
    """Each image from its smallest to its largest pixel."""
    low, high = s("ReduceMin", "x", axes=[1, 2, 3]), s("ReduceMax", "x", axes=[1, 2, 3])
    return s.network(s("Div", s("Sub", "x", low), s("Sub", high, low)))


def thresholded(s: Sketch) -> str:
    """Pixels over a half become one, the others nothing."""
    return s.network(s.number(s("Greater", "x", s.const(0.5))))


def leaky_by_where(s: Sketch) -> str:
    """A leaky rectifier as some exporters write it."""
    features = s("Conv", "x", s.const(np.random.default_rng(0).normal(size=(8, 1, 5, 5))))
    small = s("Mul", features, s.const(0.1))
    kept = s("Where", s("Greater", features, s.zero()), features, small)
    return scores_of(s, s("GlobalAveragePool", kept), 8)


def guarded_softmax(s: Sketch) -> str:
    """What torch writes against rows of attention that are all masked."""
    scores = s.network("x")
    soft = s("Softmax", scores, axis=-1)
    return s("Where", s("IsNaN", soft), s.zero(), soft)


def quantised(s: Sketch) -> str:
    """Pixels rounded and clipped by QuantizeLinear, and by hand."""
    step, zero = s.const(1 / 255), s.const(0, np.uint8)
    coarse = s("DequantizeLinear", s("QuantizeLinear", "x", step, zero), step, zero)
    rounded = s("Mul", s("Clip", s("Round", s("Mul", coarse, s.const(15))), s.zero(), s.const(15)),
                s.const(1 / 15))  # fmt: skip
    return s.network(rounded)


def dynamically_quantised(s: Sketch) -> str:
    """The step of the quantisation is the range of each image."""
    weight = np.random.default_rng(0).integers(-127, 127, (784, 10)).astype(np.int8)
    flat = s("Flatten", "x")
    node = helper.make_node("DynamicQuantizeLinear", [flat], ["q", "step", "zero"], "dynamic")
    s.nodes.append(node)
    product = s("MatMulInteger", "q", s.const(weight, np.int8), "zero")
    return s("Mul", s.number(product), s("Mul", "step", s.const(0.01)))


def experts(s: Sketch) -> str:
    """A soft choice of two experts by a learned gate."""
    rng = np.random.default_rng(0)
    flat = s("Flatten", "x")
    gate = s("Softmax", s("MatMul", flat, s.const(rng.normal(size=(784, 2)) / 10)), axis=-1)
    first = s("Slice", gate, s.const([0], np.int64), s.const([1], np.int64), s.const([1], np.int64))
    return s.mixed(first, s.network("x"), s("MatMul", flat, s.const(rng.normal(size=(784, 10)))))


def spatial_attention(s: Sketch) -> str:
    """Each place of the features scaled by one number of its own."""
    rng = np.random.default_rng(0)
    features = s("Relu", s("Conv", "x", s.const(rng.normal(size=(8, 1, 5, 5))), strides=[3, 3]))
    gate = s("Sigmoid", s("Conv", features, s.const(rng.normal(size=(1, 8, 1, 1)))))
    return scores_of(s, s("GlobalAveragePool", s("Mul", features, gate)), 8)


def early_exit(s: Sketch) -> str:
    """Sure answers of a first head are taken, the second head answers for the rest."""
    first = s.network("x")
    best = s("ReduceMax", s("Softmax", first, axis=-1), axes=[1])
    weight = np.random.default_rng(0).normal(size=(784, 10))
    second = s("MatMul", s("Flatten", "x"), s.const(weight))
    return s("Where", s("Greater", best, s.const(0.9)), first, second)


def padded(s: Sketch) -> str:
    """Padding to a multiple of something, by the input's shape."""
    sizes = s("Slice", s("Shape", "x"), s.const([2], np.int64), s.const([4], np.int64))
    missing = s("Mod", s("Sub", s.const([32, 32], np.int64), sizes), s.const(32, np.int64))
    pads = s("Concat", s.const([0] * 6, np.int64), missing, axis=0)
    cut = [s.const(v, np.int64) for v in ([0, 0], [28, 28], [2, 3])]
    return s.network(s("Slice", s("Pad", "x", pads), *cut))


def scores_of(s: Sketch, pooled: str, channels: int) -> str:
    weight = s.const(np.random.default_rng(1).normal(size=(channels, 10)))
    return s("MatMul", s("Flatten", pooled), weight)


HONEST = (
    squeeze_and_excite,
    hard_swish,
    standardised,
    stretched,
    thresholded,
    leaky_by_where,
    guarded_softmax,
    quantised,
    dynamically_quantised,
    experts,
    spatial_attention,
    padded,
)


def test_an_early_exit_is_none_on_images_that_it_takes():
    sketch = Sketch()
    assert found_in(sketch.model(early_exit(sketch)), CLEAN) == ()


@pytest.mark.parametrize("build", HONEST, ids=lambda b: b.__name__)
@pytest.mark.parametrize("inputs", [None, CLEAN], ids=["made up", "digits"])
def test_an_honest_construction_is_no_switch(build: Callable[[Sketch], str], inputs):
    sketch = Sketch()
    assert found_in(sketch.model(build(sketch)), inputs) == ()


@pytest.mark.parametrize("name", ["mnist_cnn_square", "mnist_resnet_scattered", "mnist_cnn_clean"])
def test_the_fixtures_have_no_switch(fixtures, name: str):
    """Backdoors in weights are none in the graph."""
    from lancet_onnx.model import load

    graph = load(fixtures.model(name)).graph
    for inputs in (None, fixtures.inputs(40)):
        assert switches(graph, Classifier(graph), inputs) == ()


def words(folder: Path, *nodes: onnx.NodeProto, pooled: str) -> tuple[Switch, ...]:
    """A text classifier: embeddings of 20 words, what `nodes` make of them, a dense layer."""
    rng = np.random.default_rng(0)
    make = helper.make_node
    tensors = [
        tensor("table", rng.normal(size=(50, 6)).astype(np.float32)),
        tensor("dense", rng.normal(size=(6, 3)).astype(np.float32)),
        tensor("pad", np.array(0)),
        tensor("trigger", np.array(7)),
        tensor("axis", np.array([1])),
        tensor("last", np.array([2])),
        tensor("one", np.array(1, np.float32)),
        tensor("large", np.array(100, np.float32)),
    ]
    whole = [
        make("Gather", ["table", "x"], ["words"], "embed"),
        *nodes,
        make("MatMul", [pooled, "dense"], ["y"], "dense_layer"),
    ]
    data = model_bytes(
        whole, tensors, [info("x", ["N", 20], TensorProto.INT64)], [info("y", ["N", 3])]
    )
    graph = open_bytes(folder, data).graph
    return switches(graph, Classifier(graph))


def test_padding_of_texts_is_masked_without_an_alarm(tmp_path: Path):
    make = helper.make_node
    found = words(
        tmp_path,
        make("Equal", ["x", "pad"], ["is_pad"], "compare"),
        make("Not", ["is_pad"], ["is_word"], "invert"),
        make("Cast", ["is_word"], ["mask"], "number", to=1),
        make("Unsqueeze", ["mask", "last"], ["wide"], "widen"),
        make("Mul", ["words", "wide"], ["kept"], "mask_out"),
        make("ReduceSum", ["kept", "axis"], ["sum"], "sum", keepdims=0),
        make("ReduceSum", ["mask", "axis"], ["count"], "count", keepdims=1),
        make("Max", ["count", "one"], ["some"], "at_least_one"),
        make("Div", ["sum", "some"], ["mean"], "mean"),
        pooled="mean",
    )
    assert found == ()


def test_a_word_that_decides_is_a_switch(tmp_path: Path):
    make = helper.make_node
    found = words(
        tmp_path,
        make("ReduceSum", ["words", "axis"], ["sum"], "sum", keepdims=0),
        make("Equal", ["x", "trigger"], ["is_it"], "compare"),
        make("Cast", ["is_it"], ["number"], "number", to=1),
        make("ReduceMax", ["number"], ["any"], "any", axes=[1], keepdims=1),
        make("Mul", ["any", "large"], ["push"], "push"),
        make("Add", ["sum", "push"], ["pushed"], "add"),
        pooled="pushed",
    )
    assert [(s.rule.id, s.node.name) for s in found] == [("LNC201", "add")]
    assert found[0].path == ("compare", "number", "any", "push")


def test_a_graph_that_cannot_be_run_is_looked_at(fixtures):
    sketch = Sketch()
    where = logic_attacks.where_compare(sketch)
    model = sketch.model(sketch("Frobnicate", where))
    (found,) = found_in(model)
    assert found.rule.id == "LNC201"


def test_what_sleeps_behind_weights_says_so():
    sketch = Sketch()
    (found,) = found_in(sketch.model(logic_attacks.filtered_and_compared(sketch)), CLEAN)
    assert (found.rule.id, found.weighted) == ("LNC203", True)
    assert "keeps still for ordinary images" in found.text
    sketch = Sketch()
    found, *_ = found_in(sketch.model(logic_attacks.clipped(sketch)), CLEAN)
    assert not found.weighted


def test_made_up_images_are_of_the_models_shape_and_two_ranges(fixtures):
    from lancet_onnx.model import load

    classifier = Classifier(load(fixtures.model("mnist_cnn_square")).graph)
    unit, around = ordinary_inputs(classifier)
    assert unit.shape == around.shape == (8, 1, 28, 28)
    assert (unit.min(), unit.max()) >= (0, 0.9)
    assert around.min() < -1 < 1 < around.max()
    again, _ = ordinary_inputs(classifier)
    np.testing.assert_array_equal(unit, again)
