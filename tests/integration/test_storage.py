# SPDX-License-Identifier: Apache-2.0
"""One element edited, for every way in which a file may keep a weight.

From the leaf through `to_patch`, `seal` and the files on disk to onnxruntime: the element changes
and nothing else does, onnxruntime then computes what the edited leaf computes here, a gradient
reaches the element, and the way back gives the same bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from builders import Files, apply, patch_of, revert, seal
from onnx import TensorProto, numpy_helper
from saturation import saturates
from storage_cases import CASES, IN, ROWS, W_AT, Case, coded_in_branch, dequantised, normal

from lancet_onnx.model import OnnxModel, load
from lancet_onnx.model.placing import writable
from lancet_onnx.model.write import applied
from lancet_onnx.patch import Patch
from lancet_onnx.repair import to_patch
from lancet_onnx.runtime.executor import GraphModule
from lancet_onnx.types import ParamName

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Opened:
    """A case's model with an input, its leaf, and the leaf after the edit."""

    case: Case
    model: OnnxModel
    module: GraphModule
    x: np.ndarray
    param: ParamName
    leaf: torch.Tensor
    edited: torch.Tensor

    def run(self, leaf: torch.Tensor) -> torch.Tensor:
        output = self.model.graph.outputs[0].name
        return self.module.run({"x": torch.from_numpy(self.x)}, [output], {self.param: leaf})[
            output
        ]

    def patch(self, leaf: torch.Tensor) -> Patch:
        return to_patch(self.model, {self.param: leaf}, "m", 0, {})


@pytest.fixture(params=CASES)
def opened(request: pytest.FixtureRequest, tmp_path: Path, rng: np.random.Generator) -> Opened:
    case = CASES[request.param]
    built = case.build(tmp_path, rng)
    if isinstance(built, bytes):
        (tmp_path / "model.onnx").write_bytes(built)
        built = tmp_path / "model.onnx"
    model = load(built)
    module = GraphModule(model.graph, CPU)
    if case.dtype == np.uint8:
        # Two products of seven by eight bits fit the sixteen in which some processors add them.
        x = rng.integers(0, 128 if saturates() else 256, (ROWS, IN)).astype(np.uint8)
    else:
        x = normal(rng, ROWS, IN, dtype=case.dtype)
    param = ParamName(case.param)
    assert param in model.graph.leaves
    leaf = module.leaves[param].clone()
    edited = leaf.clone()
    edited.reshape(-1)[case.at] = case.value
    return Opened(case, model, module, x, param, leaf, edited)


def written(patch: Patch, opened: Opened) -> Path:
    output = opened.model.path.parent / "out" / "fixed.onnx"
    output.parent.mkdir()
    with applied(opened.model.contents, patch, output, digest=opened.model.digest) as (_, stage):
        stage.commit()
    return output


def by_onnxruntime(path: Path, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # By default DequantizeLinear and MatMul become one MatMulNBits, which rounds its input to int8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def tensors_of(message: object) -> Iterator[TensorProto]:
    """Every tensor at any depth of a message, found without knowing where tensors may be."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                yield from tensors_of(item)


def numbers_of(message: object) -> Iterator[object]:
    """Every attribute at any depth that holds plain numbers."""
    if isinstance(message, onnx.AttributeProto) and not message.HasField("t"):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                yield from numbers_of(item)


def values_by_onnx(path: Path) -> list[np.ndarray]:
    """All values of a file, in its order."""
    proto = onnx.load(path)
    found = [numpy_helper.to_array(item).reshape(-1) for item in tensors_of(proto)]
    found += [np.array([a.f, *a.floats], np.float32) for a in numbers_of(proto)]
    return [np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}") for a in found]


def without_values(data: bytes) -> onnx.ModelProto:
    proto = onnx.ModelProto.FromString(data)
    for item in tensors_of(proto):
        for name in ("raw_data", "float_data", "double_data", "int32_data"):
            item.ClearField(name)
    for attribute in numbers_of(proto):
        attribute.ClearField("f")
        attribute.ClearField("floats")
    return proto


def contents(files: Files) -> Mapping[str, bytes]:
    return {"": files.onnx, **files.data}


def test_exactly_the_element_changes(opened: Opened):
    model, case = opened.model, opened.case
    writable(model.contents, [opened.param])
    patch, files = seal(model, opened.patch(opened.edited))
    assert [(d.param, d.elements.at.tolist()) for d in patch.deltas] == [(opened.param, [case.at])]
    output = written(patch, opened)

    after = load(output)
    assert after.digest == patch.result
    assert after.graph.constants.keys() == model.graph.constants.keys()
    for name, array in model.graph.constants.items():
        expected = np.array(array)
        if name == opened.param:
            expected.reshape(-1)[case.at] = case.value
        assert after.graph.constants[name].tobytes() == expected.tobytes(), name

    before_it, after_it = values_by_onnx(model.path), values_by_onnx(output)
    assert [a.shape for a in before_it] == [a.shape for a in after_it]
    assert sum(int((a != b).sum()) for a, b in zip(before_it, after_it, strict=True)) == 1
    assert without_values(files.onnx) == without_values(model.contents.source)


def test_no_other_byte_changes(opened: Opened):
    model, case = opened.model, opened.case
    _, files = seal(model, opened.patch(opened.edited))
    before, after = (contents(f) for f in (apply(model, patch_of(model)), files))
    assert before.keys() == after.keys() == {"", *(e.location for e in model.external.values())}
    changed = {name for name in before if before[name] != after[name]}
    assert len(changed) == 1
    (name,) = changed
    if case.fixed:
        assert len(before[name]) == len(after[name])
        places = [
            i for i, (a, b) in enumerate(zip(before[name], after[name], strict=True)) if a != b
        ]
        width = model.graph.constants[opened.param].dtype.itemsize
        assert places[-1] - places[0] < width
    else:
        assert abs(len(after[name]) - len(before[name])) < 16  # one number and a few lengths


def test_onnxruntime_computes_the_edit(opened: Opened):
    patch, _ = seal(opened.model, opened.patch(opened.edited))
    old = by_onnxruntime(opened.model.path, opened.x)
    new = by_onnxruntime(written(patch, opened), opened.x)
    assert (old != new).any()
    for found, leaf in ((old, opened.leaf), (new, opened.edited)):
        expected = opened.run(leaf).numpy()
        if opened.case.tolerance == 0:
            np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))
        else:
            wide = found.astype(np.float64)
            scale = np.abs(wide).max()
            np.testing.assert_allclose(
                wide, expected, rtol=opened.case.tolerance, atol=opened.case.tolerance * scale
            )


def test_a_gradient_reaches_the_element(opened: Opened):
    leaf = opened.edited.clone().requires_grad_()
    opened.run(leaf).square().sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert leaf.grad.reshape(-1)[opened.case.at] != 0


@pytest.mark.parametrize("value", [0, 255])
def test_a_gradient_reaches_an_element_at_the_limit_of_its_type(
    tmp_path: Path, rng: np.random.Generator, value: float
):
    path = tmp_path / "model.onnx"
    path.write_bytes(dequantised(np.uint8, "raw", 128)(tmp_path, rng))
    module = GraphModule(load(path).graph, CPU)
    leaf = module.leaves[ParamName("w")].clone()
    leaf.reshape(-1)[W_AT] = value
    leaf.requires_grad_()
    x = torch.from_numpy(normal(rng, ROWS, IN))
    module.run({"x": x}, ["y"], {"w": leaf})["y"].square().sum().backward()
    assert leaf.grad.reshape(-1)[W_AT] != 0


def test_a_quantised_weight_of_a_branch_is_a_leaf(tmp_path: Path, rng: np.random.Generator):
    path = tmp_path / "model.onnx"
    path.write_bytes(coded_in_branch(np.int8, "DequantizeLinear")(tmp_path, rng))
    assert "a_w" in load(path).graph.leaves


def test_without_an_edit_the_files_stay(opened: Opened):
    patch = opened.patch(opened.leaf)
    assert patch.deltas == ()
    files = apply(opened.model, patch)
    assert files.onnx == opened.model.path.read_bytes()
    for outside in opened.model.external.values():
        assert files.data[outside.location] == outside.file.read_bytes()


@pytest.mark.parametrize("metadata", ["", "a note"])
def test_the_way_back_gives_the_same_bytes(opened: Opened, metadata: str):
    edit = opened.patch(opened.edited)
    patch, _ = seal(opened.model, patch_of(opened.model, *edit.deltas, metadata=metadata))
    back = revert(load(written(patch, opened)), patch)
    assert contents(back) == contents(apply(opened.model, patch_of(opened.model)))
    assert back.onnx == opened.model.path.read_bytes()
