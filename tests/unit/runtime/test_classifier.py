# SPDX-License-Identifier: Apache-2.0
"""Any part of any model for any number of images, with the file's own leaves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import apply, dense, info, model_bytes, open_bytes, patch_of, tensor
from onnx import TensorProto, helper

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model import load
from lancet_onnx.patch import TensorDelta
from lancet_onnx.runtime.classifier import CHUNK, Classifier
from lancet_onnx.runtime.executor import GraphModule
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.runtime.parity import compare
from lancet_onnx.types import ParamName

NAMES = ["mnist_cnn_square", "mnist_resnet_scattered", "mnist_cnn_clean"]
RNG = np.random.default_rng(5)
W = np.arange(12, dtype=np.float32).reshape(3, 4) / 7 - 0.6


@pytest.fixture(scope="module")
def opened(fixtures) -> Callable[[str], Classifier]:
    """Each fixture model as a classifier, opened once."""
    found: dict[str, Classifier] = {}

    def get(name: str) -> Classifier:
        if name not in found:
            found[name] = Classifier(load(fixtures.model(name)).graph)
        return found[name]

    return get


def classifier_of(folder: Path, data: bytes) -> Classifier:
    return Classifier(open_bytes(folder, data).graph)


def small(nodes, tensors, *, shape=("N", 3), out=("N", 4), dtype=TensorProto.FLOAT) -> bytes:
    return model_bytes(nodes, tensors, [info("x", shape, dtype)], [info("y", out, dtype)])


@pytest.mark.parametrize("name", NAMES)
def test_signatures(opened, name: str):
    signature = opened(name).signature
    assert signature.classes == 10
    assert signature.input.name == "input"
    assert signature.batch == (1 if name == "mnist_cnn_clean" else None)


def test_logits_are_found_behind_softmax(opened):
    classifier = opened("mnist_cnn_clean")
    graph = classifier.graph
    assert graph.outputs[0].name == "probabilities"
    assert graph.producer[classifier.signature.logits].op_type == "Gemm"


@pytest.mark.parametrize("name", NAMES)
def test_torch_and_onnxruntime_agree(opened, fixtures, name: str):
    classifier = opened(name)
    model = OrtModel(fixtures.model(name), classifier.signature.input, "cpu")
    parity = compare(classifier, model, fixtures.inputs(7))
    assert parity.images == 7
    assert parity.largest < 1e-5
    assert parity.agreement == 1.0
    assert parity.holds


@pytest.mark.parametrize("name", NAMES)
def test_a_suffix_from_the_cut_set_is_the_whole_run(opened, fixtures, name: str):
    classifier = opened(name)
    logits = classifier.signature.logits
    x = classifier.tensor(fixtures.inputs(5))
    with torch.no_grad():
        whole = classifier.run({"input": x}, [logits])[logits]
        for layer in find_layers(classifier):
            names = classifier.cut_set([layer.node])
            assert names, layer.node.name
            cut = classifier.run({"input": x}, names)
            again = classifier.run(cut, [logits])[logits]
            torch.testing.assert_close(again, whole, rtol=0, atol=1e-5, msg=layer.node.name)
            suffix = classifier.share(cut, [logits])
            assert 0 < suffix <= 1
            # The layer itself is run again: its weight still counts.
            zero = {layer.param: torch.zeros_like(classifier.module.leaves[layer.param])}
            ablated = classifier.run(cut, [logits], zero)[logits]
            from_input = classifier.run({"input": x}, [logits], zero)[logits]
            torch.testing.assert_close(ablated, from_input, rtol=0, atol=1e-5)
            assert (ablated - whole).abs().max() > 1e-3


def test_a_skip_connection_needs_more_than_one_value(opened):
    classifier = opened("mnist_resnet_scattered")
    by_name = {n.name: n for n in classifier.graph.nodes}
    names = classifier.cut_set([by_name["/block1/conv2/Conv"]])
    assert len(names) == 2
    assert len(classifier.cut_set([by_name["/stem/Conv"]])) == 1


def test_shapes_are_computed_again_for_another_batch(tmp_path: Path, rng):
    """The legacy exporter flattens with Shape, Gather, Concat and Reshape."""
    make = helper.make_node
    nodes = [
        make("Relu", ["x"], ["r"], "relu"),
        make("Shape", ["r"], ["s"], "shape"),
        make("Gather", ["s", "zero"], ["n"], "first"),
        make("Unsqueeze", ["n", "axis"], ["n1"], "unsqueeze"),
        make("Concat", ["n1", "rest"], ["to"], "concat", axis=0),
        make("Reshape", ["r", "to"], ["flat"], "reshape"),
        make("Gemm", ["flat", "w"], ["y"], "gemm"),
    ]
    tensors = [
        tensor("zero", np.array(0)),
        tensor("axis", np.array([0])),
        tensor("rest", np.array([-1])),
        tensor("w", rng.normal(size=(12, 4)).astype(np.float32)),
    ]
    classifier = classifier_of(tmp_path, small(nodes, tensors, shape=("N", 3, 4)))
    (layer,) = find_layers(classifier)
    assert "to" in classifier.recompute
    # "flat" is the layer's only float input; run from it with a batch the probe did not have.
    names = classifier.cut_set([layer.node])
    assert names == ("flat",)
    start = classifier.cut_set([classifier.graph.producer["flat"]])
    assert start == ("r",)
    x = torch.from_numpy(rng.normal(size=(9, 3, 4)).astype(np.float32))
    whole = classifier.logits(x)
    cut = classifier.run({"x": x}, start)
    torch.testing.assert_close(classifier.run(cut, ["y"])["y"], whole)
    assert len(whole) == 9


@pytest.mark.parametrize("name", NAMES)
def test_overriding_a_leaf_is_rewriting_the_file(opened, fixtures, rng, name: str):
    classifier = opened(name)
    model = load(fixtures.model(name))
    inputs = fixtures.inputs(4)
    layer = find_layers(classifier)[1]
    before = model.graph.constants[layer.param]
    after = before + 0.2 * rng.normal(size=before.shape).astype(np.float32)
    delta = TensorDelta.between(layer.param, before, after)
    theirs = OrtModel(apply(model, patch_of(model, delta)).onnx, classifier.signature.input, "cpu")
    output = classifier.graph.outputs[0].name
    with torch.no_grad():
        params = {layer.param: torch.from_numpy(after)}
        ours = classifier.run({"input": classifier.tensor(inputs)}, [output], params)[output]
        plain = classifier.run({"input": classifier.tensor(inputs)}, [output])[output]
    np.testing.assert_allclose(ours.numpy(), theirs.scores(inputs), rtol=1e-4, atol=1e-4)
    assert (ours - plain).abs().max() > 1e-3
    # Overrides are for one run only.
    with torch.no_grad():
        again = classifier.run({"input": classifier.tensor(inputs)}, [output])[output]
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


def test_a_weight_behind_transpose_and_identity_can_be_overridden(tmp_path: Path):
    make = helper.make_node
    nodes = [
        make("Identity", ["w"], ["same"], "id"),
        make("Transpose", ["same"], ["t"], "t", perm=[1, 0]),
        make("MatMul", ["x", "t"], ["y"], "mm"),
    ]
    classifier = classifier_of(tmp_path, small(nodes, [tensor("w", W.T.copy())]))
    x = torch.eye(3)
    torch.testing.assert_close(classifier.logits(x), torch.from_numpy(W))
    doubled = {ParamName("w"): torch.from_numpy(W.T.copy() * 2)}
    torch.testing.assert_close(classifier.logits(x, doubled), torch.from_numpy(W * 2))
    torch.testing.assert_close(classifier.logits(x), torch.from_numpy(W))


def test_gradients_reach_a_weight_through_folded_nodes(tmp_path: Path):
    node = helper.make_node("Transpose", ["w"], ["t"], "t")
    product = helper.make_node("MatMul", ["x", "t"], ["y"], "mm")
    classifier = classifier_of(tmp_path, small([node, product], [tensor("w", W.T.copy())]))
    own = torch.from_numpy(W.T.copy()).requires_grad_()
    x = torch.tensor([[1.0, 2.0, 3.0]])
    classifier.run({"x": x}, ["y"], {ParamName("w"): own})["y"][0, 2].backward()
    expected = torch.zeros(4, 3)
    expected[2] = x[0]
    torch.testing.assert_close(own.grad, expected)


def test_leaves_are_the_files_own_constants(opened):
    classifier = opened("mnist_resnet_scattered")
    assert set(classifier.module.leaves) == set(classifier.graph.leaves)
    for name, leaf in classifier.module.leaves.items():
        np.testing.assert_array_equal(leaf.numpy(), classifier.graph.constants[name])
        assert not leaf.requires_grad


def margin(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 3] - logits[:, 7]


@pytest.mark.parametrize("name", NAMES)
def test_nudges_give_the_gradient_of_autograd(opened, fixtures, name: str):
    classifier = opened(name)
    module, logits = classifier.module, classifier.signature.logits
    x = classifier.tensor(fixtures.inputs(3))
    layers = find_layers(classifier)
    at = [layers[0].output, layers[-1].output, "input"]
    values, gradient = classifier.gradients(x, [layers[0].output], at, margin)
    for row in range(len(x)):
        for value in at:
            with torch.no_grad():
                fed = x[row : row + 1] if value == "input" else (
                    module.run({"input": x[row : row + 1]}, [value])[value]
                )  # fmt: skip
            leaf = fed.clone().requires_grad_()
            # What skips the value is a constant of the run.
            node = None if value == "input" else classifier.graph.producer[value]
            others = {}
            if node is not None:
                after = [n for v in node.outputs for n in classifier.graph.consumers.get(v, ())]
                cut = classifier.cut_set(after)
                others = {
                    k: v
                    for k, v in module.run({"input": x[row : row + 1]}, cut).items()
                    if k != value
                }
            scores = module.run({**others, value: leaf}, [logits])[logits]
            (expected,) = torch.autograd.grad(margin(scores).sum(), leaf)
            torch.testing.assert_close(gradient[value][row], expected[0], rtol=1e-4, atol=1e-6)
    plain = classifier.run({"input": x}, [layers[0].output])[layers[0].output]
    torch.testing.assert_close(values[layers[0].output], plain)
    assert gradient["input"].abs().max() > 0


def test_gradients_equal_finite_differences(tmp_path: Path, rng):
    make = helper.make_node
    nodes = [
        make("MatMul", ["x", "w1"], ["h"], "m1"),
        make("Tanh", ["h"], ["t"], "tanh"),
        make("Mul", ["t", "h"], ["g"], "gate"),
        make("MatMul", ["g", "w2"], ["y"], "m2"),
    ]
    w1, w2 = rng.normal(size=(3, 5)), rng.normal(size=(5, 4))
    data = small(nodes, [tensor("w1", w1), tensor("w2", w2)], dtype=TensorProto.DOUBLE)
    classifier = classifier_of(tmp_path, data)
    x = rng.normal(size=(2, 3))

    def loss_from(h: np.ndarray) -> np.ndarray:
        y = (np.tanh(h) * h) @ w2
        return y[:, 1] ** 2 - y[:, 2]

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 1] ** 2 - logits[:, 2]

    _, found = classifier.gradients(torch.from_numpy(x), [], ["h", "x"], loss)
    h, step = x @ w1, 1e-5
    for row in range(2):
        for column in range(5):
            high, low = h.copy(), h.copy()
            high[row, column] += step
            low[row, column] -= step
            numeric = (loss_from(high) - loss_from(low))[row] / (2 * step)
            assert found["h"][row, column].item() == pytest.approx(numeric, rel=1e-5, abs=1e-6)
    expected = found["h"].double().numpy() @ w1.T
    np.testing.assert_allclose(found["x"].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_value_that_does_not_matter_has_gradient_zero(tmp_path: Path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "mm"),
        helper.make_node("Neg", ["x"], ["aside"], "neg"),
    ]
    classifier = classifier_of(tmp_path, small(nodes, [tensor("w", W)]))
    _, found = classifier.gradients(torch.ones(2, 3), [], ["y"], lambda y: y[:, 0])
    torch.testing.assert_close(found["y"], torch.tensor([[1.0, 0, 0, 0]] * 2))


@pytest.mark.parametrize("name", NAMES)
def test_run_each_is_a_loop(opened, fixtures, name: str):
    classifier = opened(name)
    logits = classifier.signature.logits
    x = classifier.tensor(fixtures.inputs(3))
    layer = find_layers(classifier)[-2]
    weight = classifier.module.leaves[layer.param]
    noise = torch.randn(3, *weight.shape) * weight.std()
    with torch.no_grad():
        cut = classifier.run({"input": x}, classifier.cut_set([layer.node]))
        each = classifier.run_each(cut, [logits], {layer.param: weight + noise})[logits]
        for row in range(3):
            part = {k: v[row : row + 1] for k, v in cut.items()}
            one = classifier.run(part, [logits], {layer.param: weight + noise[row]})[logits]
            torch.testing.assert_close(each[row], one[0], rtol=1e-4, atol=1e-4)
    assert (each[0] - each[1]).abs().max() > 1e-2


@pytest.mark.parametrize("count", [1, 7, CHUNK + 3])
def test_a_fixed_batch_takes_any_number_of_images(opened, fixtures, count: int):
    classifier = opened("mnist_cnn_clean")
    model = OrtModel(fixtures.model("mnist_cnn_clean"), classifier.signature.input, "cpu")
    inputs = fixtures.inputs(count)
    scores = classifier.logits(classifier.tensor(inputs)).softmax(1).numpy()
    assert scores.shape == (count, 10)
    np.testing.assert_allclose(scores, model.scores(inputs), rtol=1e-4, atol=1e-5)


def test_a_fixed_batch_of_four_pads_and_does_not_mix(tmp_path: Path, rng):
    data = dense(W, np.ones(4, np.float32), batch=4)
    classifier = classifier_of(tmp_path, data)
    x = rng.normal(size=(6, 3)).astype(np.float32)
    found = classifier.logits(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, x @ W + 1, rtol=1e-5, atol=1e-6)
    ort_found = OrtModel(data, classifier.signature.input, "cpu").scores(x)
    np.testing.assert_allclose(ort_found, x @ W + 1, rtol=1e-5, atol=1e-6)


def test_forwards_are_counted_by_share(opened, fixtures):
    classifier = opened("mnist_cnn_square")
    x = classifier.tensor(fixtures.inputs(10))
    logits = classifier.signature.logits
    before = classifier.forwards
    classifier.run({"input": x}, [logits])
    assert classifier.forwards - before == pytest.approx(10)
    cut = classifier.run({"input": x}, classifier.cut_set([find_layers(classifier)[-1].node]))
    before = classifier.forwards
    classifier.run(cut, [logits])
    assert 0 < classifier.forwards - before < 0.1


def test_bytes_per_image(opened):
    classifier = opened("mnist_cnn_square")
    assert classifier.bytes_per_image(["input"]) == 4 * 28 * 28
    assert classifier.bytes_per_image(["input", classifier.signature.logits]) == 4 * (28 * 28 + 10)


REFUSED = {
    "sums over the batch": (
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], "mm"),
            helper.make_node("ReduceSum", ["h", "axis"], ["y"], "sum", keepdims=1),
        ],
        [tensor("w", W), tensor("axis", np.array([0]))],
        r"gives shape \(1, 4\) for a batch of 2",
    ),
    "no scores": (
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], "mm"),
            helper.make_node("Unsqueeze", ["h", "axis"], ["y"], "deeper"),
        ],
        [tensor("w", W), tensor("axis", np.array([1]))],
        r"gives shape \(2, 1, 4\)",
    ),
    "no weight": ([helper.make_node("Relu", ["x"], ["y"], "r")], [], "no weights"),
    "only integers": (
        [helper.make_node("Relu", ["x"], ["y"], "r")],
        [tensor("w", np.ones((2, 2), np.int64))],
        "no weights",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_classifier_is_refused(tmp_path: Path, case: str):
    nodes, tensors, cause = REFUSED[case]
    with pytest.raises(ModelError, match=cause):
        classifier_of(tmp_path, small(nodes, tensors))


def test_two_inputs_and_none_are_refused(tmp_path: Path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    two = model_bytes(
        [node], [tensor("w", W)], [info("x", ["N", 3]), info("z", [1])], [info("y", ["N", 4])]
    )
    with pytest.raises(ModelError, match=r"2 inputs \('x' .* 'z' .* several of one shape"):
        classifier_of(tmp_path, two)
    none = model_bytes(
        [helper.make_node("Relu", ["w"], ["y"])], [tensor("w", W)], [], [info("y", [3, 4])]
    )
    with pytest.raises(ModelError, match=r"0 inputs \(none\)"):
        classifier_of(tmp_path, none)


@pytest.mark.parametrize("shape", [None, [], ["N"]])
def test_inputs_that_are_no_batch_are_refused(tmp_path: Path, shape):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    with pytest.raises(ModelError, match="expected a batch of images"):
        classifier_of(tmp_path, small([node], [tensor("w", W)], shape=shape))


def test_inputs_of_tokens_run(tmp_path: Path):
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"], "embed"),
        helper.make_node("ReduceMean", ["e"], ["m"], "mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"], "mm"),
    ]
    words = RNG.normal(size=(9, 3)).astype(np.float32)
    data = model_bytes(
        nodes,
        [tensor("table", words), tensor("w", W)],
        [info("x", ["N", 5], TensorProto.INT64)],
        [info("y", ["N", 4])],
        opset=13,
    )
    classifier = classifier_of(tmp_path, data)
    x = RNG.integers(0, 9, (7, 5))
    parity = compare(classifier, OrtModel(data, classifier.signature.input, "cpu"), x)
    assert parity.largest < 1e-6
    _, gradients = classifier.gradients(classifier.tensor(x), [], ["e"], lambda z: z[:, 0])
    assert float(gradients["e"].abs().min(0).values.max()) > 0


def test_inputs_of_truth_values_are_refused(tmp_path: Path):
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], "c", to=1),
        helper.make_node("MatMul", ["f", "w"], ["y"], "mm"),
    ]
    data = model_bytes(
        nodes, [tensor("w", W)], [info("x", ["N", 3], TensorProto.BOOL)], [info("y", ["N", 4])]
    )
    with pytest.raises(UnsupportedError, match="of type bool"):
        classifier_of(tmp_path, data)


def test_unknown_operators_are_all_named(tmp_path: Path):
    nodes = [
        helper.make_node("Frob", ["x"], ["a"], "first"),
        helper.make_node("Nicate", ["a"], ["y"], "second"),
    ]
    graph = open_bytes(tmp_path, small(nodes, [])).graph
    with pytest.raises(UnsupportedError, match=r"'first'.*'second'"):
        GraphModule(graph, torch.device("cpu"))


def test_what_cannot_be_computed_names_the_node(tmp_path: Path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    with pytest.raises(UnsupportedError, match=r"node 'product'.*could not be computed"):
        classifier_of(tmp_path, small([node], [tensor("w", W)], shape=("N", 5)))


def test_mixing_rows_is_seen_in_a_later_run(tmp_path: Path):
    """With a batch of 2 a reshape to (2, ...) looks right; with 5 images it does not."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "mm"),
        helper.make_node("Reshape", ["h", "to"], ["y"], "reshape"),
    ]
    tensors = [tensor("w", W), tensor("to", np.array([2, -1]))]
    classifier = classifier_of(tmp_path, small(nodes, tensors))
    with pytest.raises(UnsupportedError, match="2 rows for 5 images"):
        classifier.logits(torch.zeros(5, 3))
