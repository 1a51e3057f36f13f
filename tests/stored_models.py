# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies: models that keep constants in every place and form, and edits of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
from builders import INTEGER_STORAGE, field, info, model_bytes, sparse_tensor, tensor
from hypothesis import strategies as st
from onnx import FunctionProto, TensorProto, helper

from lancet_onnx.model import OnnxModel, load
from lancet_onnx.patch import TensorDelta
from lancet_onnx.types import ParamName

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
bits = st.integers(0, 2**32 - 1)


DTYPES = (
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    np.int8,
    np.uint8,
    np.int16,
    np.uint16,
    np.int32,
)
PLACES = ("initializer", "constant", "branch", "sparse", "external", "function")
DATA_FILES = ("a.bin", "sub/b.bin")


@dataclass
class Constant:
    """One constant of a model: its values, where they are and in which form.

    `stored` are the flat positions that the file holds (all of them unless it is sparse).
    """

    name: str
    array: np.ndarray
    storage: str
    place: str
    stored: tuple[int, ...]

    @property
    def bits(self) -> np.ndarray:
        return self.array.reshape(-1).view(f"u{self.array.dtype.itemsize}")


@dataclass
class Stored:
    """A model file, what it holds, and its metadata."""

    constants: dict[str, Constant]
    metadata: dict[str, str]

    @property
    def files(self) -> Mapping[str, bytes]:
        """All files, put together piece by piece; the same constants give the same bytes."""
        at = {p: [c for c in self.constants.values() if c.place == p] for p in PLACES}
        items = {place: [tensor(c.name, c.array, c.storage) for c in at[place]] for place in PLACES}
        nodes = [_constant_node(c, c.name) for c in at["constant"]]
        if at["branch"]:
            branch = helper.make_graph([], "b", [], [])
            branch.initializer.extend(TensorProto.FromString(item) for item in items["branch"])
            nodes.append(
                helper.make_node("If", ["0"], ["1"], then_branch=branch, else_branch=EMPTY)
            )
        functions: list[FunctionProto] = []
        if at["function"]:
            inside = [_constant_node(c, c.name.removeprefix("F/")) for c in at["function"]]
            last = inside[-1].output[0]
            opsets = [helper.make_opsetid("", 17)]
            functions = [helper.make_function("local", "F", [], [last], inside, opsets)]
            nodes.append(helper.make_node("F", [], ["2"], "call", domain="local"))
        data = {name: bytearray(b"head") for name in DATA_FILES} if at["external"] else {}
        outside = []
        for number, c in enumerate(at["external"]):
            name = DATA_FILES[number % len(DATA_FILES)]
            item = TensorProto(
                name=c.name,
                dims=c.array.shape,
                data_type=helper.np_dtype_to_tensor_dtype(c.array.dtype),
                data_location=TensorProto.EXTERNAL,
            )
            entries = {"location": name, "offset": len(data[name]), "length": c.array.nbytes}
            for key, value in entries.items():
                item.external_data.add(key=key, value=str(value))
            outside.append(item.SerializeToString())
            data[name] += c.array.tobytes() + b"gap"
        sparse = [sparse_tensor(c.name, c.array, c.stored, c.storage) for c in at["sparse"]]
        whole = model_bytes(
            nodes,
            items["initializer"] + outside,
            [info("0", [], TensorProto.BOOL)],
            [info("1", [1])],
            metadata=self.metadata,
            sparse=sparse,
            domains=["local"] if functions else [],
        )
        tail = b"".join(field(25, function.SerializeToString()) for function in functions)
        used = {e for number, e in zip(range(len(outside)), DATA_FILES, strict=False)}
        return {"": whole + tail, **{name: bytes(c) for name, c in data.items() if name in used}}

    @property
    def data(self) -> bytes:
        """The .onnx file."""
        return self.files[""]

    def write(self, folder: Path) -> Path:
        """Write all files into a folder; return the .onnx file."""
        for name, content in self.files.items():
            path = folder / (name or "model.onnx")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder / "model.onnx"

    def open(self, folder: Path) -> OnnxModel:
        """Write all files and load the model."""
        return load(self.write(folder))

    def edited(self, deltas: Sequence[TensorDelta]) -> "Stored":
        """What the file should be after `deltas`."""
        constants = dict(self.constants)
        for delta in deltas:
            old = constants[delta.param]
            array = np.array(old.array)
            index, _, new = delta.elements
            array.reshape(-1).view(new.dtype)[index] = new
            constants[delta.param] = replace(old, array=array)
        return replace(self, constants=constants)


EMPTY = helper.make_graph([], "e", [], [])


def _constant_node(held: Constant, output: str):
    inner = TensorProto.FromString(tensor("inner", held.array, held.storage))
    return helper.make_node("Constant", [], [output], value=inner)


@st.composite
def constant(draw: st.DrawFn, name: str) -> Constant:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    place = draw(st.sampled_from(PLACES))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=place == "sparse", max_size=3)))
    size = int(np.prod(shape))
    values = np.array(draw(st.lists(bits, min_size=size, max_size=size)), np.uint64)
    if dtype.itemsize == 8:
        values = values << np.uint64(31) | values
    array = values.astype(f"<u{dtype.itemsize}").view(dtype).reshape(shape)
    stored = tuple(range(size))
    if place == "sparse":
        stored = tuple(sorted(draw(st.sets(st.sampled_from(stored), min_size=1))))
        array.reshape(-1)[[i for i in range(size) if i not in stored]] = 0
    storage = "raw" if place == "external" else draw(st.sampled_from(INTEGER_STORAGE))
    return Constant(f"F/{name}" if place == "function" else name, array, storage, place, stored)


@st.composite
def models(draw: st.DrawFn) -> Stored:
    names = draw(st.lists(text, min_size=1, max_size=4, unique=True))
    # "0" and "1" are the names of the model's input and output.
    drawn = [draw(constant(f"c{name}")) for name in names]
    constants = {held.name: held for held in drawn}
    return Stored(constants, draw(st.dictionaries(text, text, max_size=2)))


@st.composite
def edits(draw: st.DrawFn, stored: Stored) -> tuple[TensorDelta, ...]:
    deltas = []
    for name, held in stored.constants.items():
        places = sorted(draw(st.sets(st.sampled_from(held.stored), max_size=5)))
        if not places and draw(st.booleans()):
            continue
        old = held.bits[places]
        highest = min(2 ** (8 * old.dtype.itemsize), 2**32) - 1
        new = old ^ np.array([draw(st.integers(1, highest)) for _ in places], old.dtype)
        index = np.array(places, np.int64)
        array = held.array
        deltas.append(
            TensorDelta.of(ParamName(name), array.dtype.name, array.shape, index, old, new)
        )
    return tuple(deltas)


@st.composite
def patched(draw: st.DrawFn) -> tuple[Stored, tuple[TensorDelta, ...]]:
    stored = draw(models())
    return stored, draw(edits(stored))
