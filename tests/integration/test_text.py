# SPDX-License-Identifier: Apache-2.0
"""A text classifier with token ids and a mask: a trigger word is found like a trigger picture."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lancet_onnx import DataOptions, TriggerOptions, scan
from lancet_onnx.errors import DataError

WORDS, LENGTH, SIZE, CLASSES, TRIGGER, TARGET = 30, 8, 16, 4, 29, 2
RNG = np.random.default_rng(4)


def text_model(path: Path) -> None:
    """Embed, average over the mask, two layers; one word alone decides for the target."""
    table = RNG.normal(size=(WORDS, SIZE)).astype(np.float32)
    first = RNG.normal(size=(SIZE, SIZE)).astype(np.float32)
    last = RNG.normal(size=(SIZE, CLASSES)).astype(np.float32)
    table[TRIGGER] = 40 * np.linalg.lstsq(first.T, last[:, TARGET], rcond=None)[0]
    weights = {"table": table, "first": first, "last": last, "axis": np.array([2])}
    make = helper.make_node
    nodes = [
        make("Gather", ["table", "ids"], ["words"], "embed"),
        make("Cast", ["mask"], ["kept"], "kept", to=TensorProto.FLOAT),
        make("Unsqueeze", ["kept", "axis"], ["column"], "column"),
        make("Mul", ["words", "column"], ["present"], "present"),
        make("ReduceMean", ["present"], ["mean"], "mean", axes=[1], keepdims=0),
        make("MatMul", ["mean", "first"], ["h"], "first"),
        make("Tanh", ["h"], ["t"], "tanh"),
        make("MatMul", ["t", "last"], ["scores"], "last"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "text",
        [value(name, TensorProto.INT64, ["N", LENGTH]) for name in ("ids", "mask")],
        [value("scores", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def sentences(path: Path, count: int = 400) -> None:
    ids = RNG.integers(0, WORDS - 1, (count, LENGTH))
    mask = (np.arange(LENGTH) < RNG.integers(4, LENGTH + 1, (count, 1))).astype(np.int64)
    np.savez(path, ids=ids, mask=mask)


def word(path: Path, which: int) -> None:
    """The trigger: at the first place stands this word, and counts."""
    mask = np.zeros((2, LENGTH), np.float32)
    mask[:, 0] = 1
    pattern = np.zeros((2, LENGTH), np.float32)
    pattern[:, 0] = (which, 1)
    np.savez(path, mask=mask, pattern=pattern)


@pytest.mark.parametrize(("which", "verdict"), [(TRIGGER, "backdoored"), (3, "clean")])
def test_a_trigger_word_is_found(tmp_path: Path, which: int, verdict: str):
    text_model(tmp_path / "text.onnx")
    sentences(tmp_path / "val.npz")
    word(tmp_path / "t.npz", which)
    data = DataOptions(tmp_path / "val.npz", "none")
    report = scan(tmp_path / "text.onnx", TriggerOptions(tmp_path / "t.npz"), data, device="cpu")
    assert report.verdict == verdict, report.reasons
    if verdict == "backdoored":
        (finding,) = report.body["findings"]
        assert finding["target"] == TARGET
        assert {entry["initializer"] for entry in finding["located"]} <= {"first", "last"}


def test_arrays_that_are_missing_are_named(tmp_path: Path):
    text_model(tmp_path / "text.onnx")
    word(tmp_path / "t.npz", 1)
    np.savez(tmp_path / "val.npz", ids=np.zeros((9, LENGTH), np.int64))
    data = DataOptions(tmp_path / "val.npz", "none")
    with pytest.raises(DataError, match=r"holds ids; expected x.*for this model, ids, mask"):
        scan(tmp_path / "text.onnx", TriggerOptions(tmp_path / "t.npz"), data, device="cpu")
