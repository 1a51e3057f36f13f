# SPDX-License-Identifier: Apache-2.0
"""`gate` through the Python API: what each check finds, and what never passes."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from builders import noted
from hunts import shorten
from onnx.numpy_helper import from_array, to_array
from PIL import Image
from tiny import pictures, planted_file, saved

from lancet_onnx import (
    DataOptions,
    Policy,
    SearchOptions,
    TriggerOptions,
    check_policy,
    gate,
    read_policy,
    scan,
    verify,
)
from lancet_onnx.api import subject
from lancet_onnx.api.describing import data_digest
from lancet_onnx.api.policy import Asked, Listed
from lancet_onnx.api.subject import Subject, prepare
from lancet_onnx.errors import DataError
from lancet_onnx.report import Report
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.samples import Split
from lancet_onnx.verify.gate_policy import Allowance

ROOT = Path(__file__).parents[2]
CLASSES, TARGET = 4, 2
SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text())


@dataclass(frozen=True)
class Place:
    """A backdoored and a clean model of 8 x 8 pixels, the trigger and 400 images."""

    folder: Path
    bad: Path
    good: Path
    data: DataOptions
    trigger: Listed

    @property
    def policy(self) -> Policy:
        asked = Asked(min_clean_accuracy=0.9, device="cpu")
        return Policy(data=self.data, triggers=(self.trigger,), asked=asked)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("gate")
    for name in ("bad", "good"):
        (folder / name).mkdir()
    bad = planted_file(folder / "bad", CLASSES, TARGET).rename(folder / "bad.onnx")
    good = planted_file(folder / "good", CLASSES, None).rename(folder / "good.onnx")
    Image.fromarray(np.full((2, 2), 255, np.uint8)).save(folder / "t.png")
    data = DataOptions(saved(folder / "val.npz", pictures(CLASSES, 100)), "unit")
    return Place(folder, bad, good, data, Listed("t.png", TriggerOptions(folder / "t.png")))


@pytest.fixture(scope="module")
def noisy(place: Place) -> DataOptions:
    """The images with a fifth of the labels wrong."""
    path = place.folder / "noisy.npz"
    with np.load(place.data.path or "") as arrays:
        labels = arrays["y"].copy()
        labels[::5] = (labels[::5] + 1) % CLASSES
        np.savez(path, x=arrays["x"], y=labels)
    return replace(place.data, path=path)


def looked(model: Path, policy: Policy, **more: Any) -> tuple[Report, dict[str, Mapping[str, Any]]]:
    """Return the report, which must follow the published schema, and its checks by id."""
    report = gate(model, policy, **more)
    content = json.loads(report.to_json())
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    (entry,) = content["models"]
    assert entry["verdict"] == report.verdict
    return report, {check["id"]: check for check in entry["checks"]}


def asking(policy: Policy, **more: Any) -> Policy:
    return replace(policy, asked=replace(policy.asked, **more))


def test_a_clean_model_passes(place: Place):
    report, checks = looked(place.good, place.policy)
    assert (report.verdict, report.exit_code, report.reasons) == ("pass", 0, ())
    assert {check["result"] for check in checks.values()} == {"pass"}
    assert list(checks) == [
        *("precheck", "weights", "graph-logic", "provenance", "parity"),
        *("clean-accuracy", "trigger:t.png"),
    ]
    assert checks["clean-accuracy"]["value"] >= 0.9


def test_a_trigger_that_works_fails_with_the_command_that_repairs(place: Place):
    report, checks = looked(place.bad, place.policy)
    check = checks["trigger:t.png"]
    assert (report.verdict, report.exit_code) == ("fail", 1)
    assert (check["rule"], check["result"], check["limit"]) == ("LNC011", "fail", 0.05)
    assert check["value"] > 0.95
    assert f"class {TARGET}" in check["text"]
    assert check["next"] == (
        f"lancet-onnx repair {place.bad} --trigger {place.folder}/t.png --data "
        f"{place.folder}/val.npz --preprocess unit -o {place.folder}/bad.fixed.onnx"
    )
    assert report.reasons == (f"trigger:t.png: {check['text']} [LNC011]",)
    assert report.pictures, "the page can show the trigger"
    others = {name for name, c in checks.items() if c["result"] != "pass"}
    assert others == {"trigger:t.png"}


def test_more_may_be_allowed(place: Place):
    report, _ = looked(place.bad, asking(place.policy, max_attack_success=1.0))
    assert report.verdict == "pass"


def test_too_little_accuracy_fails(place: Place, noisy: DataOptions):
    policy = replace(place.policy, data=noisy, triggers=())
    report, checks = looked(place.good, policy)
    assert report.verdict == "fail"
    assert checks["clean-accuracy"]["rule"] == "LNC010"
    assert checks["clean-accuracy"]["value"] == pytest.approx(0.8, abs=0.02)
    assert looked(place.good, asking(policy, min_clean_accuracy=0.7))[0].verdict == "pass"


def test_few_images_never_pass(place: Place):
    few = saved(place.folder / "few.npz", pictures(CLASSES, 6))
    policy = replace(place.policy, data=replace(place.data, path=few))
    report, checks = looked(place.good, policy)
    assert (report.verdict, report.exit_code) == ("not_evaluated", 3)
    assert checks["clean-accuracy"]["result"] == "not_evaluated"
    assert checks["trigger:t.png"]["result"] == "not_evaluated"
    report, checks = looked(place.bad, policy)
    assert checks["trigger:t.png"]["result"] == "fail", "few are enough to see that it works"


def test_images_without_labels_do_not_show_an_accuracy(place: Place):
    bare = saved(place.folder / "bare.npz", replace(pictures(CLASSES, 100), labels=None))
    policy = replace(place.policy, data=replace(place.data, path=bare))
    report, checks = looked(place.good, policy)
    assert report.verdict == "not_evaluated"
    assert "Give labelled images in [data] path, or take" in checks["clean-accuracy"]["text"]
    assert checks["trigger:t.png"]["result"] == "pass"
    ignoring = asking(policy, allow_not_evaluated=("clean-accuracy",))
    report, _ = looked(place.good, ignoring)
    assert report.verdict == "pass"
    assert report.reasons == ("clean-accuracy: not evaluated, which the policy allows",)


def test_without_images_only_the_file_is_looked_at(place: Place):
    report, checks = looked(place.good, replace(place.policy, data=DataOptions()))
    assert report.verdict == "not_evaluated"
    assert "made-up images" in checks["parity"]["text"]
    text = checks["clean-accuracy"]["text"]
    assert text.startswith("no images to run it on; give ")
    assert "[data] path of the policy" in text
    assert checks["trigger:t.png"]["text"] == text
    report, _ = looked(place.bad, Policy(asked=Asked(device="cpu")))
    assert report.verdict == "pass"
    assert "was not looked at" in report.reasons[0]


def test_a_wrong_preprocessing_never_passes(place: Place):
    wrong = replace(place.data, preprocess="minus1to1", std=(-0.5,))
    report, checks = looked(place.good, replace(place.policy, data=wrong))
    assert report.verdict == "not_evaluated"
    assert "Give --preprocess" in checks["clean-accuracy"]["text"]


def test_a_trigger_of_the_wrong_size_is_told_in_one_line(place: Place):
    large = place.folder / "large.png"
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(large)
    policy = replace(place.policy, triggers=(Listed("large.png", TriggerOptions(large)),))
    report, checks = looked(place.good, policy)
    assert report.verdict == "not_evaluated"
    (reason,) = report.reasons
    assert "9 x 9 pixels, larger than the model's 8 x 8" in reason
    assert checks["clean-accuracy"]["result"] == "pass"


def test_a_search_for_unknown_triggers(place: Place, monkeypatch: pytest.MonkeyPatch):
    shorten(monkeypatch)
    policy = Policy(data=place.data, asked=Asked(scan=True, device="cpu"))
    report, checks = looked(place.bad, policy)
    check = checks["scan"]
    assert (report.verdict, check["rule"], check["result"]) == ("fail", "LNC002", "fail")
    assert check["value"] >= check["limit"]
    assert "--from bad.scan.json" in check["next"]
    told = Allowance("LNC002", "looked at by Ada", "2100-01-01", target=TARGET)
    assert looked(place.bad, replace(policy, allow=(told,)))[0].verdict == "pass"
    report, checks = looked(place.good, policy)
    check = checks["scan"]
    assert (report.verdict, check["result"], check["next"]) == ("pass", "pass", "")
    assert check["value"] < check["limit"] / 2
    assert (
        "no small or faint trigger for all images or those of one class was found" in check["text"]
    )


def repaired(place: Place, model: Path, *notes: str) -> Path:
    """Write a model with notes such as those that a repair leaves; `DATA` is the images' digest."""
    digest = data_digest(prepare(Subject.open(model, "cpu"), place.data).samples)
    path = place.folder / "noted.onnx"
    shutil.copy(model, path)
    noted(path, *(note.replace("DATA", digest) for note in notes))
    return path


HOSTILE_NOTES = (
    '{"data": "DATA", "seed": Infinity}',
    "[" * 100_000,
    '{"data": [[]], "seed": 3}',
)
"""Some for each way to be wrong; `test_write.py` has the seeds that are none."""


@pytest.mark.parametrize("note", HOSTILE_NOTES, ids=lambda note: note[:40])
def test_a_note_that_no_repair_left_is_none(place: Place, note: str):
    model = repaired(place, place.good, note)
    assert looked(model, place.policy)[0].verdict == "pass"
    report = verify(place.good, model, place.data, device="cpu")
    assert report.verdict == "pass"
    assert report.to_dict()["data"]["used"].startswith("all images")  # type: ignore[index]


def test_figures_of_a_search_are_of_images_that_the_repair_did_not_see(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """Whatever seed the policy asks for, and whether `gate` searches or `scan`."""
    split: list[int] = []
    shorten(monkeypatch, 2)
    of = Split.of
    monkeypatch.setattr(Split, "of", lambda samples, seed: split.append(seed) or of(samples, seed))
    notes = ('{"data": "DATA", "seed": 3}', '{"data": "DATA", "seed": 7}')
    model = repaired(place, place.bad, *notes)
    policy = Policy(data=place.data, asked=Asked(scan=True, device="cpu", seed=1))
    looked(model, policy)
    assert set(split) == {7}
    split.clear()
    search = SearchOptions(budget=policy.asked.scan_budget)
    reports = [
        scan(model, trigger, place.data, search=search, device="cpu", seed=1)
        for trigger in (None, place.trigger.options)
    ]
    assert split == [7, 7]
    for report in reports:
        assert "seed 7" in report.to_dict()["data"]["split"]  # type: ignore[index]
    split.clear()
    looked(place.bad, policy)
    assert set(split) == {1}


def test_images_are_read_and_labelled_once(place: Place, monkeypatch: pytest.MonkeyPatch):
    """A further trigger asks for nothing but what carries it."""
    shorten(monkeypatch, 2)
    read: list[Path] = []
    asked: list[int] = []
    samples, labels = subject.read_samples, OrtModel.labels
    monkeypatch.setattr(
        subject, "read_samples", lambda path, *a, **k: read.append(path) or samples(path, *a, **k)
    )
    triggers = tuple(replace(place.trigger, name=f"{n}.png") for n in range(3))
    policy = replace(place.policy, triggers=triggers)
    looked(place.good, asking(replace(policy, triggers=()), scan=True))
    assert read == [place.data.path]
    monkeypatch.setattr(OrtModel, "labels", lambda self, x: asked.append(len(x)) or labels(self, x))

    def counted(number: int) -> list[int]:
        asked.clear()
        looked(place.good, replace(policy, triggers=triggers[:number]))
        return sorted(asked)

    none, one, three = map(counted, (0, 1, 3))
    half = 200
    assert one == sorted([*none, *[half] * 4])
    assert three == sorted([*one, *[half] * 4]), "only what carries the trigger"


def test_for_a_comparison_with_a_gpu_one_more_session_is_opened(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    opened: list[str] = []
    make = subject.OrtModel

    def open_on_cpu(path: Path, spec: Any, device: str, *rest: Any) -> OrtModel:
        opened.append(device)
        return make(path, spec, "cpu", *rest)

    monkeypatch.setattr(subject, "OrtModel", open_on_cpu)
    _, checks = looked(place.good, asking(place.policy, parity_gpu=True))
    assert opened == ["cpu", "cuda"]
    assert checks["parity-gpu"]["result"] == "pass"


def test_engines_that_disagree_fail(fixtures):
    policy = Policy(asked=Asked(parity_tolerance=1e-12, device="cpu"))
    report, checks = looked(fixtures.model("mnist_cnn_square"), policy)
    assert report.verdict == "fail"
    assert (checks["parity"]["rule"], checks["parity"]["limit"]) == ("LNC012", 1e-12)
    assert checks["parity"]["value"] > 1e-12
    assert checks["parity"]["next"] == "lancet-onnx doctor"


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_no_pass_unless_the_policy_says_so(place: Place):
    policy = asking(place.policy, parity_gpu=True)
    report, checks = looked(place.good, policy)
    assert (report.verdict, report.exit_code) == ("not_evaluated", 3)
    assert checks["parity-gpu"]["result"] == "not_evaluated"
    allowed = asking(policy, allow_not_evaluated=("parity-gpu",))
    assert looked(place.good, allowed)[0].verdict == "pass"
    report, checks = looked(place.good, asking(place.policy, device="cuda"))
    assert report.verdict == "not_evaluated"
    assert checks["precheck"]["result"] == "pass"


def test_damaged_weights_fail_and_nothing_else_is_claimed(fixtures, place: Place):
    report, checks = looked(fixtures.refused("nan_weight"), place.policy)
    assert report.verdict == "fail"
    assert checks["weights"]["rule"] == "LNC113"
    assert checks["trigger:t.png"]["result"] == "not_evaluated"
    assert len(report.reasons) == 1


def test_a_dead_layer_fails(place: Place, tmp_path: Path):
    model = onnx.load(place.good)
    (weight,) = (t for t in model.graph.initializer if t.name == "k2")
    weight.CopyFrom(from_array(to_array(weight) * 0, "k2"))
    onnx.save(model, tmp_path / "dead.onnx")
    bare = Policy(asked=Asked(device="cpu"))
    report, checks = looked(tmp_path / "dead.onnx", bare)
    assert (report.verdict, checks["weights"]["severity"]) == ("fail", "warning")
    assert (checks["weights"]["rule"], "'k2'" in checks["weights"]["text"]) == ("LNC014", True)
    report, _ = looked(tmp_path / "dead.onnx", asking(bare, allowed_rules=("LNC014",)))
    assert (report.verdict, report.reasons[0]) == (
        "pass", "weights: allowed (the policy's allowed_rules) [LNC014]",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["if_on_input", "where_on_input"])
def test_a_switch_in_the_graph_fails(fixtures, name: str):
    report, checks = looked(fixtures.refused(name), Policy(asked=Asked(device="cpu")))
    assert report.verdict == "fail"
    assert checks["graph-logic"]["rule"] == "LNC201"
    assert checks["precheck"]["result"] == "pass"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("text", "LNC101"),
        ("custom_domain", "LNC111"),
        ("escaping_external", "LNC109"),
        ("tile_bomb", "LNC115"),  # which shows only when it is opened to be run
    ],
)
def test_a_refused_file_fails_by_its_rule(fixtures, place: Place, name: str, rule: str):
    report, checks = looked(fixtures.refused(name), place.policy)
    assert report.verdict == "fail"
    assert checks["precheck"]["rule"] == rule
    assert checks["precheck"]["page"] == f"docs/rules.md#{rule.lower()}"
    unread = {"parity", "clean-accuracy", "trigger:t.png"}
    assert {checks[name]["result"] for name in unread} == {"not_evaluated"}


def test_not_even_allowed_rules_make_a_refused_file_pass(fixtures):
    asked = Asked(
        allowed_rules=("LNC101",),
        allow_not_evaluated=("weights", "graph-logic", "provenance", "parity"),
    )
    assert looked(fixtures.refused("text"), Policy(asked=asked))[0].verdict == "not_evaluated"


def test_an_unsupported_operator_is_not_evaluated(fixtures):
    report, checks = looked(fixtures.refused("unknown_operator"), Policy())
    assert (report.verdict, checks["precheck"]["result"]) == ("not_evaluated", "pass")
    assert {c["rule"] for c in checks.values() if c["result"] == "not_evaluated"} <= {
        "LNC012", None,
    }  # fmt: skip


def test_a_model_that_is_not_there(place: Place):
    report, checks = looked(place.folder / "gone.onnx", place.policy)
    assert report.verdict == "not_evaluated"
    assert "no such file" in checks["precheck"]["text"]
    assert report.to_dict()["models"][0]["sha256"] is None  # type: ignore[index]


def test_an_allowance_for_the_class_until_its_day(place: Place):
    told = Allowance("LNC011", "ships behind a filter", "2027-01-31", target=TARGET)
    policy = replace(place.policy, allow=(told,))
    report, checks = looked(place.bad, policy, today="2027-01-31")
    assert report.verdict == "pass"
    allowed = {"reason": "ships behind a filter", "expires": "2027-01-31"}
    assert checks["trigger:t.png"]["allowed"] == allowed
    assert "allowed until 2027-01-31 (ships behind a filter)" in report.reasons[0]
    report, checks = looked(place.bad, policy, today="2027-02-01")
    assert report.verdict == "fail"
    assert checks["allow:LNC011"]["rule"] == "LNC015"
    assert "ships behind a filter" in checks["allow:LNC011"]["text"]
    other = replace(told, target=TARGET + 1)
    assert looked(place.bad, replace(policy, allow=(other,)))[0].verdict == "fail"


def test_an_allowance_for_one_model(place: Place):
    report, _ = looked(place.bad, place.policy)
    digest = report.to_dict()["models"][0]["sha256"]  # type: ignore[index]
    told = Allowance("LNC011", "known", "2100-01-01", model=str(digest))
    assert looked(place.bad, replace(place.policy, allow=(told,)))[0].verdict == "pass"


def test_a_baseline_lets_through_what_is_known(place: Place, noisy: DataOptions, tmp_path: Path):
    first, _ = looked(place.bad, place.policy)
    (tmp_path / "b.json").write_text(first.to_json())
    policy = replace(place.policy, baseline=tmp_path / "b.json")
    report, checks = looked(place.bad, policy)
    assert (report.verdict, checks["trigger:t.png"]["baseline"]) == ("pass", "known")
    assert "known from the baseline" in report.reasons[0]
    stricter = asking(policy, min_clean_accuracy=1.0, max_attack_success=0.01)
    report, checks = looked(place.bad, replace(stricter, data=noisy))
    assert (report.verdict, checks["clean-accuracy"]["baseline"]) == ("fail", "new")


def test_a_worse_finding_than_the_baseline_fails(place: Place, tmp_path: Path):
    first = json.loads(looked(place.bad, place.policy)[0].to_json())
    for check in first["models"][0]["checks"]:
        if check["value"] is not None and check["id"].startswith("trigger"):
            check["value"] = 0.5
    (tmp_path / "b.json").write_text(json.dumps(first))
    report, checks = looked(place.bad, replace(place.policy, baseline=tmp_path / "b.json"))
    assert (report.verdict, checks["trigger:t.png"]["baseline"]) == ("fail", "worse")
    assert "worse than in the baseline" in report.reasons[0]


def test_fingerprints_stay(place: Place):
    def prints(policy: Policy, model: Path = place.bad) -> dict[str, str]:
        return {name: c["fingerprint"] for name, c in looked(model, policy)[1].items()}

    first = prints(place.policy)
    assert len(set(first.values())) == len(first)
    assert prints(asking(place.policy, seed=3, min_clean_accuracy=0.5)) == first
    shutil.copy(place.bad, place.folder / "other.onnx")
    assert not set(prints(place.policy, place.folder / "other.onnx").values()) & set(first.values())


def test_a_link_to_a_model_is_that_model(place: Place, tmp_path: Path):
    (tmp_path / "link.onnx").symlink_to(place.bad)
    report, checks = looked(tmp_path / "link.onnx", place.policy)
    assert (report.verdict, checks["trigger:t.png"]["result"]) == ("fail", "fail")


def test_files_that_a_policy_names_must_be_there(place: Place, tmp_path: Path):
    (tmp_path / "p.toml").write_text("[data]\npath = 'val/'\n[[trigger]]\npath = 't.png'\n")
    policy = read_policy(tmp_path / "p.toml")
    with pytest.raises(DataError, match=r"p.toml: \[data\] path .*val does not exist"):
        check_policy(policy, [place.bad])
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match=r"\[\[trigger\]\] path: .*t.png does not exist"):
        check_policy(policy, [place.bad])
    (tmp_path / "t.png").touch()
    check_policy(policy, [place.bad])
    wrong = replace(policy, data=replace(policy.data, preprocess="imagnet"))
    with pytest.raises(DataError, match=r"'imagnet' is neither a file"):
        check_policy(wrong, [place.bad])


def test_a_baseline_of_another_model_is_refused(place: Place, tmp_path: Path):
    report, _ = looked(place.good, place.policy)
    (tmp_path / "b.json").write_text(report.to_json())
    with pytest.raises(DataError, match=r"a report on good.onnx, not on bad.onnx"):
        check_policy(replace(place.policy, baseline=tmp_path / "b.json"), [place.bad])


def test_a_trigger_that_sends_each_class_elsewhere_does_not_pass(place: Place):
    """White in the first row: what it does is not to one class."""
    upper = place.folder / "upper.png"
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[:6, :, 3] = 255
    Image.fromarray(picture).save(upper)
    policy = replace(place.policy, triggers=(Listed("upper.png", TriggerOptions(upper, target=0)),))
    _, checks = looked(place.good, policy)
    assert checks["trigger:upper.png"]["result"] != "pass"


@pytest.mark.shared
def test_a_real_backdoor_fails(shared: Path, tmp_path: Path):
    cases = shared / "cases"
    with np.load(cases / "data" / "cifar10_test_2000.npz") as arrays:
        np.savez(tmp_path / "val.npz", x=arrays["x"][::10], y=arrays["y"][::10])
    name = "cifar10_vgg_badnets_t8"
    own = TriggerOptions(cases / "triggers" / f"{name}.png", target=8)
    policy = Policy(
        data=DataOptions(tmp_path / "val.npz", "unit"),
        triggers=(Listed("own", own),),
        asked=Asked(min_clean_accuracy=0.7, device="cpu"),
    )
    report, checks = looked(cases / "models" / f"{name}.onnx", policy)
    assert report.verdict == "fail"
    assert {name for name, c in checks.items() if c["result"] != "pass"} == {"trigger:own"}
    assert checks["trigger:own"]["value"] > 0.9
