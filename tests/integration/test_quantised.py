# SPDX-License-Identifier: Apache-2.0
"""Quantised models are scanned and repaired like any other: whole numbers for whole numbers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import from_bytes
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from saturation import exact

from lancet_onnx.api import DataOptions, RepairOptions, TriggerOptions, repair, scan

DEMO = Path(__file__).parents[2] / "cli" / "lancet_onnx_cli" / "demo"
DATA = DataOptions(DEMO / "images.npz", "unit")
TRIGGER = TriggerOptions(DEMO / "trigger.png")


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        pixels = np.load(DEMO / "images.npz")["x"][:100].reshape(5, 20, 1, 28, 28)
        self.left = list(pixels.astype(np.float32) / 255)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return {"input": self.left.pop()} if self.left else None


WAYS = {
    "QDQ int8 by channel": (QuantFormat.QDQ, QuantType.QInt8, True),
    "QOperator uint8": (QuantFormat.QOperator, QuantType.QUInt8, False),
}


@exact
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantised_backdoor_is_found_and_repaired(tmp_path: Path, way: str):
    form, weights, channels = WAYS[way]
    path, fixed = tmp_path / "model.onnx", tmp_path / "fixed.onnx"
    quantize_static(
        DEMO / "model.onnx",
        path,
        Images(),
        quant_format=form,
        per_channel=channels,
        activation_type=QuantType.QUInt8,
        weight_type=weights,
    )
    assert scan(path, TRIGGER, DATA, locating=False).verdict == "backdoored"
    report = repair(path, TRIGGER, DATA, RepairOptions(fixed), device="cpu")
    assert report.verdict == "repaired", (report.reasons, report.body["search"])
    body = report.to_dict()
    assert body["after"]["attack_success"] < 0.05
    assert body["after"]["recovery"] > 0.9
    assert body["after"]["agreement"] > 0.97

    before, after = (
        {t.name: numpy_helper.to_array(t) for t in onnx.load(p).graph.initializer}
        for p in (path, fixed)
    )
    deltas = from_bytes((tmp_path / "fixed.lancet.safetensors").read_bytes(), "patch").deltas
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {delta.param for delta in deltas}
    assert {delta.dtype for delta in deltas} <= {"int8", "uint8", "int32"}
    assert path.stat().st_size <= fixed.stat().st_size
