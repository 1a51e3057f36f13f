# SPDX-License-Identifier: Apache-2.0
"""The warm process, the folder that workers share, and ``--update-goldens``."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import SHARED, Warm, box


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write tests/cli/goldens anew")


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    server = Warm(tmp_path_factory.mktemp("streams"))
    yield server
    server.close()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with model.onnx, t.png and val.npz of a small backdoored model."""
    return box(tmp_path / "box")


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def cases() -> Path:
    """The real models of ../shared."""
    path = SHARED / "cases"
    if not (path / "cases.json").is_file():
        pytest.skip(f"{path} is not there: real models are needed")
    return path
