# SPDX-License-Identifier: Apache-2.0
"""A policy says what the table of keys says it may, and nothing is read over."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest

from lancet_onnx.api.options import DataOptions
from lancet_onnx.api.policy import Asked, Policy, find_policy, read_policy
from lancet_onnx.api.policy_keys import CHECKS, SECTIONS, json_schema
from lancet_onnx.contain.codec import from_plain, to_plain
from lancet_onnx.errors import DataError, UsageError
from lancet_onnx.verify.gate_policy import Allowance

FULL = "\n".join(
    line
    for section in SECTIONS
    for line in (section.header, *(f"{key.name} = {key.example}" for key in section.keys))
)
"""A policy with every key there is, as the examples have it."""


def read(folder: Path, text: str, name: str = "lancet.toml") -> Policy:
    (folder / name).write_text(text)
    return read_policy(folder / name)


def test_every_key_is_read(tmp_path: Path):
    policy = read(tmp_path, FULL)
    assert policy.models == (tmp_path / "model.onnx",)
    assert policy.data == DataOptions(
        tmp_path / "val", "unit", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
        "bgr", "nhwc", "shortest", "logits",
    )  # fmt: skip
    assert policy.asked == Asked(
        0.9, 0.05, True, 120, 1e-4, True, ("LNC014",), ("parity-gpu",), "cpu", 0, "8G", 600
    )
    (trigger,) = policy.triggers
    assert trigger.name == "t.png"
    assert trigger.options.path == tmp_path / "t.png"
    assert trigger.options.mask == tmp_path / "mask.png"
    assert (trigger.options.mode, trigger.options.position) == ("blend", (27, 27))
    assert trigger.options.target == 7
    reason = "a dead unit, looked at by Ada"
    assert policy.allow == (Allowance("LNC203", reason, "2027-01-31", "0" * 64, 7),)
    assert policy.baseline == tmp_path / "gate-baseline.json"
    assert policy.path == tmp_path / "lancet.toml"
    assert policy.sha256 is not None


def test_the_table_and_the_records_know_the_same_keys():
    keys = {section.name: {key.name for key in section.keys} for section in SECTIONS}
    assert keys["gate"] == {field.name for field in fields(Asked)}
    assert keys["data"] | {"output"} == {field.name for field in fields(DataOptions)}


def test_what_is_not_said_is_the_records_default(tmp_path: Path):
    policy = read(tmp_path, "")
    assert (policy.data, policy.asked, policy.triggers) == (DataOptions(), Asked(), ())


def test_a_policy_reaches_another_process_whole(tmp_path: Path):
    policy = read(tmp_path, FULL)
    assert from_plain(Policy, json.loads(json.dumps(to_plain(policy)))) == policy
    assert from_plain(Policy, to_plain(Policy())) == Policy()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gate", ["cannot be read as TOML"]),
        ("zzz = 1", ["[zzz]", "known are [model]"]),
        ("[gates]", ["no section [gates]", "did you mean '[gate]'"]),
        ("[[triggers]]\npath = 't'", ["did you mean '[[trigger]]'"]),
        ("[gate]\nmin_clean_acuracy = 1", ["[gate]", "did you mean 'min_clean_accuracy'"]),
        ("[gate]\nzzz = 1", ["no key 'zzz'", "known are min_clean_accuracy, "]),
        ("[gate]\nmin_clean_accuracy = '0.9'", ["the text '0.9'", "a number from 0 to 1"]),
        ("[gate]\nmin_clean_accuracy = 90", ["the number 90", "a number from 0 to 1"]),
        ("[gate]\nmin_clean_accuracy = nan", ["nan"]),
        ("[gate]\nmin_clean_accuracy = true", ["true"]),
        ("[gate]\nscan = 1", ["the number 1", "true or false"]),
        ("[gate]\nscan_budget = 0", ["a number over 0"]),
        ("[gate]\nseed = -1", ["a whole number from 0 on"]),
        ("[gate]\ndevice = 'gpu'", ['one of "auto", "cpu", "cuda"']),
        ("[gate]\nmemory_limit = 'much'", ["a size such as"]),
        ("[gate]\nallowed_rules = ['LNC999']", ["docs/rules.md"]),
        ("[gate]\nallow_not_evaluated = ['parity-cpu']", ["parity-gpu"]),
        ("[gate]\nallow_not_evaluated = 'scan'", ["the text 'scan'"]),
        ("gate = 3", ["[gate]", "the number 3", "one table"]),
        ("[[gate]]", ["[gate]", "a list of tables"]),
        ("[trigger]\npath = 't'", ["[[trigger]]", "found a table", "a list of tables"]),
        ("trigger = [1]", ["[[trigger]]", "the list [1]"]),
        ("[[trigger]]", ["[[trigger]] 1 has no 'path'"]),
        ("[[trigger]]\npath='a'\n[[trigger]]\npath=''", ["[[trigger]] 2 path", "a path as text"]),
        ("[[trigger]]\npath='a'\nposition=[1]", ["two whole numbers"]),
        ("[data]\nmean = []", ["a list of numbers"]),
        ("[data]\npath = 1979-05-27", ["date 1979-05-27"]),
        ("[model]\npath = []", ["a path, or a list of paths"]),
        ("[baseline]", ["[baseline] has no 'path'"]),
        ("[[allow]]\nrule='LNC203'\nexpires=2027-01-01\nclass=1", ["has no 'reason'"]),
        ("[[allow]]\nrule='LNC203'\nreason='r'\nclass=1", ["has no 'expires'"]),
        (
            "[[allow]]\nrule='LNC203'\nreason='r'\nexpires=2027-01-01",
            ["neither 'model' nor 'class'"],
        ),
        (
            "[[allow]]\nrule='LNC203'\nreason='r'\nexpires='soon'\nclass=1",
            ["expires", "a day such as"],
        ),
        (
            "[[allow]]\nrule='LNC203'\nreason='r'\nexpires=2027-01-01\nmodel='ab'",
            ["64 hexadecimal digits"],
        ),
    ],
)
def test_whatever_else_is_one_line(tmp_path: Path, text: str, words: list[str]):
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'lancet.toml'}: ")
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message, message
    try:
        content = tomllib.loads(text)
    except ValueError:
        return
    if "nan" not in text and "1979" not in text:  # which JSON does not have
        plain = json.loads(json.dumps(content, default=str))
        assert not jsonschema.Draft202012Validator(json_schema()).is_valid(plain)


def test_the_json_schema_takes_every_key():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    plain = json.loads(json.dumps(tomllib.loads(FULL), default=str))
    jsonschema.Draft202012Validator(json_schema()).validate(plain)


def test_a_day_may_be_text(tmp_path: Path):
    text = "[[allow]]\nrule='LNC203'\nreason='r'\nexpires='2027-02-28'\nclass=1"
    assert read(tmp_path, text).allow[0].expires == "2027-02-28"


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "ci").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ci" / "p.toml").write_text(
        "[model]\npath=['../m.onnx', '/abs/*.onnx']\n[data]\npath='val'\npreprocess='pre.toml'\n"
        "[[trigger]]\npath='../t.png'\n"
    )
    policy = read_policy(Path("ci/p.toml"))
    assert policy.models == (Path("ci/../m.onnx"), Path("/abs/*.onnx"))
    assert (policy.data.path, policy.data.preprocess) == (Path("ci/val"), "ci/pre.toml")
    assert policy.triggers[0].name == "../t.png", "the name is the same wherever it runs"


def test_one_picture_at_two_places_is_two_checks(tmp_path: Path):
    text = "[[trigger]]\npath='a/t.png'\n[[trigger]]\npath='u'\n[[trigger]]\npath='a//t.png'\n"
    assert [each.name for each in read(tmp_path, text).triggers] == ["a/t.png", "u", "a/t.png#2"]


def test_pyproject_may_hold_it(tmp_path: Path):
    text = "[tool.lancet.gate]\nmin_clean_accuracy = 0.5\n[[tool.lancet.trigger]]\npath = 't.png'\n"
    policy = read(tmp_path, text, "pyproject.toml")
    assert policy.asked.min_clean_accuracy == 0.5
    assert policy.triggers[0].options.path == tmp_path / "t.png"


def test_a_pyproject_without_a_policy_is_none(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert find_policy(tmp_path) is None
    with pytest.raises(UsageError, match=r"has no \[tool.lancet\]"):
        read_policy(tmp_path / "pyproject.toml")


def test_lancet_toml_comes_first(tmp_path: Path):
    assert find_policy(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[tool.lancet]\n")
    assert find_policy(tmp_path) == tmp_path / "pyproject.toml"
    (tmp_path / "lancet.toml").write_text("")
    assert find_policy(tmp_path) == tmp_path / "lancet.toml"


def test_a_policy_that_is_not_there(tmp_path: Path):
    with pytest.raises(DataError, match="No such file"):
        read_policy(tmp_path / "p.toml")


def test_every_check_may_be_left_unevaluated(tmp_path: Path):
    named = [*CHECKS, "trigger:a/t.png"]
    policy = read(tmp_path, f"[gate]\nallow_not_evaluated = {json.dumps(named)}")
    assert policy.asked.allow_not_evaluated == tuple(named)
