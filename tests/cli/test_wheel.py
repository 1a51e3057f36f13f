# SPDX-License-Identifier: Apache-2.0
"""The wheel holds all that users need, and nothing else at its top level."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources and unpack it as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run(build, check=True, cwd=folder, capture_output=True)
    (wheel,) = folder.glob("lancet_onnx-*.whl")
    install = [*pip, "install", "--no-deps", "--no-compile", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, cwd=folder, capture_output=True)
    return target


def test_the_wheel_holds_both_packages_and_the_demo(installed: Path):
    packages = {p.name for p in installed.iterdir() if p.suffix != ".dist-info"}
    assert packages == {"lancet_onnx", "lancet_onnx_cli", "bin"}
    for name in (
        "lancet_onnx/py.typed",
        "lancet_onnx/report/templates/report.html.jinja",
        "lancet_onnx/report/templates/search.html.jinja",
        "lancet_onnx/report/templates/residual.html.jinja",
        "lancet_onnx_cli/py.typed",
        "lancet_onnx_cli/demo/model.onnx",
        "lancet_onnx_cli/demo/trigger.png",
        "lancet_onnx_cli/demo/images.npz",
        "lancet_onnx_cli/demo/README.md",
    ):
        assert (installed / name).is_file(), name
    (licence,) = installed.glob("lancet_onnx-*.dist-info/licenses/LICENSE")
    assert "Apache License" in licence.read_text()


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = (
        "import lancet_onnx_cli.app as a, lancet_onnx as l; print(a.__file__); print(l.__file__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert all(line.startswith(str(installed)) for line in found.stdout.splitlines())
    done = subprocess.run(
        [sys.executable, "-m", "lancet_onnx_cli", "demo"],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("repaired;")
    assert {p.name for p in (tmp_path / "lancet-demo").iterdir()} == {
        "fixed.lancet.safetensors",
        "fixed.onnx",
        "images.npz",
        "model.onnx",
        "repair.json",
        "report.html",
        "scan.json",
        "trigger.png",
        "verify.json",
    }
