# SPDX-License-Identifier: Apache-2.0
"""The official node tests of ONNX, each through the whole way from file to result.

Right or refused, never wrong; what is left out is listed with its reason, and a reason that no
longer holds fails the test. `python tests/parity/test_onnx_node_suite.py` prints the tally.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.backend.test.loader import load_model_tests

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.model import Graph, load
from lancet_onnx.ops import lookup
from lancet_onnx.ops.creation import from_array
from lancet_onnx.runtime.executor import GraphModule

SHARE_RIGHT = 0.97

EXCLUDED = {
    "test_ada*": "trains a model; classifiers do not",
    "test_*momentum*": "trains a model; classifiers do not",
    "test_training_dropout": "draws random numbers; a deployed classifier does not",
    "test_training_dropout_default": "draws random numbers; a deployed classifier does not",
    "test_training_dropout_default_mask": "draws random numbers; a deployed classifier does not",
    "test_training_dropout_mask": "draws random numbers; a deployed classifier does not",
    "test_bernoulli*": "draws random numbers; a deployed classifier does not",
    "test_image_decoder*": "decodes image files, no operator on tensors",
    "test_ai_onnx_ml_tree_ensemble*": "trees have no weights that a gradient reaches",
    "test_optional_*": "optional values; no classifier that was seen has them",
    "test_flexattention_*_mod": "a graph inside an attention operator in preview",
    "test_flexattention_causal_mask": "a graph inside an attention operator in preview",
    "test_flexattention_relative_positional": "a graph inside an attention operator in preview",
    "test_flexattention_soft_cap": "a graph inside an attention operator in preview",
    "test_maxunpool_export_with_output_shape": "onnx and onnxruntime disagree on the result",
    "test_resize_downsample_scales_*_align_corners": "onnx and onnxruntime disagree",
}
"""Names of cases that are refused, and why; all else must be right."""


@dataclass
class Tally:
    right: list[str] = field(default_factory=list)
    not_numbers: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Right ones among those whose inputs and outputs are plain numbers."""
        return len(self.right) / (len(self.right) + len(self.refused) + len(self.wrong))


def plain_numbers(values: Any) -> bool:
    """Whether these are arrays of 8 to 64 bit numbers, not text, sequences, 4-bit or float8."""
    return all(
        isinstance(v, np.ndarray | np.generic)
        and (v.dtype.kind in "fiub" or v.dtype.name == "bfloat16")
        and v.dtype.name not in ("int4", "uint4", "int2", "uint2")
        for v in values
    )


def difference(got: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> str:
    if wanted.dtype.name == "bfloat16":
        wanted, rtol, atol = wanted.astype(np.float32), max(rtol, 1e-2), max(atol, 1e-2)
    if got.dtype != wanted.dtype:
        return f"type {got.dtype}, not {wanted.dtype}"
    if got.shape != wanted.shape:
        return f"shape {got.shape}, not {wanted.shape}"
    if got.dtype == np.float16:
        rtol, atol = max(rtol, 2e-3), max(atol, 1e-3)
    if got.dtype == np.float32 and got.size:
        # The expected values are float32 as well: their own rounding, one part in 2**23 of the
        # largest, is what atol cannot be under (the inverse DFT's zeros are 2e-7 in them).
        largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
        atol = max(atol, float(np.finfo(np.float32).eps) * largest)
    if not np.allclose(got, wanted, rtol=rtol, atol=atol, equal_nan=True):
        return "values differ"
    return ""


def declared(tensor: torch.Tensor, wanted: np.ndarray, graph: Graph) -> np.ndarray:
    """Return a result in its declared type, where the executor's own differs by design.

    Half precision is computed in float32; integers that operators of quantisation give are
    carried as floats. Any other difference of type stays, and fails.
    """
    if wanted.dtype == np.float16 and tensor.dtype == torch.float32:
        tensor = tensor.half()
    carried = any(
        entry.carried
        for node in graph.nodes
        if (entry := lookup((node.domain, node.op_type, node.since_version))) is not None
    )
    array = tensor.detach().numpy()
    if carried and wanted.dtype.kind in "iu" and array.dtype.kind == "f":
        assert (array == np.round(array)).all()
        return array.astype(wanted.dtype)
    return array


def run_case(model: onnx.ModelProto, data_sets: Any, folder: Path, rtol: float, atol: float) -> str:
    """Return what differs, empty for nothing."""
    path = folder / "case.onnx"
    path.write_bytes(model.SerializeToString())
    graph = load(path).graph
    module = GraphModule(graph, torch.device("cpu"))
    names = [spec.name for spec in graph.outputs]
    for inputs, outputs in data_sets:
        feeds = {
            spec.name: from_array(np.asarray(value))
            for spec, value in zip(graph.inputs, inputs, strict=True)
        }
        results = module.run(feeds, names)
        for name, wanted in zip(names, outputs, strict=True):
            found = declared(results[name], np.asarray(wanted), graph)
            if problem := difference(found, np.asarray(wanted), rtol, atol):
                return f"{name}: {problem}"
    return ""


def tally() -> Tally:
    result = Tally()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, while the cases are made
        cases = load_model_tests(kind="node")
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            assert case.model is not None
            assert case.data_sets is not None
            if not all(plain_numbers([*i, *o]) for i, o in case.data_sets):
                result.not_numbers.append(case.name)
                continue
            try:
                problem = run_case(case.model, case.data_sets, Path(folder), case.rtol, case.atol)
            except UnsupportedError as error:
                result.refused[case.name] = str(error)
            except Exception as error:  # whatever is no refusal counts as wrong
                result.wrong[case.name] = f"{type(error).__name__}: {error}"
            else:
                if problem:
                    result.wrong[case.name] = problem
                else:
                    result.right.append(case.name)
    return result


def test_node_suite_is_right_or_refused() -> None:
    result = tally()
    assert result.wrong == {}
    assert result.share >= SHARE_RIGHT
    reasons = {
        name: [pattern for pattern in EXCLUDED if fnmatch(name, pattern)]
        for name in (*result.refused, *result.right)
    }
    assert [name for name in result.refused if not reasons[name]] == [], "refused without a reason"
    assert [name for name in result.right if reasons[name]] == [], "computed, yet excluded"
    used = {pattern for name in result.refused for pattern in reasons[name]}
    assert EXCLUDED.keys() == used, "reasons that no longer hold"


def main() -> None:
    result = tally()
    runnable = len(result.right) + len(result.refused) + len(result.wrong)
    print(
        f"{len(result.right)} of {runnable} cases of plain numbers right ({result.share:.1%}), "
        f"{len(result.refused)} refused, {len(result.wrong)} wrong; "
        f"{len(result.not_numbers)} others are text, sequences, 4-bit or 8-bit floats"
    )
    for reason, count in Counter(result.refused.values()).most_common():
        print(f"{count:4d} refused: {reason[:160]}")
    for name, problem in result.wrong.items():
        print(f"WRONG {name}: {problem[:300]}")


if __name__ == "__main__":
    main()
