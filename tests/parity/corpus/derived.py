# SPDX-License-Identifier: Apache-2.0
"""Files made from files: quantised, optimised, simplified; and scikit-learn's networks."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from saturation import saturates

from corpus.seeding import seed
from corpus.store import ROWS, Made, Recipe

_SOURCES = ("resnet18", "mobilenet_v2", "tinyvit", "bert_tiny", "convnet", "lstm")


def source(
    which: str, folder: Path, opset: int = 17, batch: int | None = None
) -> tuple[Path, Made]:
    """Export the model that others are derived from; dynamo from opset 18 on."""
    import torch

    from corpus import small, vision
    from corpus.torch_export import export

    path = folder / "source.onnx"
    if which in small.MODELS:
        return path, small.build(which, opset >= 18, opset, batch, torch.float32, path)
    model, images = vision.torchvision_model(which)
    return path, export(model, (images,), path, dynamo=opset >= 18, opset=opset, batch=batch)


def _onnxruntime(which: str, level: str, opset: int, path: Path) -> Made:
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        plain, made = source(which, Path(folder), opset)
        options = ort.SessionOptions()
        options.graph_optimization_level = {
            "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
            "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        }[level]
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        ort.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
    return made


def _onnxsim(which: str, opset: int, path: Path) -> Made:
    import onnx
    import onnxsim

    with tempfile.TemporaryDirectory() as folder:
        plain, made = source(which, Path(folder), opset)
        simple, good = onnxsim.simplify(onnx.load(plain))
    if not good:
        raise RuntimeError("onnxsim's own check failed")
    onnx.save(simple, path)
    return made


def _onnxslim(which: str, opset: int, path: Path) -> Made:
    import onnx
    import onnxslim

    with tempfile.TemporaryDirectory() as folder:
        plain, made = source(which, Path(folder), opset)
        onnx.save(onnxslim.slim(onnx.load(plain)), path)
    return made


def _float16(which: str, path: Path) -> Made:
    """onnxruntime's converter: float inputs and outputs, Cast nodes, float16 inside."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with tempfile.TemporaryDirectory() as folder:
        plain, made = source(which, Path(folder))
        onnx.save(convert_float_to_float16(onnx.load(plain), keep_io_types=True), path)
    return Made(made.inputs, made.batch, "half")


def _reader(inputs: dict[str, Any], batch: int) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = self._rows()

        def _rows(self) -> Iterator[dict[str, Any]]:
            for start in range(0, ROWS, batch):
                yield {name: array[start : start + batch] for name, array in inputs.items()}

        def get_next(self) -> dict[str, Any] | None:
            return next(self.rows, None)

    return Reader()


def _static(which: str, form: str, weights: str, per_channel: bool, opset: int, path: Path) -> Made:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    kinds = {
        "int8": (QuantType.QInt8, QuantType.QInt8),
        "uint8": (QuantType.QUInt8, QuantType.QUInt8),
        "uint8_int8": (QuantType.QUInt8, QuantType.QInt8),
        "int16": (QuantType.QInt16, QuantType.QInt8),
        "int4": (QuantType.QUInt8, QuantType.QInt4),
    }[weights]
    with tempfile.TemporaryDirectory() as folder:
        plain, made = source(which, Path(folder), opset)
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(path),
            _reader(dict(made.inputs), made.batch or 1),
            quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator,
            activation_type=kinds[0],
            weight_type=kinds[1],
            per_channel=per_channel,
        )
    return Made(made.inputs, made.batch, "quantised")


def _dynamic(which: str, weights: str, per_channel: bool, path: Path) -> Made:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kind = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}[weights]
    with tempfile.TemporaryDirectory() as folder:
        plain, made = source(which, Path(folder))
        quantize_dynamic(
            str(plain),
            str(path),
            weight_type=kind,
            per_channel=per_channel,
            reduce_range=saturates(),
        )
    return Made(made.inputs, made.batch, "quantised", mixes=True)


def _sklearn(kind: str, path: Path) -> Made:
    import onnx
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 8)).astype(np.float32) * 2 + 1
    y = (x[:, 0] * x[:, 1] > 1).astype(int) + (x[:, 2] > 1.5)
    kinds: dict[str, Callable[[], Any]] = {
        "mlp_relu": lambda: MLPClassifier((16, 12), max_iter=200, random_state=0),
        "mlp_tanh": lambda: MLPClassifier((10,), "tanh", max_iter=200, random_state=0),
        "mlp_logistic_two": lambda: MLPClassifier((10,), "logistic", max_iter=200, random_state=0),
        "scaled_mlp": lambda: make_pipeline(
            StandardScaler(), MLPClassifier((16,), max_iter=200, random_state=0)
        ),
        "logistic": lambda: LogisticRegression(max_iter=500),
    }
    if kind.endswith("_two"):
        y = (y > 0).astype(int)
    model = kinds[kind]().fit(x, y)
    final = model[-1] if kind == "scaled_mlp" else model
    converted = to_onnx(model, x[:1], options={id(final): {"zipmap": False}}, target_opset=17)
    onnx.save(converted, path)
    return Made({converted.graph.input[0].name: x[:ROWS]}, None)


def _quiet(make: Callable[[Path], Made], name: str, path: Path) -> Made:
    seed(name)
    logging.disable(logging.WARNING)
    os.chdir(tempfile.gettempdir())
    with redirect_stdout(io.StringIO()):
        return make(path.resolve())


def recipes() -> list[Recipe]:
    """Return every recipe of this module."""
    forms: list[tuple[str, str, int, Callable[[Path], Made], tuple[str, ...]]] = [
        (f"sklearn/{kind}", "skl2onnx", 17, partial(_sklearn, kind), ("skl2onnx",))
        for kind in ("mlp_relu", "mlp_tanh", "mlp_logistic_two", "scaled_mlp", "logistic")
    ]
    for which in _SOURCES:
        for opset in (17, 20):
            for level in ("basic", "extended"):
                make = partial(_onnxruntime, which, level, opset)
                forms.append((f"optimised/{which}@ort_{level}_{opset}", "ORT", opset, make, ()))
            forms.append(
                (f"optimised/{which}@onnxsim_{opset}", "onnxsim", opset,
                 partial(_onnxsim, which, opset), ("onnxsim",))
            )  # fmt: skip
            forms.append(
                (f"optimised/{which}@onnxslim_{opset}", "onnxslim", opset,
                 partial(_onnxslim, which, opset), ("onnxslim",))
            )  # fmt: skip
        forms.append((f"types/{which}@ort_float16", "ORT", 17, partial(_float16, which), ()))
    quantised = "ORT quantisation"
    for which in ("convnet", "mobilenet_v2", "tinyvit", "resnet18", "bert_tiny"):
        for weights, channels in (("int8", True), ("uint8", False), ("uint8_int8", True)):
            for form in ("qdq", "qoperator"):
                name = f"quantised/{which}@{form}_{weights}{'_channels' if channels else ''}"
                make = partial(_static, which, form, weights, channels, 17)
                forms.append((name, quantised, 17, make, ()))
    for which in ("convnet", "tinyvit"):
        make = partial(_static, which, "qdq", "int16", False, 21)
        forms.append((f"quantised/{which}@qdq_int16", quantised, 21, make, ()))
        make = partial(_static, which, "qdq", "int4", False, 21)
        forms.append((f"quantised/{which}@qdq_int4", quantised, 21, make, ()))
        make = partial(_static, which, "qdq", "uint8_int8", False, 20)
        forms.append((f"quantised/{which}@qdq_dynamo", quantised, 20, make, ()))
    for which in ("convnet", "tinyvit", "bert_tiny", "lstm", "mobilenet_v2"):
        for weights, channels in (("int8", False), ("uint8", False), ("int8", True)):
            name = f"quantised/{which}@dynamic_{weights}{'_channels' if channels else ''}"
            make = partial(_dynamic, which, weights, channels)
            forms.append((name, quantised, 17, make, ()))
    return [
        Recipe(
            name,
            exporter,
            opset,
            partial(_quiet, make, name),
            ("torch", "onnxscript", "onnxruntime", *needs),
        )
        for name, exporter, opset, make, needs in forms
    ]
