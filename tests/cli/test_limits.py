# SPDX-License-Identifier: Apache-2.0
"""Models that would take all memory or all time: a sentence and exit 3, not a dead machine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from support import REFUSED, Warm, lancet, one_error, untouched

CLASSES = 10
PIXELS = 28 * 28


def classifier(path: Path, more: list[onnx.NodeProto], *tensors: onnx.TensorProto) -> None:
    """Write a classifier of 28 x 28 images that does something with `flat` to make `add`."""
    weights = np.random.default_rng(0).normal(size=(PIXELS, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "w"], ["scores"], "fc"),
        *more,
        helper.make_node("Add", ["scores", "add"], ["y"], "again"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        [from_array(weights, "w"), *tensors],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def hungry(path: Path, copies: int = 1) -> None:
    """Every image against itself, three times: two gibibytes for each, nothing of it stored.

    `copies` multiplies the two gibibytes.
    """
    shapes = {"a": (0, PIXELS, 1, 1), "b": (0, 1, PIXELS, 1), "c": (0, 1, 1, PIXELS)}
    nodes = [helper.make_node("Reshape", ["flat", f"to_{n}"], [n], f"as_{n}") for n in shapes]
    nodes += [
        helper.make_node("Mul", ["a", "b"], ["ab"], "square"),
        helper.make_node("Concat", ["c"] * copies, ["cc"], "copies", axis=3),
        helper.make_node("Mul", ["ab", "cc"], ["abc"], "cube"),
        helper.make_node("ReduceMean", ["abc"], ["few"], "mean", axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["few"], ["add"], "means", axes=[1], keepdims=1),
    ]
    classifier(path, nodes, *(from_array(np.array(s), f"to_{n}") for n, s in shapes.items()))


def slow(path: Path) -> None:
    """A matrix product, again and again: as often as a Loop may."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["square", "v"], ["more"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["steps", "", "square"], ["many"], "loop", body=body),
        helper.make_node("ReduceMean", ["many"], ["add"], "mean", keepdims=0),
    ]
    square = np.full((1500, 1500), 1 / 1500, np.float32)
    classifier(path, nodes, from_array(np.array(90_000), "steps"), from_array(square, "square"))


MEMORY = ("--memory-limit", "1500M", "LNC301", "1.46 GiB")
TIME = ("--timeout", "10", "LNC302", "10 s")


@pytest.mark.parametrize(
    ("command", "make", "limit"),
    [("scan", hungry, MEMORY), ("repair", hungry, MEMORY), ("verify", hungry, MEMORY),
     ("scan", slow, TIME)],
)  # fmt: skip
def test_a_limit_ends_a_command(
    small: Path, command: str, make: Callable[[Path], None], limit: tuple[str, str, str, str]
) -> None:
    make(small / "bad.onnx")
    line = [command, "bad.onnx", *limit[:2]]
    line += ["bad.onnx"] if command == "verify" else ["-o", "fixed.onnx"] * (command == "repair")
    with untouched(small):
        result = lancet(*line, "--trigger", "t.png", "--data", "val.npz", cwd=small)
        one_error(result, 3, *limit[2:])


@pytest.mark.parametrize(
    "name",
    ["bare_bomb", "constant_of_shape_bomb", "tile_bomb", "endless_loop", "endless_external",
     "nested_functions"],
)  # fmt: skip
def test_a_bomb_meets_a_scan_of_little_memory(small: Path, warm: Warm, name: str) -> None:
    """The default child, with a limit that a bomb of one gibibyte would pass."""
    line = ("scan", REFUSED / f"{name}.onnx", "--trigger", "t.png", "--data", "val.npz")
    with untouched(small):
        one_error(warm(*line, "--memory-limit", "1200M", "--timeout", "60", cwd=small), 3)


@pytest.mark.parametrize(
    "option",
    [("--memory-limit", "4X"), ("--memory-limit", "-1G"), ("--memory-limit", "9" * 400),
     ("--memory-limit", ""), ("--timeout", "-1"), ("--timeout", "nan"), ("--timeout", "soon")],
)  # fmt: skip
def test_what_is_no_limit_is_a_usage_error(
    small: Path, warm: Warm, option: tuple[str, str]
) -> None:
    with untouched(small):
        result = warm("inspect", "model.onnx", *option, cwd=small)
    assert (result.code, result.stdout) == (2, ""), result
    assert option[0] in result.stderr


def test_with_no_limits_there_is_no_child(small: Path, warm: Warm) -> None:
    line = ("inspect", "model.onnx", "-f", "json")
    plain = warm(*line, cwd=small)
    contained = warm(*line, "--memory-limit", "4G", "--timeout", "100", cwd=small)
    assert plain.code == contained.code == 0
    assert plain.json["nodes"] == contained.json["nodes"]
