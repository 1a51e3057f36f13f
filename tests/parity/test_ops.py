# SPDX-License-Identifier: Apache-2.0
"""Every operator against onnxruntime, over versions and attributes; what is refused."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import parity_nodes
import pytest
import torch
from op_cases import Case, Maker, f, f32
from parity_nodes import call
from saturation import saturates

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops import lookup, table

NEWEST = 25  # what onnxruntime 1.31 loads
SEQUENCES = (
    "ConcatFromSequence",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SplitToSequence",
)
TESTED_APART = {
    ("", "Constant"),
    ("", "CastLike"),
    ("", "Upsample"),
    # onnxruntime has no kernel of these; onnx's own node tests compare them.
    ("", "BitCast"),
    ("", "CausalConvWithState"),
    ("", "CumProd"),
    ("", "LinearAttention"),
    ("ai.onnx.preview", "FlexAttention"),
    # On sequences, which are no inputs and outputs of models here: test_sequences.py.
    *(("", name) for name in SEQUENCES),
}

CASES = [import_module(path.stem) for path in sorted(Path(__file__).parent.glob("op_cases*.py"))]
MAKER_OF: dict[tuple[str, str], Maker] = {
    (getattr(module, "DOMAIN", ""), op_type): maker
    for module in CASES
    for maker, names in module.MAKERS.items()
    for op_type in names
}
"""Each module of cases maps makers to operator names, of the module's DOMAIN."""


def onnxruntime_outputs(case: Case) -> list[np.ndarray] | None:
    """Return what onnxruntime computes, or None where it has no kernel."""
    model, feeds = case.model()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error):
            return None
        raise
    return session.run(None, feeds)


def mismatch(case: Case) -> str | None:
    """Return what differs from onnxruntime, an empty string for nothing, None if not compared."""
    wanted = onnxruntime_outputs(case)
    if wanted is None:
        return None
    model, feeds = case.model()
    got = parity_nodes.run_model(model, list(feeds.values()))
    operator = lookup(parity_nodes.key_of(model.graph.node[0], case.opset))
    for g, w in zip(got, wanted, strict=True):
        if operator is not None and operator.carried and w.dtype.kind in "iu":
            if not np.array_equal(g, w):
                return f"{case}: a carried integer differs"
            g = g.astype(w.dtype)
        if g.shape != w.shape or g.dtype != w.dtype:
            return f"{case}: {g.dtype} {g.shape}, not {w.dtype} {w.shape}"
        if not np.allclose(g, w, rtol=1e-5, atol=1e-5, equal_nan=True):
            return f"{case}: values differ"
    return ""


def opsets_of(domain: str, op_type: str) -> list[int]:
    """Return the opsets at which the table's revisions of an operator begin."""
    least = 7 if not domain else 1
    return sorted({max(least, v) for d, name, v in table() if (d, name) == (domain, op_type)})


EIGHT_BIT_SUMS = {
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
}


@pytest.mark.parametrize(("domain", "op_type"), sorted(MAKER_OF))
def test_operator_equals_onnxruntime(domain: str, op_type: str) -> None:
    if op_type in EIGHT_BIT_SUMS and saturates():
        pytest.skip("onnxruntime's eight-bit sums saturate on this processor (no VNNI)")
    opsets = [opset for opset in opsets_of(domain, op_type) if opset <= NEWEST]
    cases = [case for opset in opsets for case in MAKER_OF[domain, op_type](op_type, opset)]
    found = [mismatch(case) for case in cases]
    assert [problem for problem in found if problem] == []
    assert found.count("") > 0


def test_upsample_equals_onnxruntime() -> None:
    for mode in ("nearest", "linear"):
        by_attribute = {"mode": mode, "scales": [1.0, 1.0, 2.0, 3.0]}
        assert mismatch(Case("Upsample", 7, [f(1, 2, 3, 4)], by_attribute)) == ""
        assert mismatch(Case("Upsample", 9, [f(1, 2, 3, 4), f32(1, 1, 2, 3)], {"mode": mode})) == ""


def test_every_operator_is_compared() -> None:
    assert {(domain, name) for domain, name, _ in table()} - set(MAKER_OF) == TESTED_APART


def test_table_holds_real_revisions_and_takes_their_attributes() -> None:
    schemas = {
        (s.domain, s.name, s.since_version): s for s in onnx.defs.get_all_schemas_with_history()
    }
    for key, operator in table().items():
        if key[0] == "com.microsoft":
            continue  # onnx has no schemas of that domain
        assert key in schemas
        parameters = inspect.signature(operator.function).parameters
        missing = set(schemas[key].attributes) - set(parameters)
        assert missing <= {"consumed_inputs"}, key
        assert ("n_outputs" in parameters) == operator.counts_outputs, key


@pytest.mark.parametrize("op_type", sorted(name for domain, name in MAKER_OF if not domain))
def test_no_revision_since_opset_7_is_left_out(op_type: str) -> None:
    for opset in range(7, onnx.defs.onnx_opset_version() + 1):
        try:
            schema = onnx.defs.get_schema(op_type, max_inclusive_version=opset)
        except onnx.defs.SchemaError:
            continue
        assert lookup(("", op_type, schema.since_version)) is not None, (op_type, opset)


def refused(op_type: str, version: int, *inputs: Any, **attributes: Any) -> None:
    with pytest.raises(UnsupportedError):
        call(op_type, version, *inputs, **attributes)


def test_what_cannot_be_exact_is_refused() -> None:
    image, vector = torch.randn(1, 2, 4, 4), torch.rand(2)
    statistics = [vector] * 4
    refused("BatchNormalization", 9, image, *statistics, n_outputs=5)
    refused("BatchNormalization", 7, image, *statistics, spatial=0)
    refused("Dropout", 13, image, None, torch.tensor(True))
    refused("Cast", 19, image, to=17)
    refused("Constant", 13, value_string="a")
    refused("Mod", 13, image, image)
    roi, scales = torch.zeros(8), torch.tensor([1.0, 1.0, 0.5, 0.5])
    tf = {"coordinate_transformation_mode": "tf_crop_and_resize"}
    aligned = {"coordinate_transformation_mode": "align_corners"}
    refused("Resize", 13, image, roi, scales, **tf)
    refused("Resize", 18, image, None, torch.tensor([1, 1, 0.6, 1]), **aligned)
    refused("GroupNormalization", 18, image, vector, vector, num_groups=1)
    volume, grid = torch.randn(1, 1, 2, 2, 2), torch.zeros(1, 2, 2, 2, 3)
    refused("GridSample", 20, volume, grid, mode="cubic")
    refused("AffineGrid", 20, torch.zeros(1, 2, 3), torch.tensor([1, 1, 1, 2]), align_corners=1)
    places, larger = torch.zeros(1, 2, 4, 4).long(), torch.tensor([1, 2, 9, 9])
    refused("MaxUnpool", 22, image, places, larger, kernel_shape=[2, 2], strides=[2, 2])
    refused("BitShift", 11, image, image, direction="LEFT")
    refused("BitCast", 26, image, to=7)
    refused("Attention", 24, image, image, image, torch.ones(4, 1))


def test_an_unknown_attribute_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        call("Relu", 14, torch.randn(2), slope=1)
