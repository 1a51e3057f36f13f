# SPDX-License-Identifier: Apache-2.0
"""A scan without a trigger and a repair from it: options, files beside the JSON, their way back.

What is searched and repaired is put in the library's place: here the command line counts.
"""

import io
import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from lancet_onnx_cli import render_search
from lancet_onnx_cli.app import main
from PIL import Image
from rich.console import Console
from support import ROOT, Result, Warm, content, lancet, one_error, untouched

from lancet_onnx import (
    DataOptions,
    RepairOptions,
    SearchOptions,
    SuspectOptions,
    TriggerOptions,
    api,
    load,
)
from lancet_onnx.report import Attachment, Picture, Report

ENDLESS = ("--timeout", "0", "--memory-limit", "0")
SEARCH = ("scan", "model.onnx", "--data", "val.npz", *ENDLESS)
REPAIR = ("repair", "model.onnx", "--from", "s.json", "--data", "val.npz", "-o", "f.onnx")


def png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (28, 28), (level, 0, 0, 9)).save(stream, "PNG")
    return stream.getvalue()


FOUND = [
    {"path": "class8-1.png", "mode": "blend", "form": "mask", "attack_success": 0.98, "n": 200},
    {"path": "class8-2.png", "mode": "add", "form": "shift", "attack_success": 0.91, "n": 200},
]
RISK = {
    "strengths": [{"kind": "strong", "strength": 0.5, "before": 0.99, "after": 0.02, "n": 450}],
    "recall": {"before": 0.98, "after": 0.97, "ratio": 0.99},
    "signs": ["a new search finds nothing"],
}
FILES = (Attachment("class8-1.png", png(1)), Attachment("class8-2.png", png(2)))


def searched(model: Path) -> Report:
    """The report of a search that found class 8."""
    classes = [
        {"class": i, "score": 4.0 if i == 8 else 1.0, "coverage": 0.04, "alikeness": 0.02,
         "success": 0.98, "examined": True}
        for i in range(10)
    ]  # fmt: skip
    trigger = {"path": "class8-1.png", "mode": "blend", "coverage": 0.04}
    body = {
        "model": {"path": str(model), "sha256": str(load(model).digest)},
        "metrics": {"n": 200},
        "findings": [
            {"rule": "LNC002", "severity": "critical", "target": 8, "attack_success": 0.98,
             "base_rate": 0.01, "recovery": 0.1, "n": 200, "trigger": trigger, "located": [],
             "triggers": FOUND,
             "next": "lancet-onnx repair model.onnx --from SCAN.json -o model.fixed.onnx"},
        ],
        "search": {
            "score": 4.0, "threshold": 2.0, "suspect": 8, "threshold_cost": None,
            "classes": classes, "signs": [{"name": "sign", "text": "told"}], "power": "what it can",
        },
        "graph_logic": [],
        "environment": {"device": "cpu", "provider": "CPU", "nodes": {}, "versions": {}, "seed": 0},
        "stages": [],
        "seconds": 1.0,
    }  # fmt: skip
    pictures = (Picture("reconstructed", "its trigger", png(3)),)
    return Report("scan", "backdoored", ("found",), body, pictures, FILES)


@dataclass
class Library:
    """Stands in the place of the library's functions and keeps what it was called with."""

    folder: Path
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def scan(self, **arguments: Any) -> Report:
        self.calls.append(("scan", arguments))
        return searched(self.folder / "model.onnx")

    def repair_blind(self, **arguments: Any) -> Report:
        self.calls.append(("repair_blind", arguments))
        body = {"output": None, "patch": None, "residual_risk": RISK}
        return Report("repair", "repaired", ("done",), body)

    def repair(self, **arguments: Any) -> Report:
        self.calls.append(("repair", arguments))
        return Report("repair", "repaired", ("done",), {"output": None, "patch": None})


@pytest.fixture
def library(small: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    stands = Library(small)
    for name in ("scan", "repair", "repair_blind"):
        monkeypatch.setitem(vars(api), name, getattr(stands, name))
    return stands


Call = Callable[..., Result]


@pytest.fixture
def call(small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in this process, in the folder of the small model."""

    def run(*args: str | Path) -> Result:
        monkeypatch.chdir(small)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["lancet-onnx", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        streams = capsys.readouterr()
        return Result(int(ended.value.code or 0), streams.out, streams.err)

    return run


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--classes", "a"], ["--classes a", "comma-separated"]),
        (["--classes", "1,,2"], ["--classes 1,,2"]),
        (["--classes="], ["--classes"]),
        (["--classes=-1"], ["--classes -1", "from 0"]),
        (["--budget", "0"], ["--budget 0", "more than 0"]),
        (["--budget", "nan"], ["--budget nan"]),
        (["--budget", "inf"], ["--budget inf"]),
        (["--budget", "soon"], ["--budget"]),
        (["--budget", "60", "--timeout", "50"], ["--budget 60", "--timeout 50"]),
        (["--trigger", "t.png", "--classes", "3"], ["--classes", "--trigger"]),
        (["--trigger", "t.png", "--budget", "3"], ["--budget", "--trigger"]),
        (["--trigger", "t.png", "--state", "s"], ["--state", "--trigger"]),
        (["--mask", "m.png"], ["--mask", "--trigger"]),
        (["--trigger-mode", "add"], ["--trigger-mode", "--trigger"]),
        (["--position", "1,2"], ["--position", "--trigger"]),
        (["--target", "3"], ["--target 3", "--classes 3"]),
    ],
)  # fmt: skip
def test_usage_errors(args: list[str], words: list[str], tmp_path: Path, warm: Warm) -> None:
    result = warm("scan", "m.onnx", "--data", "d", *args, cwd=tmp_path)
    one_error(result, 2, *words, "Try 'lancet-onnx")
    assert content(tmp_path) == {}


def test_a_search_is_asked_for_as_it_was_told(library: Library, call: Call) -> None:
    result = call(*SEARCH, "--classes", "7,0,3,0", "--budget", "90", "--state", "s.state", "-q")
    assert (result.code, result.stdout) == (1, "backdoored\n"), result
    (_, arguments), = library.calls  # fmt: skip
    assert arguments["trigger"] is None
    assert arguments["search"] == SearchOptions((7, 0, 3), 90.0, Path("s.state"))
    assert arguments["data"] == DataOptions(Path("val.npz"))


def test_a_search_needs_neither_images_nor_options(library: Library, call: Call) -> None:
    assert call("scan", "model.onnx", *ENDLESS).code == 1
    assert library.calls[0][1]["search"] == SearchOptions()
    assert library.calls[0][1]["data"] == DataOptions()


def test_a_scan_with_a_trigger_knows_nothing_of_a_search(library: Library, call: Call) -> None:
    assert call(*SEARCH, "--trigger", "t.png").code == 1
    assert "search" not in library.calls[0][1]


def test_the_time_limit_leaves_room_for_the_budget(
    small: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def contained(_command: str, _arguments: object, limits: Any, _progress: object) -> Report:
        seen.append(limits.seconds)
        return searched(small / "model.onnx")

    monkeypatch.setattr("lancet_onnx.contain.contained", contained)
    line = ("scan", "model.onnx", "-q")
    call(*line)
    call(*line, "--budget", "7200")
    call(*line, "--budget", "60", "--timeout", "100")
    call(*line, "--trigger", "t.png")
    assert seen == [3600, 10800, 100, 3600]


def test_triggers_lie_beside_the_json(library: Library, call: Call, small: Path) -> None:
    before = content(small)
    (small / "out").mkdir()
    result = call(*SEARCH, "-o", "out/scan.json", "-o", "page.html")
    assert (result.code, result.stdout) == (1, "backdoored\n"), result
    names = {"scan.json", "scan-class8-1.png", "scan-class8-2.png"}
    assert {p.name for p in (small / "out").iterdir()} == names
    for attachment in FILES:
        assert (small / "out" / f"scan-{attachment.name}").read_bytes() == attachment.png
    report = json.loads((small / "out/scan.json").read_text())
    finding = report["findings"][0]
    assert finding["trigger"]["path"] == "scan-class8-1.png"
    assert [t["path"] for t in finding["triggers"]] == ["scan-class8-1.png", "scan-class8-2.png"]
    assert "trigger out/scan-class8-1.png" in result.stderr, "for people: from where they are"
    assert "not kept" not in result.stderr
    assert "out/scan-class8-2.png" in (small / "page.html").read_text()
    assert {k: v for k, v in content(small).items() if k in before} == before


def test_each_json_has_its_own_triggers(library: Library, call: Call, small: Path) -> None:
    assert call(*SEARCH, "-o", "a.json", "-o", "b.json").code == 1
    for stem in ("a", "b"):
        finding = json.loads((small / f"{stem}.json").read_text())["findings"][0]
        assert finding["triggers"][1]["path"] == f"{stem}-class8-2.png"
        assert (small / f"{stem}-class8-2.png").is_file()


def test_a_search_again_replaces_what_the_last_one_left(
    library: Library, call: Call, small: Path
) -> None:
    assert call(*SEARCH, "-o", "s.json").code == 1
    first = content(small)
    (small / "s-class8-1.png").write_bytes(b"of the last scan")
    assert call(*SEARCH, "-o", "s.json").code == 1
    assert content(small) == first


@pytest.mark.parametrize("where", [["-f", "json"], ["-f", "json", "-o", "/dev/null"], []])
def test_triggers_of_json_on_a_stream_are_not_kept(
    library: Library, call: Call, small: Path, where: list[str]
) -> None:
    with untouched(small):
        result = call(*SEARCH, *where)
        quiet = call(*SEARCH, *where, "-q")
    assert result.code == quiet.code == 1
    note = "the triggers that were found are not kept; -o FILE.json keeps them beside it\n"
    assert result.stderr.endswith(note)
    assert quiet.stderr == ""
    if where == ["-f", "json"]:
        finding = result.json["findings"][0]
        assert finding["trigger"]["path"] is None
        assert [t["path"] for t in finding["triggers"]] == [None, None]


def test_text_says_what_the_search_means(library: Library, call: Call) -> None:
    result = call(*SEARCH, "-f", "text")
    for words in ("8 *", "|", "For class 8 a trigger was found", "sign: told", "what it can",
                  "not kept", "target class 8, trigger found by the search"):  # fmt: skip
        assert words in result.stdout, result
    table = result.stdout.partition("For class")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "\x1b" not in result.stdout


def test_the_json_follows_the_schema(library: Library, call: Call) -> None:
    schema = json.loads((ROOT / "docs/report.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    report = call(*SEARCH, "-f", "json").json
    validator.validate(report)
    validator.validate({**report, "findings": [], "verdict": "clean"})
    part = {"$ref": "#/$defs/residual_risk", "$defs": schema["$defs"]}
    jsonschema.Draft202012Validator(part).validate(RISK)
    report["search"]["classes"][0]["class"] = "8"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(report)
    del report["search"]
    with pytest.raises(jsonschema.ValidationError, match="is not valid under any"):
        validator.validate(report)


def own_picture(small: Path) -> list[str]:
    (small / "s-class1-1.png").write_bytes(png(7))
    (small / "data.csv").write_text("path,label\ns-class1-1.png,1\n")
    return ["--data", "data.csv", "-o", "s.json"]


def among_images(small: Path) -> list[str]:
    (small / "images" / "3").mkdir(parents=True)
    return ["--data", "images", "-o", "images/3/s.json"]


def a_link_to_the_images(small: Path) -> list[str]:
    (small / "images").mkdir()
    (small / "link").symlink_to("images")
    return ["--data", "images", "-o", "link/s.json"]


def model_as_picture(small: Path) -> list[str]:
    (small / "s-class8-1.png").hardlink_to(small / "model.onnx")
    return ["-o", "s.json"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (own_picture, ["s.json", "could replace", "s-class1-1.png"]),
        (among_images, ["images/3/s.json", "among the images"]),
        (a_link_to_the_images, ["link/s.json", "among the images"]),
        (model_as_picture, ["s.json", "could replace"]),
        (lambda _: ["--state", "model.onnx"], ["model.onnx", "another file"]),
        (lambda _: ["--state", "no/s"], ["no/s", "folder does not exist"]),
        (lambda _: ["--state", "s.json", "-o", "s.json"], ["s.json", "another file"]),
    ],
)
def test_inputs_are_spared(
    small: Path, library: Library, call: Call,
    make: Callable[[Path], list[str]], words: list[str],
) -> None:  # fmt: skip
    args = make(small)
    with untouched(small):
        one_error(call("scan", "model.onnx", *args, *ENDLESS), 3, *words)
    assert library.calls == []


def test_a_repair_from_a_search_gets_its_triggers(
    library: Library, call: Call, small: Path
) -> None:
    (small / "out").mkdir()
    assert call(*SEARCH, "-o", "out/s.json").code == 1
    line = ["out/s.json" if word == "s.json" else word for word in REPAIR]
    result = call(*line, "--target", "8", "--keep", "--device", "cpu", "--seed", "3")
    assert (result.code, result.stdout) == (0, "repaired\n"), result
    for words in ("strong ", "99.0%", "450", "98.0% before, 97.0% after", "nothing"):
        assert words in result.stderr, result
    name, arguments = library.calls[-1]
    assert name == "repair_blind"
    progress = arguments.pop("progress")
    assert callable(progress)
    assert arguments == {
        "model": Path("model.onnx"),
        "suspects": SuspectOptions(
            8,
            (
                TriggerOptions(Path("out/s-class8-1.png"), mode="blend", target=8),
                TriggerOptions(Path("out/s-class8-2.png"), mode="add", target=8),
            ),
        ),
        "data": DataOptions(Path("val.npz")),
        "options": RepairOptions(Path("f.onnx"), keep=True),
        "device": "cpu",
        "seed": 3,
    }


def test_with_a_trigger_only_the_target_is_the_searchs(library: Library, call: Call) -> None:
    assert call(*SEARCH, "-o", "s.json").code == 1
    assert call(*REPAIR, "--trigger", "t.png").code == 0
    name, arguments = library.calls[-1]
    assert name == "repair"
    assert arguments["trigger"] == TriggerOptions(Path("t.png"), target=8)


@pytest.mark.parametrize(
    "option", [("--mask", "t.png"), ("--position", "1,1"), ("--trigger-mode", "add"),
               ("--target", "3")],
)  # fmt: skip
def test_options_of_a_given_trigger_do_not_go_with_found_ones(
    library: Library, call: Call, small: Path, option: tuple[str, str]
) -> None:
    assert call(*SEARCH, "-o", "s.json").code == 1
    with untouched(small):
        one_error(call(*REPAIR, *option), 2, option[0], "does not go with")


def path(value: object) -> Callable[[dict], None]:
    def change(scan: dict) -> None:
        scan["findings"][0]["triggers"][1]["path"] = value

    return change


def finding(**changes: object) -> Callable[[dict], None]:
    return lambda scan: scan["findings"][0].update(changes)


STRANGE = {
    "absolute": (path("/etc/passwd"), ["/etc/passwd", "not in its own folder"]),
    "above": (path("../t.png"), ["../t.png", "not in its own folder"]),
    "above by a way round": (path("sub/../../t.png"), ["not in its own folder"]),
    "a link out": (path("out.png"), ["out.png", "a link out of its own folder"]),
    "a folder that is a link out": (path("away/t.png"), ["a link out of its own folder"]),
    "a link in a circle": (path("circle.png"), ["circle.png"]),
    "gone": (path("gone.png"), ["gone.png", "No such file", "beside its JSON"]),
    "a folder": (path("sub"), ["sub", "no regular file"]),
    "not kept": (path(None), ["not kept", "-o FILE.json"]),
    "a number": (path(3), ["not the JSON of a scan"]),
    "a zero byte": (path("a\0.png"), ["not the JSON of a scan"]),
    "an unknown mode": (
        lambda scan: scan["findings"][0]["triggers"][0].update(mode="rm"),
        ["not the JSON of a scan"],
    ),
    "no list": (finding(triggers={"a": 1}), ["not the JSON of a scan"]),
    "strings": (finding(triggers=["s-class8-1.png"]), ["not the JSON of a scan"]),
    "of one class": (
        finding(source=3), ["works on images of class 3 only", "not repaired"],
    ),
    "of no class": (finding(source="3"), ["not the JSON of a scan"]),
    "no triggers": (finding(triggers=[]), ["names no trigger", "--trigger"]),
    "endless": (finding(triggers=FOUND * 200), ["not the JSON of a scan"]),
    "no class": (finding(target="8"), ["not the JSON of a scan"]),
    "no finding": (lambda scan: scan.update(findings=[]), ["found nothing"]),
    "another model": (
        lambda scan: scan["model"].update(sha256="0" * 64), ["another model", "000000000000"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_the_json_of_a_stranger(library: Library, call: Call, small: Path, name: str) -> None:
    change, words = STRANGE[name]
    folder = small / "box"
    (folder / "sub").mkdir(parents=True)
    (folder / "out.png").symlink_to("../t.png")
    (folder / "away").symlink_to(small)
    (folder / "circle.png").symlink_to("circle.png")
    assert call(*SEARCH, "-o", "box/s.json").code == 1
    scan = json.loads((folder / "s.json").read_text())
    change(scan)
    (folder / "s.json").write_text(json.dumps(scan))
    line = ["box/s.json" if word == "s.json" else word for word in REPAIR]
    with untouched(small):
        one_error(call(*line), 3, "s.json", *words)
    assert [name for name, _ in library.calls] == ["scan"]


def test_a_link_inside_the_folder_is_followed(library: Library, call: Call, small: Path) -> None:
    assert call(*SEARCH, "-o", "s.json").code == 1
    (small / "s-class8-2.png").unlink()
    (small / "s-class8-2.png").symlink_to("s-class8-1.png")
    assert call(*REPAIR).code == 0


def test_json_that_is_nested_without_end_is_no_scan(
    library: Library, call: Call, small: Path
) -> None:
    (small / "s.json").write_text("[" * 200_000)
    with untouched(small):
        one_error(call(*REPAIR), 3, "s.json", "not the JSON of a scan")


def test_triggers_come_from_a_child_process_too(small: Path, tmp_path: Path) -> None:
    """The way that a scan takes: asked for and answered through pipes."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        textwrap.dedent("""
        from pathlib import Path
        import lancet_onnx.api as api
        from lancet_onnx.api.options import DataOptions, SearchOptions, TriggerOptions
        from lancet_onnx.report import Attachment, Report

        def scan(model: Path, trigger: TriggerOptions | None, data: DataOptions | None = None, *,
                 search: SearchOptions | None = None, device: str = "auto", seed: int = 0):
            assert trigger is None and search == SearchOptions((1, 2), 5.0, Path("kept")), search
            kept = Attachment("class2-1.png", b"\\x89PNG\\r\\n\\x1a\\n")
            told = {"path": "class2-1.png", "mode": "blend", "coverage": 0.1}
            finding = {"target": 2, "trigger": told, "triggers": [told], "located": []}
            body = {"findings": [finding], "search": {"suspect": 2, "classes": []}}
            return Report("scan", "backdoored", (), body, (), (kept,))

        api.scan = scan
        """)
    )
    result = lancet(
        "scan", "model.onnx", "--classes", "1,2", "--budget", "5", "--state", "kept", "-q",
        "-o", "s.json", cwd=small, env={"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert (result.code, result.stdout, result.stderr) == (1, "backdoored\n", ""), result
    assert (small / "s-class2-1.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((small / "s.json").read_text())["findings"][0]
    assert found["triggers"][0]["path"] == "s-class2-1.png"


def test_the_table_of_classes_fits_a_terminal():
    classes = [
        {
            "class": c,
            "score": 15.6 if c == 7 else 0.944,
            "coverage": 0.379,
            "alikeness": -0.00038,
            "stray": 0.396,
            "examined": True,
        }
        for c in range(10)
    ]
    search = {"threshold": 1.0, "suspect": 7, "classes": classes, "signs": [], "power": ""}
    data = {"command": "scan", "verdict": "backdoored", "search": search}
    stream = io.StringIO()
    render_search.search(data, Console(file=stream, width=80))
    table = stream.getvalue().splitlines()[: len(classes) + 1]
    # A cell that does not fit goes on in a line of its own.
    assert [line.split()[0] for line in table] == ["class", "7", *"012345689"]
    assert all(len(line) <= 80 for line in table)
