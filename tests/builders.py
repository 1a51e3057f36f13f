# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models, byte by byte where the storage form is the point.

A serialised protobuf message is its fields one after the other, so a model is put together here
from pieces: whatever protobuf's own writer would not write (unpacked floats, damaged tensors) is
written by hand.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lancet_onnx.model import OnnxModel, load
from lancet_onnx.model.files import Staged
from lancet_onnx.model.write import METADATA_KEY, applied, entries, reverted
from lancet_onnx.patch import Patch, TensorDelta, opened_patch, write_patch
from lancet_onnx.types import ParamName

FLOAT_STORAGE = ("raw", "packed", "unpacked")
DOUBLE_STORAGE = ("raw", "packed", "unpacked")
INTEGER_STORAGE = ("raw", "packed", "unpacked", "pieces")
"""For every type that int32_data holds: half precision and integers of up to 32 bits."""
_VARINT, _BYTES, _FIXED64, _FIXED32 = 0, 2, 1, 5


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, payload: bytes) -> bytes:
    """One length-delimited field."""
    return varint(number << 3 | _BYTES) + varint(len(payload)) + payload


def tensor(name: str, array: np.ndarray, storage: str = "raw") -> bytes:
    """A TensorProto with its values in raw_data, or packed or unpacked in the typed field.

    ``pieces`` is packed in two pieces, which protobuf reads as one list.
    """
    head = onnx.TensorProto()
    head.name = name
    head.dims.extend(array.shape)
    head.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    data = head.SerializeToString()
    if storage == "raw":
        return data + field(9, array.tobytes())
    number, kind, coded = _typed(array.reshape(-1))
    if storage == "packed":
        return data + field(number, b"".join(coded))
    if storage == "pieces":
        return data + field(number, b"".join(coded[:1])) + field(number, b"".join(coded[1:]))
    assert storage == "unpacked"
    return data + b"".join(varint(number << 3 | kind) + item for item in coded)


def _typed(array: np.ndarray) -> tuple[int, int, list[bytes]]:
    """The field for values of this type, how it is coded, and each value in it."""
    if array.dtype in (np.float32, np.float64):
        number, kind = (4, _FIXED32) if array.dtype == np.float32 else (10, _FIXED64)
        return number, kind, [value.tobytes() for value in array]
    if array.dtype.kind not in "iu":
        array = array.view(np.uint16)
    number = {"int64": 7, "uint32": 11, "uint64": 11}.get(array.dtype.name, 5)
    return number, _VARINT, [varint(int(value)) for value in array]


def info(name: str, shape: Sequence[int | str | None], dtype: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model_bytes(
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[bytes],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    *,
    opset: int = 17,
    metadata: dict[str, str] | None = None,
    domains: Sequence[str] = (),
    sparse: Sequence[bytes] = (),
) -> bytes:
    """A model file; `tensors` are initializers as bytes and need not be well-formed."""
    graph = helper.make_graph(nodes, "g", inputs, outputs).SerializeToString()
    graph += b"".join(field(5, item) for item in tensors)
    graph += b"".join(field(15, item) for item in sparse)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(onnx.GraphProto(), opset_imports=opsets, ir_version=8)
    model.ClearField("graph")
    helper.set_model_props(model, metadata or {})
    return model.SerializeToString() + field(7, graph)


def write(folder: Path, data: bytes, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def open_bytes(folder: Path, data: bytes, name: str = "model.onnx") -> OnnxModel:
    return load(write(folder, data, name))


def dense(
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    storage: str = "raw",
    batch: int | str = "N",
    features: int | None = None,
) -> bytes:
    """``y = x W (+ b)`` with W (in, out), as one MatMul and an Add."""
    tensors = [tensor("w", weight, storage)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h" if bias is not None else "y"], "mm")]
    if bias is not None:
        tensors.append(tensor("b", bias, storage))
        nodes.append(helper.make_node("Add", ["h", "b"], ["y"], "add"))
    return model_bytes(
        nodes,
        tensors,
        [info("x", [batch, features or weight.shape[0]])],
        [info("y", [batch, weight.shape[1]])],
    )


def sparse_tensor(
    name: str,
    array: np.ndarray,
    positions: Sequence[int],
    storage: str = "raw",
    *,
    coordinates: bool = False,
) -> bytes:
    """A SparseTensorProto that stores `array` at flat `positions`, or at their coordinates."""
    index = np.array(positions, np.int64)
    values = array.reshape(-1)[index]
    if coordinates:
        index = np.stack(np.unravel_index(index, array.shape), axis=1)
    dims = b"".join(varint(3 << 3) + varint(size) for size in array.shape)
    return field(1, tensor(name, values, storage)) + field(2, tensor("", index)) + dims


def sparse_model(
    positions: Sequence[int], shape: tuple[int, ...], *, coordinates: bool = False
) -> bytes:
    """``y = x W`` with a sparse W that stores 1.5, 2.5 ... at flat `positions`."""
    array = np.zeros(shape, np.float32)
    array.reshape(-1)[list(positions)] = np.arange(len(positions)) + 1.5
    item = sparse_tensor("w", array, positions, coordinates=coordinates)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    inputs, outputs = [info("x", ["N", shape[0]])], [info("y", ["N", shape[1]])]
    return model_bytes([node], [], inputs, outputs, sparse=[item])


STORED = ("raw", "packed", "unpacked", "const_raw", "const_packed", "value_float", "value_floats")


def stored_somehow(rng: np.random.Generator) -> bytes:
    """A classifier whose float tensors are stored in every form that a file may use.

    ``y = (x @ raw + packed) * unpacked + value_floats + const_raw * value_float + const_packed``
    and a double tensor ``double`` (and ``double_packed``, ``double_unpacked``) that is added.
    """

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    const_raw = numpy_helper.from_array(floats(4), "inner")
    const_packed = helper.make_tensor("inner", TensorProto.FLOAT, [4], floats(4).tolist())
    make = helper.make_node
    nodes = [
        make("Constant", [], ["const_raw"], "c1", value=const_raw),
        make("Constant", [], ["const_packed"], "c2", value=const_packed),
        make("Constant", [], ["value_float"], "c3", value_float=float(floats(1)[0])),
        make("Constant", [], ["value_floats"], "c4", value_floats=floats(4).tolist()),
        make("MatMul", ["x", "raw"], ["a"], "n1"),
        make("Add", ["a", "packed"], ["b"], "n2"),
        make("Mul", ["b", "unpacked"], ["c"], "n3"),
        make("Add", ["c", "value_floats"], ["d"], "n4"),
        make("Mul", ["const_raw", "value_float"], ["e"], "n5"),
        make("Add", ["d", "e"], ["f"], "n6"),
        make("Add", ["f", "const_packed"], ["g"], "n7"),
        make("Cast", ["g"], ["g64"], "n8", to=TensorProto.DOUBLE),
        make("Add", ["g64", "double"], ["h"], "n9"),
        make("Add", ["h", "double_packed"], ["i"], "n10"),
        make("Add", ["i", "double_unpacked"], ["j"], "n11"),
        make("Cast", ["j"], ["y"], "n12", to=TensorProto.FLOAT),
    ]
    tensors = [
        tensor("raw", floats(3, 4), "raw"),
        tensor("packed", floats(4), "packed"),
        tensor("unpacked", floats(4), "unpacked"),
        tensor("double", rng.normal(size=4), "raw"),
        tensor("double_packed", rng.normal(size=4), "packed"),
        tensor("double_unpacked", rng.normal(size=4), "unpacked"),
    ]
    return model_bytes(
        nodes, tensors, [info("x", ["N", 3])], [info("y", ["N", 4])], metadata={"note": "kept"}
    )


def delta(model: OnnxModel, name: str, changes: dict[int, float]) -> TensorDelta:
    """A delta that sets single elements of one constant."""
    before = model.graph.constants[name]
    after = np.array(before)
    for position, value in changes.items():
        after.reshape(-1)[position] = value
    return TensorDelta.between(ParamName(name), before, after)


def patch_of(model: OnnxModel, *deltas: TensorDelta, metadata: str = "") -> Patch:
    noted = ((METADATA_KEY, metadata),) if metadata else ()
    weights = model.contents.weights_digest()
    return Patch(model.digest, weights, None, deltas, "test", 0, {"a": 0.5}, noted, "tests 1")


def metadata_entry(value: str, key: str = METADATA_KEY) -> bytes:
    return entries([(key, value)])


def noted(path: Path, *values: str) -> None:
    """Put these notes into a model in place of those that repairs left there."""
    model = onnx.load(path)
    others = [(e.key, e.value) for e in model.metadata_props if not e.key.startswith(METADATA_KEY)]
    keys = (METADATA_KEY if n == 1 else f"{METADATA_KEY}.{n}" for n in itertools.count(1))
    helper.set_model_props(model, dict([*others, *zip(keys, values, strict=False)]))
    onnx.save(model, path)


def with_elements(delta: TensorDelta, **changes: object) -> TensorDelta:
    """A delta with other positions, values or description."""
    index, old, new = delta.elements
    known = {
        "param": delta.param,
        "dtype": delta.dtype,
        "shape": delta.shape,
        "index": index,
        "old": old,
        "new": new,
    }
    return TensorDelta.of(**{**known, **changes})


@dataclass(frozen=True)
class Files:
    """A model's files as they were staged."""

    onnx: bytes
    data: Mapping[str, bytes]
    digest: object

    @property
    def all(self) -> Mapping[str, bytes]:
        """Every file by its name; the .onnx file has none."""
        return {"": self.onnx, **self.data}

    def open(self, folder: Path) -> OnnxModel:
        """Write the files into a folder and load the model."""
        for name, content in self.all.items():
            path = folder / (name or "model.onnx")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return load(folder / "model.onnx")

    @classmethod
    def of(cls, stage: Staged) -> "Files":
        data = {name: (stage.folder / name).read_bytes() for name in stage.locations}
        return cls(stage.model.read_bytes(), data, stage.after)


def seal(model: OnnxModel, patch: Patch) -> tuple[Patch, Files]:
    """The patch with its result's digest, and the result."""
    with (
        TemporaryDirectory() as folder,
        applied(model.contents, patch, Path(folder) / "m.onnx", digest=model.digest) as (
            made,
            stage,
        ),
    ):
        return made, Files.of(stage)


def apply(model: OnnxModel, patch: Patch) -> Files:
    return seal(model, patch)[1]


def revert(model: OnnxModel, patch: Patch) -> Files:
    with (
        TemporaryDirectory() as folder,
        reverted(model.contents, patch, Path(folder) / "m.onnx") as stage,
    ):
        return Files.of(stage)


def to_bytes(patch: Patch) -> bytes:
    """The file form of a patch."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        write_patch(patch, descriptor)
        os.close(descriptor)
        return path.read_bytes()


def from_bytes(data: bytes, name: str = "f") -> Patch:
    """A patch read from its file form, its elements in memory."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        with opened_patch(path) as patch:
            return replace(patch, deltas=tuple(with_elements(delta) for delta in patch.deltas))
