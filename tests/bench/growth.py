# SPDX-License-Identifier: Apache-2.0
"""How the cost of a search grows with the number of classes, on a synthetic head.

    python tests/bench/growth.py --model MODEL.onnx --data IMAGES [--classes 10 43 200 1000]

The last layer of MODEL (a Gemm with its weight in rows) gets as many rows as asked for: its own,
and random mixtures of them. The images are taken as unlabelled. Prints image-forwards and seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx import DataOptions, scan
from tests.bench.compare_table import Line


def widened(model: onnx.ModelProto, classes: int, seed: int) -> onnx.ModelProto:
    """Return the model with a last layer of so many classes."""
    rng = np.random.default_rng(seed)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    gemm = [node for node in made.graph.node if node.op_type == "Gemm"][-1]
    rows: np.ndarray | None = None
    for name in gemm.input[1:]:
        stored = next(t for t in made.graph.initializer if t.name == name)
        old = numpy_helper.to_array(stored)
        if rows is None:
            extra = rng.dirichlet(np.ones(len(old)), max(classes - len(old), 0))
            # Sharper than plain averages, so that every class wins somewhere.
            rows = np.concatenate([np.eye(len(old)), 2 * extra])[:classes]
        stored.CopyFrom(numpy_helper.from_array((rows @ old).astype(old.dtype), name))
    for output in made.graph.output:
        output.type.tensor_type.shape.dim[1].dim_value = classes
    del made.graph.value_info[:]
    return made


def measure(model: onnx.ModelProto, classes: int, images: Path) -> Line:
    """Search the widened model; return what it took."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "wide.onnx"
        onnx.save(widened(model, classes, 0), path)
        report = scan(path, None, DataOptions(images, preprocess="unit"), device="cpu")
    search = dict(report.body)["search"]
    assert isinstance(search, dict)
    return {
        "classes": classes,
        "forwards": search["image_forwards"],
        "seconds": report.body["seconds"],
        "searched": len(search["classes"]),
    }


def main() -> int:
    """Print a row for each number of classes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 43, 200, 1000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = onnx.load(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "unlabelled.npz"
        with np.load(options.data) as archive:
            np.savez(images, x=archive["x"])
        print("| classes | searched to the end | image-forwards | per class | seconds |")
        print("| --- | --- | --- | --- | --- |")
        for classes in options.classes:
            row = measure(model, classes, images)
            print(
                f"| {row['classes']} | {row['searched']} | {row['forwards']:,} | "
                f"{row['forwards'] / classes:,.0f} | {row['seconds']:.0f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
