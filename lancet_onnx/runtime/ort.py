# SPDX-License-Identifier: Apache-2.0
"""onnxruntime runs the file: the last word on what a model does. Its only importer.

Two of its habits are guarded against here: it prints to stdout, and it falls back to the CPU
without an error when a GPU was asked for. What ran where is therefore read from the placement of
the nodes, never from a list of providers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lancet_onnx.errors import DataError, DeviceError, ModelError
from lancet_onnx.runtime.bundle import taken_apart
from lancet_onnx.runtime.head import Head, plain_head
from lancet_onnx.runtime.installed import version_of
from lancet_onnx.types import Device as Device
from lancet_onnx.types import TensorSpec, ValueName

BATCH = 256
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_HEAVY = {"Conv", "ConvTranspose", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a session really runs.

    Attributes:
        provider: of the first node that multiplies weights (all of them agree).
        nodes: number of nodes per provider, after onnxruntime's own optimisation.
    """

    provider: str
    nodes: tuple[tuple[str, int], ...]

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        return "cuda" if self.provider == _CUDA else "cpu"


class OrtModel:
    """One model file (or its bytes) in an onnxruntime session."""

    def __init__(
        self,
        source: Path | bytes,
        spec: TensorSpec,
        device: Device = "auto",
        head: Head | None = None,
        parts: tuple[TensorSpec, ...] = (),
    ) -> None:
        """Open the model; with ``cuda`` every weight-carrying node must be placed there.

        Without `head` the first output holds the scores. `parts` are the file's own inputs where
        `spec` stands for several (see `bundle`).

        Raises:
            ModelError: onnxruntime refuses the model.
            DeviceError: CUDA was asked for and is not there or not used.
        """
        self._spec = spec
        self._head = head
        self._parts = parts
        target = str(source) if isinstance(source, Path) else source
        wanted = _providers(device)
        self._session = _open(target, wanted)
        self.placement = _placement(self._session)
        if device == "cuda" and self.placement.device != "cuda":
            raise DeviceError(
                f"--device cuda: onnxruntime placed the model on {self.placement.provider}; "
                "`lancet-onnx doctor` says what is missing. Use --device cpu to go on without"
            )

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the model's scores, (N, classes) float32, for any number of inputs.

        Raises:
            ModelError: the model fails on these inputs or gives NaN.
            DataError: no inputs, or not of the shape that the model takes.
        """
        if not len(inputs):
            raise DataError("there are no images to run the model on; give more images")
        batch = self._spec.shape[0] if self._spec.shape else None
        fixed = batch if isinstance(batch, int) and batch > 0 else None
        size = fixed or (1 if self._head is not None and self._head.alone else BATCH)
        rows = []
        for start in range(0, len(inputs), size):
            part: NDArray[np.generic] = inputs[start : start + size]
            missing = (fixed or len(part)) - len(part)
            if missing:
                part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            rows.append(self._run(part)[: len(part) - missing])
        scores = np.concatenate(rows)
        if np.isnan(scores).any():
            bad = int(np.flatnonzero(np.isnan(scores).any(axis=1))[0])
            raise ModelError(
                f"the model gives NaN (first for image {bad}); nothing can be said about it. "
                "Check the preprocessing and the weights (`lancet-onnx inspect`)"
            )
        return scores

    def labels(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the class with the highest score for each input."""
        labels: NDArray[np.int64] = self.scores(inputs).argmax(axis=1).astype(np.int64)
        return labels

    def _run(self, part: NDArray[np.generic]) -> NDArray[np.float32]:
        head = self._head or plain_head(ValueName(self._session.get_outputs()[0].name))
        name = head.output
        try:
            with _silent_stdout():
                feeds = taken_apart(part, self._spec, self._parts)
                result = self._session.run([name], feeds)[0]
        except Exception as error:
            if "INVALID_ARGUMENT" in str(error) or "Got invalid dimensions" in str(error):
                raise DataError(
                    f"the model refuses inputs of shape {part.shape} for '{self._spec.name}' "
                    f"{self._spec.shape}: {_first_line(error)}"
                ) from error
            raise ModelError(f"onnxruntime failed on the model: {_first_line(error)}") from error
        rows = head.rows(result)
        if len(rows) != len(part):
            raise ModelError(
                f"the output '{name}' has {len(rows)} rows for {len(part)} images; expected "
                "a classifier's scores, one row an image"
            )
        return rows


def environment(placement: Placement) -> dict[str, object]:
    """Return what a report says about device, provider and versions."""
    versions = {name: version_of(name) for name in ("lancet-onnx", "torch", "onnx", "numpy")}
    versions["onnxruntime"] = ort.__version__
    return {
        "device": placement.device,
        "provider": placement.provider,
        "nodes": dict(placement.nodes),
        "versions": versions,
    }


def providers() -> list[str]:
    """Return the providers that the installed onnxruntime was built with (not what would run)."""
    return list(ort.get_available_providers())


def missing_library() -> str:
    """Return the first library that the CUDA provider needs and does not find, or nothing."""
    folder = Path(ort.__file__).parent / "capi"
    try:
        for part in ("shared", "cuda"):
            ctypes.CDLL(str(folder / f"libonnxruntime_providers_{part}.so"), ctypes.RTLD_GLOBAL)
    except OSError as error:
        name, _, rest = str(error).partition(":")
        return name if "cannot open shared object" in rest else ""
    return ""


def _providers(device: Device) -> list[object]:
    if device == "cpu" or (device == "auto" and not cuda_present()):
        return [_CPU]
    # TF32 rounds weights to 10 bits: a verdict on a few flipped weights must not depend on it.
    options = {
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
    }
    return [(_CUDA, options), _CPU]


def cuda_present() -> bool:
    """Return whether a CUDA device and its driver are there, without starting CUDA."""
    return _CUDA in providers() and (Path("/dev/nvidia0").exists() or sys.platform == "win32")


def _open(target: str | bytes, wanted: list[object]) -> ort.InferenceSession:
    ort.set_default_logger_severity(4)  # a missing CUDA library is told by DeviceError
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if len(wanted) > 1:
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    try:
        with _silent_stdout():
            if len(wanted) > 1 and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()
            session = ort.InferenceSession(target, options, providers=wanted)
            session.disable_fallback()
    except Exception as error:
        shown = target if isinstance(target, str) else "the model"
        raise ModelError(f"{shown}: onnxruntime refuses the model: {_first_line(error)}") from error
    return session


def _placement(session: ort.InferenceSession) -> Placement:
    counts: dict[str, int] = {}
    heavy: set[str] = set()
    for subgraph in session.get_provider_graph_assignment_info():
        for node in subgraph.get_nodes():
            counts[subgraph.ep_name] = counts.get(subgraph.ep_name, 0) + 1
            if node.op_type in _HEAVY:
                heavy.add(subgraph.ep_name)
    provider = _CUDA if heavy == {_CUDA} else next(iter(heavy - {_CUDA}), _CPU)
    return Placement(provider, tuple(sorted(counts.items())))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Onnxruntime's Python layer prints; stdout is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
