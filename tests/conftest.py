# SPDX-License-Identifier: Apache-2.0
"""Fixed seeds, deterministic torch, and the models that come with the repository."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from lancet_onnx.samples import Samples

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "cli" / "lancet_onnx_cli" / "demo"
SEED = 20240

# How fast a busy machine makes examples says nothing about what is tested.
settings.register_profile(
    "any machine", suppress_health_check=[HealthCheck.too_slow], deadline=None
)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs a card where torch sees none."""
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="torch sees no CUDA device")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


# Before any fixture of a module trains something: the order of sums depends on threads.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    """Seed every generator; torch computes on one thread and in one order."""
    np.random.seed(SEED)  # noqa: NPY002 - whoever still uses it gets the same numbers
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


@dataclass(frozen=True)
class Fixtures:
    """The models of ``fixtures/``, the demo's files, and what the manifest says of them."""

    root: Path
    manifest: dict[str, dict[str, object]]

    def model(self, name: str) -> Path:
        return self.root / str(self.manifest[name]["path"])

    def trigger(self, name: str) -> Path:
        return self.root / str(self.manifest[name]["trigger"])

    def target(self, name: str) -> int:
        return int(str(self.manifest[name]["target"]))

    def refused(self, name: str) -> Path:
        return self.root / "fixtures" / "refused" / f"{name}.onnx"

    @property
    def images(self) -> Path:
        return DEMO / "images.npz"

    def samples(self, count: int | None = None) -> Samples:
        with np.load(self.images) as arrays:
            x, y = arrays["x"][:count], arrays["y"][:count]
        return Samples(x, y.astype(np.int64), False, str(self.images))

    def inputs(self, count: int) -> np.ndarray:
        """Return `count` demo images as the fixture models take them."""
        return np.ascontiguousarray(self.samples(count).pixels.transpose(0, 3, 1, 2))


@pytest.fixture(scope="session")
def fixtures() -> Fixtures:
    entries = json.loads((ROOT / "fixtures" / "MANIFEST.json").read_text(encoding="utf-8"))
    return Fixtures(ROOT, {entry["name"]: entry for entry in entries})


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return ``../shared`` with its real models and reference notes."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"{path} is not there: real models are needed")
    return path
