# SPDX-License-Identifier: Apache-2.0
"""A baseline is another gate's JSON, and nothing else."""

import json
from pathlib import Path

import pytest

from lancet_onnx.errors import DataError
from lancet_onnx.verify.baseline import failures_of, read_baseline, refuse_foreign
from lancet_onnx.verify.gate_policy import Known

CHECK = {"fingerprint": "f" * 32, "result": "fail", "value": 0.5, "limit": 0.05}


def report(path: Path, **models: list[dict[str, object]]) -> Path:
    listed = [{"path": name.replace("_", "/"), "checks": checks} for name, checks in models.items()]
    path.write_text(json.dumps({"command": "gate", "models": listed}))
    return path


def test_failures_are_read(tmp_path: Path):
    passed = {**CHECK, "result": "pass"}
    bare = {**CHECK, "value": None, "limit": None}
    found = read_baseline(report(tmp_path / "b.json", m=[CHECK, passed, bare]))
    assert found == {"m": (Known("f" * 32, 0.5, 0.05), Known("f" * 32, None, None))}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{}",
        '{"command": "scan", "models": []}',
        '{"command": "gate", "models": [{"path": "m", "checks": {}}]}',
        '{"command": "gate", "models": [{"path": "m", "checks": [{"result": "fail"}]}]}',
        json.dumps(
            {"command": "gate", "models": [{"path": "m", "checks": [{**CHECK, "value": "x"}]}]}
        ),
        *(
            json.dumps({"command": "gate", "models": [{"path": "m", "checks": [{**CHECK, **odd}]}]})
            for odd in ({"value": 10**400}, {"limit": float("nan")}, {"value": float("inf")})
        ),
        "[" * 100_000,
    ],
)
def test_whatever_else_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"b.json: cannot be the baseline"):
        read_baseline(path)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="No such file"):
        read_baseline(tmp_path / "b.json")


def test_models_are_known_by_path_then_by_name(tmp_path: Path):
    more = {**CHECK, "fingerprint": "e" * 32}
    found = read_baseline(report(tmp_path / "b.json", a_m=[CHECK], b_m=[more], c_n=[more]))
    assert failures_of(found, Path("a/m")) == found["a/m"]
    assert failures_of(found, Path("else/n")) == found["c/n"]
    assert failures_of(found, Path("else/m")) is None, "two of that name: neither is it"
    assert failures_of(found, Path("o")) is None


def test_a_baseline_of_other_models_is_refused(tmp_path: Path):
    path = report(tmp_path / "b.json", a_m=[CHECK])
    found = read_baseline(path)
    with pytest.raises(DataError, match=r"a report on m, not on n, o;"):
        refuse_foreign(path, found, [Path("n"), Path("o")])
    refuse_foreign(path, found, [Path("n"), Path("m")])
