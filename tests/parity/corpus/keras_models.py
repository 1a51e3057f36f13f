# SPDX-License-Identifier: Apache-2.0
"""Keras networks through tf2onnx and keras's own export: NHWC with transposes."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from corpus.store import ROWS, Made, Recipe
from corpus.validity import refuse_invalid

_OPSET = 17
APPLICATIONS = {
    "MobileNetV2": 64, "EfficientNetB0": 64, "ResNet50": 64, "ConvNeXtTiny": 64,
    "MobileNetV3Small": 64, "EfficientNetV2B0": 64, "DenseNet121": 64, "Xception": 96,
    "InceptionV3": 96, "NASNetMobile": 64, "ResNet50V2": 64,
}  # fmt: skip


def _application(name: str) -> tuple[Any, tuple[int, ...], Any]:
    import keras

    side = APPLICATIONS[name]
    maker = getattr(keras.applications, name)
    model = maker(weights=None, classes=10, input_shape=(side, side, 3))
    return model, (side, side, 3), None


def _convnet() -> tuple[Any, tuple[int, ...], Any]:
    import keras
    from keras import layers as k

    x = image = keras.Input((16, 16, 3))
    x = k.BatchNormalization()(k.Conv2D(8, 3, padding="same", strides=2)(x))
    x = k.DepthwiseConv2D(3, padding="same", activation="relu6")(x)
    x = k.SeparableConv2D(12, 3, activation="swish")(k.ZeroPadding2D(1)(x))
    x = k.UpSampling2D(2, interpolation="bilinear")(k.MaxPooling2D(2)(x))
    x = k.Conv2DTranspose(6, 3, strides=2, padding="same", activation="elu")(x)
    x = k.LayerNormalization()(k.AveragePooling2D(2, padding="same")(x))
    x = k.Dense(5, activation="softmax")(k.Dropout(0.3)(k.GlobalAveragePooling2D()(x)))
    return keras.Model(image, x), (16, 16, 3), None


def _transformer(exact: bool) -> tuple[Any, tuple[int, ...], Any]:
    import keras
    from keras import layers as k

    gelu = partial(keras.activations.gelu, approximate=not exact)
    image = keras.Input((16, 16, 3))
    x = k.Reshape((16, 16))(k.Conv2D(16, 4, strides=4)(image))
    x = x + k.MultiHeadAttention(2, 8)(k.LayerNormalization()(x), k.LayerNormalization()(x))
    x = x + k.Dense(16)(k.Dense(32, activation=gelu)(k.LayerNormalization()(x)))
    x = k.Dense(5)(k.GlobalAveragePooling1D()(x))
    return keras.Model(image, x), (16, 16, 3), None


def _recurrent(kind: str) -> tuple[Any, tuple[int, ...], Any]:
    import keras
    from keras import layers as k

    sequence = keras.Input((9, 5))
    cell = {"lstm": k.LSTM, "gru": k.GRU}[kind]
    x = k.Bidirectional(cell(6, return_sequences=True))(sequence)
    x = k.Dense(4)(cell(6)(k.Conv1D(8, 3, padding="causal", activation="relu")(x)))
    return keras.Model(sequence, x), (9, 5), None


def _text() -> tuple[Any, tuple[int, ...], Any]:
    import keras
    from keras import layers as k

    ids = keras.Input((9,), dtype="int32")
    x = k.LSTM(6)(k.Embedding(50, 8)(ids))
    return keras.Model(ids, k.Dense(3)(x)), (9,), 50


MODELS: dict[str, Callable[[], tuple[Any, tuple[int, ...], Any]]] = {
    "convnet": _convnet,
    "transformer": partial(_transformer, True),
    "transformer_tanh": partial(_transformer, False),
    "lstm": partial(_recurrent, "lstm"),
    "gru": partial(_recurrent, "gru"),
    "text": _text,
    **{name: partial(_application, name) for name in APPLICATIONS},
}


def _stir(model: Any, name: str) -> None:
    """Make what starts as zeros or ones vary: biases, normalisation, moving statistics."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for weight in model.weights:
        value = np.asarray(weight)
        if value.dtype != np.float32 or value.size < 2 or value.std() > 0:
            continue
        if "variance" in weight.path or value.flat[0] == 1 or 0 < abs(value.flat[0]) < 1e-2:
            weight.assign(rng.uniform(0.5, 1.5, value.shape).astype(np.float32))
        elif value.flat[0] == 0:
            weight.assign(rng.normal(0, 0.05, value.shape).astype(np.float32))


@contextlib.contextmanager
def _without_xla() -> Iterator[None]:
    """Keep keras from compiling grouped convolutions: tf2onnx writes such calls as they are."""
    import tensorflow as tf

    compiled = tf.function

    def function(body: Any = None, **options: Any) -> Any:
        return (
            (body or (lambda inner: inner))
            if options.pop("jit_compile", False)
            else (compiled(body, **options))
        )

    tf.function = function
    try:
        yield
    finally:
        tf.function = compiled


def _erfc(ctx: Any, node: Any, name: str, _args: Any) -> None:
    """Write TensorFlow's Erfc, which tf2onnx does not know, as 1 - Erf."""
    shapes, kinds = [ctx.get_shape(node.output[0])], [ctx.get_dtype(node.output[0])]
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32)).output[0]
    source, outputs = node.input[0], list(node.output)
    ctx.remove_node(name)
    erf = ctx.make_node("Erf", [source], name=f"{name}/Erf", shapes=shapes, dtypes=kinds)
    ctx.make_node(
        "Sub", [one, erf.output[0]], name=name, outputs=outputs, shapes=shapes, dtypes=kinds
    )


def build(name: str, own: bool, opset: int, path: Path) -> Made:
    """Export one of `MODELS`: by `model.export` (`own`) or by tf2onnx."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")
    import keras
    import onnx
    import tensorflow as tf

    keras.utils.set_random_seed(zlib.crc32(name.encode()) % (1 << 31))
    model, shape, words = MODELS[name]()
    _stir(model, name)
    if words:
        rows = np.random.default_rng(0).integers(1, words, (ROWS, *shape)).astype(np.int32)
    else:
        rows = np.random.default_rng(0).normal(size=(ROWS, *shape)).astype(np.float32)
    if own:
        model(rows)
        model.export(str(path), format="onnx", opset_version=opset, verbose=False)
    else:
        import tf2onnx

        spec = tf.TensorSpec((None, *shape), tf.int32 if words else tf.float32, name="input")
        with _without_xla():
            tf2onnx.convert.from_function(
                tf.function(lambda x: model(x, training=False), input_signature=[spec]),
                input_signature=[spec],
                opset=opset,
                custom_op_handlers={"Erfc": (_erfc, [])},
                output_path=str(path),
            )
    refuse_invalid(path)
    # What keras keeps outside its variables (the statistics of Normalization) becomes an input.
    entries = list(onnx.load(path, load_external_data=False).graph.input)
    inputs = {entries[0].name: rows}
    for entry in entries[1:]:
        dims = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        inputs[entry.name] = np.random.default_rng(1).uniform(0.5, 1.5, dims).astype(np.float32)
    return Made(inputs, None, shared=tuple(inputs)[1:])


def recipes() -> list[Recipe]:
    """Return every recipe of this module."""
    needs = ("tensorflow", "keras", "tf2onnx")
    forms = [(name, own, _OPSET) for name in MODELS for own in (False, True)]
    forms += [("convnet", False, opset) for opset in (11, 13, 15, 18)]
    return [
        Recipe(
            f"keras/{name}@{'export' if own else 'tf2onnx'}{'' if opset == _OPSET else opset}",
            "keras export" if own else "tf2onnx",
            opset,
            partial(build, name, own, opset),
            needs,
        )
        for name, own, opset in forms
    ]
