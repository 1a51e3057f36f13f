# SPDX-License-Identifier: Apache-2.0
"""`doctor` finds what is wrong with an installation and says the command that mends it."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lancet_onnx.api import diagnosing
from lancet_onnx.errors import ModelError
from lancet_onnx.report import results
from lancet_onnx.runtime import installed, ort

CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]


@dataclass
class Machine:
    """What is installed on a machine, and what its sessions do."""

    monkeypatch: pytest.MonkeyPatch
    folder: Path

    def __post_init__(self) -> None:
        self.versions = {"torch": "2.15.0", "onnx": "1.23.2", "onnxruntime-gpu": "1.31.1"}
        self.modules = {*installed.LIBRARIES.values()}
        asked = ["torch>=2.11", "onnx>=1.23", "onnxruntime-gpu>=1.28; sys_platform == 'linux'",
                 "onnxruntime-gpu[cuda,cudnn]>=1.28; extra == 'gpu'", "numpy"]  # fmt: skip
        patch = self.monkeypatch.setattr
        patch(installed, "version_of", lambda name: self.versions.get(name, "not installed"))
        patch(installed, "find_spec", lambda name: name if name in self.modules else None)
        patch(installed.metadata, "requires", lambda _: asked)
        patch(diagnosing, "wanted_runtime", lambda: "onnxruntime-gpu")
        patch(diagnosing, "_DEVICE", self.folder / "nvidia0")
        patch(diagnosing, "_torch", lambda: diagnosing._Torch(False, 1))
        patch(ort, "providers", lambda: CUDA)
        patch(ort, "missing_library", lambda: "libcurand.so.10")

    def with_a_gpu(self) -> None:
        (self.folder / "nvidia0").touch()

    @property
    def problems(self) -> list[tuple[str, str]]:
        report = diagnosing.doctor()
        assert report.verdict == ("fail" if report.reasons else "done")
        found = [(p["text"], p["command"]) for p in report.body["problems"]]  # type: ignore[attr-defined]
        assert list(report.reasons) == [": ".join(each) for each in found]
        for _, command in found:
            assert shlex.split(command), "it can be pasted into a shell"
        return found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def test_nothing_is_wrong_with_a_cpu_and_the_wheel_for_gpus(machine: Machine) -> None:
    assert machine.problems == []


def test_two_wheels_of_onnxruntime(machine: Machine) -> None:
    machine.versions["onnxruntime"] = "1.32.0"
    machine.with_a_gpu()
    assert machine.problems == [
        (
            "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed and overwrite each "
            "other",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu>=1.28'",
        )
    ], "one cause, one command"


def test_a_missing_library_of_cuda(machine: Machine) -> None:
    machine.with_a_gpu()
    assert machine.problems == [
        (
            "there is a GPU, but onnxruntime falls back to the CPU: libcurand.so.10 is missing",
            "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.28'",
        )
    ]


def test_a_gpu_that_torch_sees_and_onnxruntime_cannot_use(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosing, "_torch", lambda: diagnosing._Torch(True, 1))
    monkeypatch.setattr(ort, "providers", lambda: CUDA[1:])
    machine.versions["onnxruntime"] = machine.versions.pop("onnxruntime-gpu")
    assert machine.problems == [
        (
            "there is a GPU, but onnxruntime was built without CUDA",
            "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]>=1.28'",
        )
    ]


@pytest.mark.parametrize(
    ("version", "old"),
    [("2.9.1", True), ("2.10.9+cpu", True), ("2.11", False), ("2.11.0+cu130", False), ("3", False),
     ("2.100.0", False)],
)  # fmt: skip
def test_a_version_under_what_is_asked_for(machine: Machine, version: str, old: bool) -> None:
    machine.versions["torch"] = version
    expected = (
        f"torch {version} is older than 2.11, which lancet-onnx needs",
        "pip install --upgrade 'torch>=2.11'",
    )
    assert machine.problems == [expected] * old


def test_an_onnxruntime_that_does_not_load(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ort, "providers")  # what an uninstalled half leaves behind
    ((text, command),) = machine.problems
    assert text.startswith("onnxruntime does not work (")
    assert command == "pip install --force-reinstall 'onnxruntime-gpu>=1.28'"
    monkeypatch.setitem(sys.modules, "lancet_onnx.model.probe", None)
    assert "does not work" in machine.problems[0][0]


def test_an_onnxruntime_that_runs_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ModelError("onnxruntime refuses the model: no")

    monkeypatch.setattr(ort, "OrtModel", broken)
    ((text, _),) = machine.problems
    assert text == "onnxruntime does not work (onnxruntime refuses the model: no)"


def test_libraries_that_are_not_installed_are_said_to_be(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.modules -= {"onnx", "PIL"}
    del machine.versions["onnx"]
    monkeypatch.setitem(sys.modules, "lancet_onnx.model.probe", None)  # which needs onnx
    assert machine.problems == [
        ("onnx is not installed", "pip install 'onnx>=1.23'"),
        ("pillow is not installed", "pip install 'pillow'"),
    ], "and nothing of onnxruntime, which cannot be tried"
    versions = diagnosing.doctor().body["versions"]
    assert versions == {
        "lancet-onnx": "not installed", "torch": "2.15.0", "onnx": "not installed",
        **dict.fromkeys(("numpy", "safetensors", "pillow", "jinja2"), "not installed"),
    }  # fmt: skip


def test_no_onnxruntime_at_all(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    del machine.versions["onnxruntime-gpu"]
    assert machine.problems == [], "it works, whatever it says of itself"
    monkeypatch.setitem(sys.modules, "lancet_onnx.model.probe", None)
    expected = ("onnxruntime-gpu is not installed", "pip install 'onnxruntime-gpu>=1.28'")
    assert machine.problems == [expected]


def test_a_torch_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = diagnosing._torch()
    assert "torch" in found.broken
    assert found.gpu is False


def test_each_problem_is_a_result_with_its_command(machine: Machine) -> None:
    machine.with_a_gpu()
    machine.versions["onnx"] = "1.20"
    report = diagnosing.doctor()
    assert [(r.text, r.next) for r in results(report)] == machine.problems
    assert all(r.open for r in results(report))


def test_floors_are_those_that_the_package_asks_for() -> None:
    floors = installed.floors()
    assert {"torch", "onnx", "numpy", "typer"} <= set(floors)
    assert installed.outdated() == {}, "or this environment is not what pyproject asks for"


def test_a_library_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "capi").mkdir()
    monkeypatch.setattr(ort.ort, "__file__", str(tmp_path / "__init__.py"))
    assert ort.missing_library().endswith("libonnxruntime_providers_shared.so")
