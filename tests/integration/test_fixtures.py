# SPDX-License-Identifier: Apache-2.0
"""The fixture models are what their manifest says, and small enough to live in the repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
DEMO = ROOT / "cli" / "lancet_onnx_cli" / "demo"
MANIFEST = json.loads((FIXTURES / "MANIFEST.json").read_text(encoding="utf-8"))
REFUSED = sorted(path.stem for path in (FIXTURES / "refused").glob("*.onnx"))
MEGABYTE = 1_000_000


def shipped() -> list[Path]:
    files = [*FIXTURES.rglob("*"), *DEMO.rglob("*")]
    return [path for path in files if path.is_file() and "__pycache__" not in path.parts]


def check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "fixtures" / "build.py"), "--check"],
        cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for folder in (FIXTURES, DEMO):
        shutil.copytree(folder, tmp_path / folder.relative_to(ROOT))
    return tmp_path


def run(name: str, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        FIXTURES / "refused" / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"input": x})[0]


def unseen(count: int) -> np.ndarray:
    with np.load(DEMO / "images.npz") as arrays:
        return arrays["x"][:count].transpose(0, 3, 1, 2).astype(np.float32) / 255


def test_the_files_are_what_the_manifest_says():
    done = check(ROOT)
    assert done.returncode == 0, done.stderr


def test_a_changed_file_is_named(copied: Path):
    trigger = copied / "fixtures" / "mnist_resnet_scattered.png"
    trigger.write_bytes(trigger.read_bytes() + b"\0")
    done = check(copied)
    assert done.returncode == 1
    assert "fixtures/mnist_resnet_scattered.png has SHA-256" in done.stderr


def test_a_missing_file_is_named(copied: Path):
    (copied / "fixtures" / "mnist_cnn_clean.onnx").unlink()
    done = check(copied)
    assert done.returncode == 1
    assert "fixtures/mnist_cnn_clean.onnx is missing" in done.stderr


@pytest.mark.parametrize("figure", ["clean_accuracy", "attack_success", "base_rate"])
def test_a_wrong_figure_is_named(copied: Path, figure: str):
    manifest = copied / "fixtures" / "MANIFEST.json"
    entries = json.loads(manifest.read_text(encoding="utf-8"))
    entries[0][figure] = 0.5
    manifest.write_text(json.dumps(entries), encoding="utf-8")
    done = check(copied)
    assert done.returncode == 1
    assert f"mnist_cnn_square: {figure} is" in done.stderr


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["name"])
def test_the_models_are_good_enough_to_test_with(entry):
    assert entry["clean_accuracy"] >= 0.96
    if entry["backdoored"]:
        assert entry["attack_success"] >= 0.98
        assert entry["base_rate"] <= 0.02


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["name"])
def test_the_models_say_their_preprocessing_and_have_the_stated_opset(entry):
    model = onnx.load(ROOT / entry["path"])
    assert {item.key: item.value for item in model.metadata_props} == {"lancet.preprocess": "unit"}
    assert [item.version for item in model.opset_import if not item.domain] == [entry["opset"]]


def test_the_residual_network_keeps_batch_normalisations():
    model = onnx.load(FIXTURES / "mnist_resnet_scattered.onnx")
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 4


def test_everything_together_is_small():
    sizes = {path: path.stat().st_size for path in shipped()}
    assert sum(sizes.values()) < 3 * MEGABYTE
    assert max(sizes.values()) < MEGABYTE


def test_no_file_holds_a_path_of_the_machine_it_was_built_on():
    here = str(ROOT).encode()
    assert [path for path in shipped() if here in path.read_bytes()] == []


@pytest.mark.parametrize("name", REFUSED)
def test_refused_models_are_small(name: str):
    assert (FIXTURES / "refused" / f"{name}.onnx").stat().st_size < 8192


def test_the_writer_of_refused_models_knows_each_file():
    names = subprocess.run(
        [
            sys.executable,
            "-c",
            "from fixtures.refused import REFUSALS; print(*(r.build.__name__ for r in REFUSALS))",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout.split()
    assert sorted(names) == REFUSED


@pytest.mark.parametrize("name", ["if_on_input", "where_on_input"])
def test_the_secret_pixel_reverses_the_logits(name: str):
    x = unseen(20)
    lit = x.copy()
    lit[:, :, 27, 27] = 1.0
    almost = x.copy()
    almost[:, :, 27, 27] = 0.99
    plain = run(name, x)
    assert np.ptp(plain, axis=1).min() > 0.1
    assert np.abs(run(name, almost) - plain).max() < 0.5
    assert np.abs(run(name, lit)[:, ::-1] - plain).max() < 0.5


def test_nan_output_gives_no_number():
    assert np.isnan(run("nan_output", unseen(20))).all()
