# SPDX-License-Identifier: Apache-2.0
"""``lancet-onnx patch``: real processes, exit codes, streams, and what is left on the disk."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from support import REFUSED, ROOT, Warm, content, lancet, one_error, untouched

GOLDEN = ROOT / "fixtures" / "patches" / "v1"
SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text())
PATCH = "p.lancet.safetensors"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A folder with a model, a patch of it, its result, and one with external data likewise."""
    folder = tmp_path / "box"
    (folder / "external").mkdir(parents=True)
    shutil.copy(GOLDEN / "flip" / "base" / "model.onnx", folder / "model.onnx")
    shutil.copy(GOLDEN / "flip" / "result" / "model.onnx", folder / "fixed.onnx")
    shutil.copy(GOLDEN / "flip" / "patch.lancet.safetensors", folder / PATCH)
    shutil.copytree(GOLDEN / "external" / "base", folder / "external", dirs_exist_ok=True)
    shutil.copy(GOLDEN / "external" / "patch.lancet.safetensors", folder / "external" / PATCH)
    return folder


def test_apply_writes_the_model_and_says_one_word(box: Path, warm: Warm):
    result = warm("patch", "apply", "model.onnx", PATCH, "-o", "new.onnx", cwd=box)
    assert (result.code, result.stdout) == (0, "done\n"), result
    assert "new model: new.onnx" in result.stderr
    assert (box / "new.onnx").read_bytes() == (box / "fixed.onnx").read_bytes()


def test_revert_gives_the_base(box: Path, warm: Warm):
    result = warm("patch", "revert", "fixed.onnx", PATCH, "-o", "old.onnx", "-q", cwd=box)
    assert (result.code, result.stdout, result.stderr) == (0, "done\n", ""), result
    assert (box / "old.onnx").read_bytes() == (box / "model.onnx").read_bytes()


def test_show_says_what_where_how_many_how_large_who_and_for_which(box: Path, warm: Warm):
    result = warm("patch", "show", PATCH, cwd=box)
    assert (result.code, result.stderr) == (0, ""), result
    for part in ("fc.weight", "fc.bias", "float32", "10x49", "golden(flip)", "lancet-onnx 0."):
        assert part in result.stdout, part
    assert "numbers changed: 4" in result.stdout


def test_diff_and_compose_make_patches(box: Path, warm: Warm):
    diff = warm("patch", "diff", "model.onnx", "fixed.onnx", "-o", "d", "-f", "json", cwd=box)
    assert diff.code == 0, diff
    assert diff.json["weights_changed"] == 4
    back = warm("patch", "apply", "model.onnx", "d", "-o", "new.onnx", cwd=box)
    assert back.code == 0, back
    assert (box / "new.onnx").read_bytes() == (box / "fixed.onnx").read_bytes()
    again = onnx.load(box / "fixed.onnx")
    (weight,) = (t for t in again.graph.initializer if t.name == "fc.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0] = 42
    weight.raw_data = values.tobytes()
    (box / "later.onnx").write_bytes(again.SerializeToString())
    assert warm("patch", "diff", "fixed.onnx", "later.onnx", "-o", "e", cwd=box).code == 0
    both = warm("patch", "compose", "d", "e", "-o", "f", cwd=box)
    assert (both.code, both.stdout) == (0, "done\n"), both
    assert warm("patch", "apply", "model.onnx", "f", "-o", "end.onnx", cwd=box).code == 0
    assert (box / "end.onnx").read_bytes() == (box / "later.onnx").read_bytes()


@pytest.mark.parametrize(
    "line",
    [
        ["show", PATCH],
        ["apply", "model.onnx", PATCH, "-o", "n.onnx"],
        ["revert", "fixed.onnx", PATCH, "-o", "n.onnx"],
        ["diff", "model.onnx", "fixed.onnx", "-o", "n"],
        ["compose", PATCH, "second", "-o", "n"],
    ],
    ids=lambda line: line[0],
)
def test_json_follows_the_schema(box: Path, warm: Warm, line: Sequence[str]):
    made = warm("patch", "diff", "fixed.onnx", "fixed.onnx", "-o", "second", cwd=box)
    assert made.code == 0, made
    result = warm("patch", *line, "-f", "json", cwd=box)
    assert (result.code, result.stderr) == (0, ""), result
    jsonschema.validate(result.json, SCHEMA)
    assert result.json["command"] == f"patch {line[0]}"


def test_a_report_as_a_page_and_as_json(box: Path, warm: Warm):
    result = warm(
        "patch", "apply", "model.onnx", PATCH, "-o", "n.onnx", "--report", "r.html", "--report",
        "r.json", "-q", cwd=box,
    )  # fmt: skip
    assert result.code == 0, result
    assert json.loads((box / "r.json").read_text())["weights_changed"] == 4
    assert "patch apply" in (box / "r.html").read_text()


def test_external_data_goes_into_another_folder(box: Path, warm: Warm):
    with untouched(box / "external"):
        (box / "out").mkdir()
        line = ("patch", "apply", "external/model.onnx", f"external/{PATCH}")
        result = warm(*line, "-o", "out/model.onnx", cwd=box)
        assert result.code == 0, result
    golden = GOLDEN / "external" / "result"
    for name in ("model.onnx", "first.bin", "second.bin"):
        assert (box / "out" / name).read_bytes() == (golden / name).read_bytes()


def test_a_signature_beside_the_model_is_said_to_be_void(box: Path, warm: Warm):
    (box / "model.sig").write_bytes(b"signed")
    result = warm("patch", "apply", "model.onnx", PATCH, "-o", "n.onnx", "-f", "json", cwd=box)
    assert any(
        "model.sig" in reason and "signed again" in reason for reason in result.json["reasons"]
    )


def test_the_same_weights_in_another_file_are_patched_with_a_notice(box: Path, warm: Warm):
    model = onnx.load(box / "model.onnx")
    model.doc_string = "written again"
    (box / "twin.onnx").write_bytes(model.SerializeToString())
    result = warm("patch", "apply", "twin.onnx", PATCH, "-o", "n.onnx", "-f", "json", cwd=box)
    assert result.code == 0, result
    assert result.json["base_matched_by"] == "weights"
    assert any("same weights" in reason for reason in result.json["reasons"])
    assert onnx.load(box / "n.onnx").doc_string == "written again"


def test_force_replaces_a_file_but_never_an_input(box: Path, warm: Warm):
    line = ("patch", "apply", "model.onnx", PATCH, "--force", "-o")
    (box / "old.onnx").write_bytes(b"old")
    assert warm(*line, "old.onnx", cwd=box).code == 0
    assert (box / "old.onnx").read_bytes() == (box / "fixed.onnx").read_bytes()
    (box / "link.onnx").symlink_to("model.onnx")
    (box / "hard.onnx").hardlink_to(box / "model.onnx")
    for name in ("model.onnx", "link.onnx", "hard.onnx", PATCH):
        with untouched(box):
            one_error(warm(*line, name, cwd=box), 3, "input" if name != PATCH else PATCH)


def spoilt(box: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray((box / PATCH).read_bytes())
    change(data)
    (box / "bad").write_bytes(data)


def other_values(box: Path) -> None:
    model = onnx.load(box / "model.onnx")
    for tensor in model.graph.initializer:
        tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) + 1).tobytes()
    (box / "other.onnx").write_bytes(model.SerializeToString())


def one_other_byte(box: Path) -> None:
    model = onnx.load(box / "model.onnx")
    (weight,) = (t for t in model.graph.initializer if t.name == "fc.weight")
    values = bytearray(weight.raw_data)
    values[4 * 200] ^= 1  # an element that the patch does not touch
    weight.raw_data = bytes(values)
    (box / "other.onnx").write_bytes(model.SerializeToString())


def other_data(box: Path) -> None:
    data = bytearray((box / "external" / "first.bin").read_bytes())
    data[5] ^= 1
    (box / "external" / "first.bin").write_bytes(data)
    (box / "out").mkdir()


def other_graph(box: Path) -> None:
    model = onnx.load(box / "model.onnx")
    model.graph.node[0].attribute[0].ints[0] += 1
    (box / "other.onnx").write_bytes(model.SerializeToString())


def stays(box: Path) -> None:
    (box / "out").mkdir()
    (box / "out" / "second.bin").write_bytes(b"mine")


EXTERNAL = ["apply", "external/model.onnx", f"external/{PATCH}", "-o"]
APPLY = ["apply", "model.onnx", PATCH, "-o"]

CASES: dict[str, tuple[Callable[[Path], object], Sequence[str], Sequence[str]]] = {
    "patch missing": (
        lambda _: None, ["show", "gone"], ["gone", "no such file", "expected a patch"],
    ),
    "patch a folder": (lambda box: (box / "d").mkdir(), ["show", "d"], ["d: not a regular file"]),
    "patch a pipe": (
        lambda box: os.mkfifo(box / "f"), ["show", "f"], ["f: not a regular file"],
    ),
    "patch a model": (lambda _: None, ["show", "model.onnx"], ["model.onnx: not a lancet-onnx"]),
    "patch cut": (
        lambda box: spoilt(box, lambda d: d.__delitem__(slice(-9, None))), ["show", "bad"], ["bad"],
    ),
    "patch of a later format": (
        lambda box: (box / "bad").write_bytes(
            (box / PATCH).read_bytes().replace(b'.version":"1"', b'.version":"9"')
        ),
        ["show", "bad"], ["patch format '9'", "reads 1"],
    ),
    "model missing": (
        lambda _: None, ["apply", "gone.onnx", PATCH, "-o", "n.onnx"], ["gone.onnx: no such file"],
    ),
    "model a hostile one": (
        lambda _: None,
        ["apply", str(REFUSED / "two_value_fields.onnx"), PATCH, "-o", "n.onnx"],
        ["two value fields", "[LNC107]"],
    ),
    "another model": (
        other_values, ["apply", "other.onnx", PATCH, "-o", "n.onnx"],
        ["'fc.weight' is not what the patch expects", "another model"],
    ),
    "a model that differs elsewhere": (
        one_other_byte, ["apply", "other.onnx", PATCH, "-o", "n.onnx"],
        ["made for another model", "nothing was written"],
    ),
    "data that differ elsewhere": (
        other_data, [*EXTERNAL, "out/model.onnx"], ["made for another model"],
    ),
    "reverting the base": (
        lambda _: None, ["revert", "model.onnx", PATCH, "-o", "n.onnx"], ["not its result"],
    ),
    "output exists": (lambda _: None, [*APPLY, "fixed.onnx"], ["exists already", "--force"]),
    "output a folder": (lambda box: (box / "d").mkdir(), [*APPLY, "d"], ["d: is a folder"]),
    "output without a folder": (lambda _: None, [*APPLY, "x/n.onnx"], ["does not exist"]),
    "output the input": (lambda _: None, [*APPLY, "model.onnx"], ["model.onnx"]),
    "output beside its data": (
        lambda _: None, [*EXTERNAL, "external/n.onnx"], ["'first.bin'", "another folder"],
    ),
    "output through a link beside its data": (
        lambda box: (box / "link").symlink_to("external"), [*EXTERNAL, "link/n.onnx", "--force"],
        ["'first.bin'", "another folder"],
    ),
    "a data file in the way": (
        stays, [*EXTERNAL, "out/model.onnx", "--force"], ["out/second.bin", "never replaced"],
    ),
    "different graphs": (
        other_graph, ["diff", "model.onnx", "other.onnx", "-o", "n"],
        ["ints 0 of attribute 0", "node 0 'conv'", "4 and 5"],
    ),
    "patches that do not follow": (
        lambda box: shutil.copy(box / PATCH, box / "again"),
        ["compose", PATCH, "again", "-o", "n"], ["follow each other"],
    ),
    "a report in the place of the model": (
        lambda _: None, [*APPLY, "n.json", "--report", "n.json"], ["n.json", "another file"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, box: Path, warm: Warm):
    make, line, parts = CASES[name]
    make(box)
    with untouched(box):
        one_error(warm("patch", *line, cwd=box), 3, *parts)


@pytest.mark.parametrize(
    "line", [["apply", "model.onnx", PATCH], ["diff", "model.onnx"], ["show"], ["paint"]]
)
def test_usage(box: Path, warm: Warm, line: Sequence[str]):
    with untouched(box):
        one_error(warm("patch", *line, cwd=box), 2)


def test_no_torch_is_loaded(box: Path):
    """Looking at a patch takes a fraction of a second, not the seconds that torch needs."""
    code = (
        "import sys; sys.argv = ['lancet-onnx', 'patch', 'show', sys.argv[1]]\n"
        "from lancet_onnx_cli.app import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'onnxruntime'} & sys.modules.keys()"
    )
    result = lancet(cwd=box, program=("-c", code, PATCH))
    assert result.code == 0, result


def test_a_second_run_gives_the_same_bytes(box: Path, warm: Warm):
    for name in ("one", "two"):
        (box / name).mkdir()
        line = ("patch", "diff", "model.onnx", "fixed.onnx", "-o", f"{name}/p")
        assert warm(*line, cwd=box).code == 0
    assert content(box / "one") == content(box / "two")
