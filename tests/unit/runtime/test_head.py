# SPDX-License-Identifier: Apache-2.0
"""Every way in which a model ends: the same logits, and the same rows from onnxruntime."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import info, model_bytes, open_bytes, tensor
from onnx import TensorProto, ValueInfoProto, helper

from lancet_onnx.errors import ModelError
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.head import plain_head
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.runtime.parity import compare

RNG = np.random.default_rng(3)
W = RNG.normal(size=(3, 4)).astype(np.float32)
ONE = W[:, :1].copy()
make = helper.make_node
ML = "ai.onnx.ml"


def maps() -> ValueInfoProto:
    value = ValueInfoProto(name="y")
    element = value.type.sequence_type.elem_type.map_type
    element.key_type = TensorProto.INT64
    element.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return value


LABELS = info("l", ["N"], TensorProto.INT64)
ENDS = {
    "scores": ([make("Identity", ["h"], ["y"])], [info("y", ["N", 4])], "h"),
    "Softmax": ([make("Softmax", ["h"], ["y"])], [info("y", ["N", 4])], "h"),
    "LogSoftmax, Cast": (
        [make("LogSoftmax", ["h"], ["p"]), make("Cast", ["p"], ["y"], to=11)],
        [info("y", ["N", 4], TensorProto.DOUBLE)],
        "h",
    ),
    "several Sigmoids": ([make("Sigmoid", ["h"], ["y"])], [info("y", ["N", 4])], "h"),
    "left as pictures": (
        [make("Unsqueeze", ["h", "axes"], ["y"])],
        [info("y", ["N", 4, 1, 1])],
        "y",
    ),
    "ArgMax alone": ([make("ArgMax", ["h"], ["l"], axis=1, keepdims=0)], [LABELS], "h"),
    "ArgMax kept, cast": (
        [make("ArgMax", ["h"], ["a"], axis=1), make("Cast", ["a"], ["l"], to=6)],
        [info("l", ["N", 1], TensorProto.INT32)],
        "h",
    ),
    "labels of other names": (
        [
            make("ArgMax", ["h"], ["a"], axis=1),
            make("ArrayFeatureExtractor", ["names", "a"], ["f"], domain=ML),
            make("Reshape", ["f", "flat"], ["l"]),
        ],
        [LABELS],
        "h",
    ),
    "label beside scores": (
        [make("ArgMax", ["p"], ["l"], axis=1, keepdims=0), make("Softmax", ["h"], ["p"])],
        [LABELS, info("p", ["N", 4])],
        "h",
    ),
    "label beside ZipMap": (
        [
            make("Softmax", ["h"], ["p"]),
            make("ArgMax", ["p"], ["l"], axis=1, keepdims=0),
            make("ZipMap", ["p"], ["y"], domain=ML, classlabels_int64s=[7, 3, 9, 1]),
        ],
        [LABELS, maps()],
        "h",
    ),
}
TWO = {
    "one logit": ([make("Identity", ["h"], ["y"])], [info("y", ["N", 1])]),
    "one logit, flat": ([make("Squeeze", ["h", "axis"], ["y"])], [info("y", ["N"])]),
    "one probability": ([make("Sigmoid", ["h"], ["y"])], [info("y", ["N", 1])]),
    "both probabilities": (
        [
            make("Sigmoid", ["h"], ["p"]),
            make("Sub", ["one", "p"], ["q"]),
            make("Concat", ["q", "p"], ["y"], axis=1),
        ],
        [info("y", ["N", 2])],
    ),
}
CONSTANTS = [
    tensor("axes", np.array([2, 3])),
    tensor("axis", np.array([1])),
    tensor("names", np.array([7, 3, 9, 1])),
    tensor("flat", np.array([-1])),
    tensor("one", np.ones(1, np.float32)),
]


def opened(folder: Path, nodes, outputs, weight, batch: int | str = "N", output=None):
    data = model_bytes(
        [make("MatMul", ["x", "w"], ["h"], "mm"), *nodes],
        [tensor("w", weight), *CONSTANTS],
        [info("x", [batch, 3])],
        outputs,
        opset=13,
        domains=[ML],
    )
    classifier = Classifier(open_bytes(folder, data).graph, output=output)
    signature = classifier.signature
    return classifier, OrtModel(data, signature.input, "cpu", signature.head)


@pytest.mark.parametrize("batch", ["N", 2], ids=["free", "fixed"])
@pytest.mark.parametrize("end", ENDS)
def test_every_end_gives_the_same_logits(tmp_path: Path, end: str, batch: int | str):
    nodes, outputs, logits = ENDS[end]
    if batch == 2:
        for spec in outputs:
            if not spec.type.HasField("sequence_type"):
                spec.type.tensor_type.shape.dim[0].dim_value = 2
    classifier, model = opened(tmp_path, nodes, outputs, W, batch)
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    found = classifier.logits(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, x @ W, rtol=1e-5, atol=1e-6)
    assert (model.labels(x) == (x @ W).argmax(1)).all()
    assert compare(classifier, model, x).largest < 1e-6
    assert classifier.signature.head.logits == logits
    for spec in outputs:
        if not spec.type.HasField("sequence_type"):
            spec.type.tensor_type.shape.dim[0].dim_param = "N"


@pytest.mark.parametrize("end", TWO)
def test_two_classes_in_one_number(tmp_path: Path, end: str):
    classifier, model = opened(tmp_path, *TWO[end], ONE)
    x = RNG.normal(size=(9, 3)).astype(np.float32)
    z = (x @ ONE)[:, 0]
    assert classifier.signature.classes == 2
    found = classifier.logits(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, np.stack([0 * z, z], 1), rtol=1e-5, atol=1e-6)
    assert (model.labels(x) == (z > 0)).all()
    assert compare(classifier, model, x).holds
    _, gradients = classifier.gradients(
        torch.from_numpy(x), [], ["h"], lambda logits: logits[:, 1] - logits[:, 0]
    )
    assert torch.equal(gradients["h"], torch.ones(9, 1))


def test_the_output_can_be_named(tmp_path: Path):
    nodes = [make("Neg", ["h"], ["y"]), make("Softmax", ["h"], ["z"])]
    outputs = [info("y", ["N", 4]), info("z", ["N", 4])]
    classifier, model = opened(tmp_path, nodes, outputs, W, output="z")
    assert classifier.signature.logits == "h"
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    assert (model.labels(x) == (x @ W).argmax(1)).all()
    with pytest.raises(ModelError, match="no output 'q'; it has 'y', 'z'"):
        opened(tmp_path, nodes, outputs, W, output="q")


def test_outputs_that_hold_no_answer_are_named(tmp_path: Path):
    nodes = [make("Cast", ["h"], ["l"], to=7)]
    with pytest.raises(ModelError, match=r"no output holds .*'l' \(int64\).*--output"):
        opened(tmp_path, nodes, [info("l", ["N", 4], TensorProto.INT64)], W)


def test_only_the_path_to_the_scores_must_be_computable(tmp_path: Path):
    text = make("Constant", [], ["words"], value_strings=["a", "b", "c", "d"])
    nodes = [
        text,
        make("ArgMax", ["h"], ["a"], axis=1),
        make("ArrayFeatureExtractor", ["words", "a"], ["l"], domain=ML),
    ]
    outputs = [info("l", ["N", 1], TensorProto.STRING), info("h", ["N", 4])]
    classifier, model = opened(tmp_path, nodes, outputs, W)
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    assert compare(classifier, model, x).largest < 1e-6


@pytest.mark.parametrize("answer", [np.zeros((2, 3, 4), np.float32), [{1: 0.5}], "text"])
def test_answers_that_are_no_rows_are_refused(answer: object):
    with pytest.raises(ModelError, match="one row an image"):
        plain_head("y").rows(answer)
