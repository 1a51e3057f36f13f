# SPDX-License-Identifier: Apache-2.0
"""`doctor`: what is installed, what would run where, and the command that mends what is wrong.

The libraries are imported inside: where one of them does not load, that is what there is to say.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lancet_onnx.errors import LancetError
from lancet_onnx.report import Report
from lancet_onnx.runtime.installed import (
    absent,
    distributions,
    floors,
    outdated,
    versions,
    wanted_runtime,
)

_DEVICE = Path("/dev/nvidia0")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with an installation, and the command that mends it."""

    text: str
    command: str


@dataclass(frozen=True, slots=True)
class _Onnxruntime:
    """What onnxruntime is and does; `broken` says why it does not."""

    providers: tuple[str, ...] = ()
    session: Mapping[str, object] = field(default_factory=dict)
    missing_library: str = ""
    broken: str = ""


@dataclass(frozen=True, slots=True)
class _Torch:
    """What torch sees."""

    gpu: bool = False
    threads: int | None = None
    broken: str = ""


def doctor() -> Report:
    """Say which versions are installed, what would run where, and how to mend what is broken."""
    installed, gone = distributions(), absent()
    torch = _torch()
    gpu = torch.gpu or _DEVICE.exists()
    runtime = _onnxruntime(gpu=gpu)
    problems = (
        *_clash(installed),
        *_missing(gone, runtime, installed),
        *_old(),
        *_broken(torch, runtime, installed, gone),
        *_unused(gpu, runtime, installed),
    )
    advice = [f"{problem.text}: {problem.command}" for problem in problems]
    body = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "onnxruntime_distributions": installed,
        "providers_built_in": list(runtime.providers),
        "torch_cuda": torch.gpu,
        "torch_threads": torch.threads,
        "onnxruntime_session": runtime.session,
        "advice": advice,
        "problems": [{"text": each.text, "command": each.command} for each in problems],
    }
    return Report("doctor", "fail" if problems else "done", tuple(advice), body)


def _clash(installed: Mapping[str, str]) -> Iterator[Problem]:
    if len(installed) > 1:
        named = " and ".join(f"{name} {version}" for name, version in installed.items())
        yield Problem(
            f"{named} are both installed and overwrite each other",
            f"pip uninstall -y {' '.join(installed)} && pip install {_asked(wanted_runtime())}",
        )


def _missing(
    gone: Sequence[str], runtime: _Onnxruntime, installed: Mapping[str, str]
) -> Iterator[Problem]:
    # One that is built from source may say nothing of itself, and still work.
    without = not installed and bool(runtime.broken)
    for name in (*gone, *([wanted_runtime()] if without else [])):
        yield Problem(f"{name} is not installed", f"pip install {_asked(name)}")


def _old() -> Iterator[Problem]:
    for name, (version, floor) in outdated().items():
        yield Problem(
            f"{name} {version} is older than {floor}, which lancet-onnx needs",
            f"pip install --upgrade {_asked(name)}",
        )


def _broken(
    torch: _Torch, runtime: _Onnxruntime, installed: Mapping[str, str], gone: Sequence[str]
) -> Iterator[Problem]:
    if gone:  # what fails may fail for lack of these, and mending that comes first
        return
    if torch.broken:
        yield Problem(
            f"torch does not load ({torch.broken})",
            f"pip install --force-reinstall {_asked('torch')}",
        )
    if runtime.broken and len(installed) == 1:  # of two, or none, there is more to say
        yield Problem(
            f"onnxruntime does not work ({runtime.broken})",
            f"pip install --force-reinstall {_asked(next(iter(installed)))}",
        )


def _unused(gpu: bool, runtime: _Onnxruntime, installed: Mapping[str, str]) -> Iterator[Problem]:
    """Yield why a GPU that is there would not be used."""
    if not gpu or runtime.session.get("device") != "cpu" or len(installed) > 1:
        return
    if "CUDAExecutionProvider" not in runtime.providers:
        yield Problem(
            f"there is a GPU, but {' '.join(installed) or 'onnxruntime'} was built without CUDA",
            f"pip uninstall -y {' '.join(installed)} && pip install "
            f"{_asked('onnxruntime-gpu', '[cuda,cudnn]')}",
        )
        return
    missing = f": {runtime.missing_library} is missing" if runtime.missing_library else ""
    yield Problem(
        f"there is a GPU, but onnxruntime falls back to the CPU{missing}",
        f"pip install {_asked('onnxruntime-gpu', '[cuda,cudnn]')}",
    )


def _asked(name: str, extras: str = "") -> str:
    floor = floors().get(name)
    return f"'{name}{extras}>={floor}'" if floor else f"'{name}{extras}'"


def _torch() -> _Torch:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of CUDA that torch was built with
        return _Torch(broken=_first_line(error))
    return _Torch(torch.cuda.is_available(), torch.get_num_threads())


def _onnxruntime(*, gpu: bool) -> _Onnxruntime:
    try:
        from lancet_onnx.model.probe import SPEC, probe_model
        from lancet_onnx.runtime import ort

        providers = tuple(ort.providers())
    # What is left of two distributions when one was removed is a package without contents.
    except (ImportError, AttributeError, OSError) as error:
        return _Onnxruntime(broken=_first_line(error))
    try:
        placement = ort.OrtModel(probe_model(), SPEC).placement
    except LancetError as error:
        return _Onnxruntime(providers, broken=str(error))
    missing = ort.missing_library() if gpu and placement.device == "cpu" else ""
    return _Onnxruntime(providers, ort.environment(placement), missing)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
