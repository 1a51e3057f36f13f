# SPDX-License-Identifier: Apache-2.0
"""`lancet-onnx gate` as pipelines and people run it: exit codes, streams, files, many models."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from lancet_onnx_cli.gate_command import _limits
from PIL import Image
from support import DEMO, REFUSED, ROOT, WIDTH, Warm, box, once, untouched
from test_goldens import compare, normal
from test_limits import hungry

from lancet_onnx.api.policy import Asked, Policy

POLICY = """
[data]
path = "val.npz"
preprocess = "unit"
[gate]
min_clean_accuracy = 0.7
device = "cpu"
[[trigger]]
path = "t.png"
target = 7
"""
HERE = ("--memory-limit", "0", "--timeout", "0")
"""Without limits one model needs no other process, which takes seconds to start."""

SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text())


def filled(folder: Path, policy: str = POLICY) -> Path:
    box(folder)
    (folder / "lancet.toml").write_text(policy)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with model.onnx, t.png, val.npz and a lancet.toml for them."""
    return filled(tmp_path / "box")


@pytest.fixture
def story(common: Path, warm: Warm) -> tuple[Path, dict[str, Any]]:
    """From a model to a passing gate, by the command that the gate itself names."""

    def make(folder: Path) -> dict[str, Any]:
        filled(folder)
        found = warm("gate", "model.onnx", "-o", "gate.json", cwd=folder)
        (line,) = (
            line.removeprefix("  next: ")
            for line in found.stderr.splitlines()
            if line.startswith("  next: ")
        )
        program, *words = shlex.split(line)
        assert program == "lancet-onnx"
        (folder / "set").mkdir()
        shutil.copy(folder / "model.onnx", folder / "set" / "a.onnx")
        shutil.copy(REFUSED / "nan_weight.onnx", folder / "set" / "b.onnx")
        return {
            "gate": found,
            "repair": warm(*words, cwd=folder),
            "fixed": warm("gate", "model.fixed.onnx", *HERE, "-f", "json", cwd=folder),
            "several": warm("gate", "set", "--jobs", "2", "-f", "text", cwd=folder),
        }

    return once(common, "gate", make)


def test_a_failed_gate_says_what_how_bad_and_what_to_do(story: tuple[Path, dict[str, Any]]) -> None:
    found = story[1]["gate"]
    assert (found.code, found.stdout) == (1, "fail\n"), found
    lines = found.stderr.splitlines()
    (told,) = (line for line in lines if line.startswith("fail: "))
    for part in ("model.onnx: trigger:t.png: ", "class 7", "at most 5.0%", "[LNC011]"):
        assert part in told
    assert lines[lines.index(told) + 1] == (
        "  next: lancet-onnx repair model.onnx --trigger t.png --target 7 --data val.npz "
        "--preprocess unit -o model.fixed.onnx"
    )


def test_tables_fit_a_terminal(story: tuple[Path, dict[str, Any]]) -> None:
    for name in ("gate", "several"):
        text = story[1][name].stderr + story[1][name].stdout
        tables = [line for line in text.splitlines() if ": " not in line[:20] or "  " in line]
        assert len(tables) > 8
        assert max(len(line) for line in tables if not line.startswith(("fail: ", "  next: "))) <= (
            WIDTH
        )


def test_the_command_that_it_names_leads_to_a_pass(story: tuple[Path, dict[str, Any]]) -> None:
    results = story[1]
    assert (results["repair"].code, results["repair"].stdout) == (0, "repaired\n")
    fixed = results["fixed"]
    assert (fixed.code, fixed.stderr, fixed.json["verdict"]) == (0, "", "pass"), fixed
    checks = {check["id"]: check for check in fixed.json["models"][0]["checks"]}
    assert "leads back to its base" in checks["provenance"]["text"]


def test_the_json_is_golden(
    story: tuple[Path, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    content = json.loads((story[0] / "gate.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    plain = normal(content)
    for check in plain["models"][0]["checks"]:
        if check["id"] == "parity":  # by a processor's own rounding
            check.update(text="<text>", value="<number>")
    compare("gate.json", json.dumps(plain, indent=1) + "\n", request)


def test_several_models_have_one_summary(story: tuple[Path, dict[str, Any]]) -> None:
    found = story[1]["several"]
    assert found.code == 1
    assert found.stdout.splitlines()[-1] == "fail"
    rows = [line.split() for line in found.stdout.splitlines()]
    assert ["set/a.onnx", "fail", "trigger:t.png"] in rows
    assert ["set/b.onnx", "fail", "weights"] in rows
    assert "  next: lancet-onnx inspect set/b.onnx" in found.stdout


def edit(change: str) -> Callable[[Path], None]:
    return lambda box: (box / "lancet.toml").write_text(POLICY + change)  # type: ignore[func-returns-value]


def policy(text: str) -> Callable[[Path], None]:
    return lambda box: (box / "lancet.toml").write_text(text)  # type: ignore[func-returns-value]


def foreign(box: Path) -> None:
    entry = {"path": "other.onnx", "checks": []}
    (box / "b.json").write_text(json.dumps({"command": "gate", "models": [entry]}))
    edit("[baseline]\npath = 'b.json'\n")(box)


def nothing(_: Path) -> None:
    pass


BAD: dict[str, tuple[Callable[[Path], None], list[str], int, list[str]]] = {
    "wrong type": (edit("[gate2]"), ["model.onnx"], 2, ["lancet.toml", "[gate2]", "'[gate]'"]),
    "unknown key": (
        policy("[gate]\nmax_atack_success = 0.1"), ["model.onnx"], 2,
        ["lancet.toml: [gate] has no key 'max_atack_success'", "'max_attack_success'"],
    ),
    "wrong value": (
        policy("[gate]\nscan = 'no'"), ["model.onnx"], 2,
        ["lancet.toml: [gate] scan: found the text 'no', expected true or false"],
    ),
    "no TOML": (policy("[gate"), ["model.onnx"], 2, ["lancet.toml", "cannot be read"]),
    "no policy": (
        lambda box: (box / "lancet.toml").unlink(), ["model.onnx"], 2, ["no policy", "--init"],
    ),
    "policy missing": (nothing, ["model.onnx", "--policy", "p.toml"], 3, ["p.toml", "No such"]),
    "no model": (nothing, [], 2, ["needs a MODEL"]),
    "data missing": (
        policy("[data]\npath = 'val/'"), ["model.onnx"], 3, ["lancet.toml", "[data] path", "val"],
    ),
    "data missing by option": (nothing, ["model.onnx", "--data", "x/"], 3, ["--data", "x does"]),
    "trigger missing": (
        edit("[[trigger]]\npath = 'u.png'\n"), ["model.onnx"], 3, ["[[trigger]] path: u.png"],
    ),
    "baseline missing": (edit("[baseline]\npath = 'b.json'\n"), ["model.onnx"], 3, ["b.json"]),
    "baseline of another model": (
        foreign, ["model.onnx"], 3, ["b.json", "a report on other.onnx, not on model.onnx"],
    ),
    "folder without models": (
        lambda box: (box / "empty").mkdir(), ["empty"], 3, ["empty: no .onnx file"],
    ),
    "model missing": (nothing, ["model.onnx", "gone.onnx"], 3, ["gone.onnx", "No such file"]),
    "pattern without models": (nothing, ["m*.pt"], 3, ["m*.pt", "no model matches"]),
    "output folder missing": (nothing, ["model.onnx", "-o", "no/r.json"], 3, ["no/r.json"]),
    "output a folder": (
        lambda box: (box / "d.json").mkdir(), ["model.onnx", "-o", "d.json"], 3, ["is a folder"],
    ),
    "two outputs to one path": (
        nothing, ["model.onnx", "-f", "json", "-o", "r.json", "-f", "text", "-o", "./r.json"], 3,
        ["r.json", "another file of this call"],
    ),
    "output the policy": (
        nothing, ["model.onnx", "-f", "json", "-o", "lancet.toml"], 3, ["lancet.toml: is another"],
    ),
    "output a model": (
        nothing, ["model.onnx", "-f", "json", "-o", "model.onnx"], 3, ["model.onnx: is another"],
    ),
    "no time for the search": (
        policy("[gate]\nscan = true\nscan_budget = 60\ntimeout = 30"), ["model.onnx"], 2,
        ["30 s", "60 s"],
    ),
    "no jobs": (nothing, ["model.onnx", "--jobs", "0"], 2, ["--jobs"]),
    "init over a policy": (nothing, ["--init", "model.onnx"], 3, ["lancet.toml: exists already"]),
    "init of nothing": (nothing, ["--init"], 2, ["--init needs one MODEL"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, place: Path, warm: Warm) -> None:
    make, args, code, words = BAD[name]
    make(place)
    with untouched(place):
        result = warm("gate", *args, cwd=place)
    assert (result.code, result.stdout) == (code, ""), result
    first, *rest = result.stderr.splitlines()
    assert first.startswith("error: "), result
    assert not rest or (code == 2 and [line.split()[0] for line in rest] == ["Try"]), result
    for word in words:
        assert word in result.stderr, result


def test_bad_input_that_only_the_model_shows(place: Path, warm: Warm) -> None:
    """A trigger of the wrong size, a link, an allowance that is over, a crash: in one call."""
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(place / "large.png")
    text = (
        '[gate]\ndevice = "cpu"\n[[trigger]]\npath = "large.png"\n'
        '[data]\npath = "val.npz"\npreprocess = "unit"\n'
        '[[allow]]\nrule = "LNC203"\nclass = 1\nreason = "by Ada"\nexpires = 2020-01-01\n'
    )
    (place / "p.toml").write_text(text)
    (place / "link.onnx").symlink_to("model.onnx")
    with untouched(place):
        result = warm("gate", "link.onnx", "--policy", "p.toml", *HERE, cwd=place)
    assert (result.code, result.stdout) == (1, "fail\n"), result
    (told,) = (line for line in result.stderr.splitlines() if line.startswith("fail: "))
    assert "link.onnx: allow:LNC203" in told
    assert "until 2020-01-01" in told
    assert "by Ada" in told
    assert "40 x 40 pixels" in " ".join(result.stderr.split())


SMALLEST = """\
[data]
path = "val/"            # as --data
preprocess = "unit"      # as --preprocess
[gate]
min_clean_accuracy = 0.90
max_attack_success = 0.05
scan = false             # true: also scan without a trigger
[[trigger]]
path = "t.png"
"""


@pytest.mark.parametrize(
    ("model", "verdict", "code"),
    [(ROOT / "fixtures" / "mnist_cnn_clean.onnx", "pass", 0), (DEMO / "model.onnx", "fail", 1)],
)
def test_the_smallest_policy_judges_by_folders_of_classes(
    model: Path, verdict: str, code: int, tmp_path: Path, warm: Warm
) -> None:
    shutil.copy(model, tmp_path / "m.onnx")
    shutil.copy(DEMO / "trigger.png", tmp_path / "t.png")
    with np.load(DEMO / "images.npz") as arrays:
        for number, (image, label) in enumerate(zip(arrays["x"], arrays["y"], strict=True)):
            folder = tmp_path / "val" / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.squeeze()).save(folder / f"{number}.png")
    (tmp_path / "lancet.toml").write_text(SMALLEST)
    result = warm("gate", "m.onnx", *HERE, "-f", "json", cwd=tmp_path)
    assert (result.code, result.stderr, result.json["verdict"]) == (code, "", verdict), result
    checks = {check["id"]: check for check in result.json["models"][0]["checks"]}
    assert checks["clean-accuracy"]["limit"] == 0.9
    assert checks["trigger:t.png"]["limit"] == 0.05
    assert checks["trigger:t.png"]["result"] == verdict
    assert "scan" not in checks


def test_a_trigger_of_the_wrong_size_alone_is_not_evaluated(place: Path, warm: Warm) -> None:
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(place / "t.png")
    result = warm("gate", "model.onnx", *HERE, cwd=place)
    assert (result.code, result.stdout) == (3, "not_evaluated\n"), result
    (told,) = (line for line in result.stderr.splitlines() if line.startswith("not evaluated: "))
    assert "40 x 40 pixels, larger than the model's 28 x 28" in told


def test_the_memory_that_the_policy_gives_is_all_there_is(place: Path, warm: Warm) -> None:
    hungry(place / "model.onnx")
    text = POLICY.replace("[gate]", '[gate]\nmemory_limit = "1500M"')
    (place / "lancet.toml").write_text(text)
    result = warm("gate", "model.onnx", "-f", "json", cwd=place)
    checks = {check["id"]: check for check in result.json["models"][0]["checks"]}
    for name in ("parity", "trigger:t.png"):
        assert checks[name]["result"] == "not_evaluated", result
        assert "can't allocate memory" in checks[name]["text"], result


@pytest.mark.parametrize(
    ("policy", "told", "jobs", "limit"),
    [
        ("8G", None, 1, 8 << 30),
        ("8G", None, 4, 8 << 30),  # of each child: only the usual limit is shared
        ("8G", "500M", 1, 500 << 20),
        ("8G", "0", 1, None),
        ("0", None, 1, None),
        (None, "2G", 1, 2 << 30),
    ],
)
def test_the_policys_memory_limit_is_of_each_child_and_an_option_overrides_it(
    policy: str | None, told: str | None, jobs: int, limit: int | None
) -> None:
    rules = Policy(asked=Asked(memory_limit=policy))
    assert _limits(rules, told, None, jobs).memory == limit


def test_a_time_out_is_not_evaluated(place: Path, warm: Warm) -> None:
    result = warm("gate", "model.onnx", "--timeout", "0.2", "-f", "json", cwd=place)
    assert (result.code, result.stderr) == (3, ""), result
    (check,) = result.json["models"][0]["checks"]
    assert (check["id"], check["rule"], check["result"]) == ("run", "LNC302", "not_evaluated")


def test_init_writes_a_policy_that_gate_reads(tmp_path: Path, warm: Warm) -> None:
    folder = box(tmp_path / "box")
    made = warm("gate", "--init", "model.onnx", "--data", "val.npz", *HERE, cwd=folder)
    assert (made.code, made.stdout) == (0, ""), made
    assert made.stderr.startswith("lancet.toml: written")
    text = (folder / "lancet.toml").read_text()
    text = text.replace("min_clean_accuracy = 0.9", "min_clean_accuracy = 0.7")
    (folder / "lancet.toml").write_text(text)
    result = warm("gate", "-q", *HERE, cwd=folder)
    assert (result.code, result.stdout, result.stderr) == (0, "pass\n", ""), result


def test_other_commands_read_the_images_of_the_same_policy(place: Path, warm: Warm) -> None:
    (place / "lancet.toml").unlink()
    section = '[tool.lancet.data]\npath = "val.npz"\npreprocess = "minus1to1"\n'
    (place / "pyproject.toml").write_text(section)
    line = ("verify", "model.onnx", "model.onnx", "-f", "json")
    assert "'minus1to1'" in warm(*line, cwd=place).stderr
    found = warm(*line, "--preprocess", "unit", cwd=place)
    assert (found.code, found.json["data"]["path"]) == (0, "val.npz"), found
    (place / "pyproject.toml").write_text("[tool.lancet.data]\npaht = 'val.npz'\n")
    refused = warm(*line, cwd=place)
    assert (refused.code, refused.stdout) == (2, "")
    assert "no key 'paht'; did you mean 'path'?" in refused.stderr
