# SPDX-License-Identifier: Apache-2.0
"""Exit codes and streams of every command: results to stdout or files, all else to stderr."""

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import (
    COMMAND,
    DEMO,
    REFUSED,
    ROOT,
    Result,
    Warm,
    box,
    content,
    environment,
    lancet,
    once,
    one_error,
    seven,
    untouched,
)

LINE = ("--trigger", "t.png", "--data", "val.npz")
SCAN = ("scan", "model.onnx", *LINE)
REPAIR = ("repair", "model.onnx", *LINE, "-o", "fixed.onnx")


@pytest.fixture
def repaired(common: Path, warm: Warm) -> tuple[Path, dict[str, Result]]:
    """The small model scanned, then repaired from the scan's JSON, with reports."""

    def make(folder: Path) -> dict[str, Result]:
        box(folder)
        return {
            "scan": warm(*SCAN, "-f", "json", "-f", "html", "-o", "scan.json", "-o", "scan.html",
                         cwd=folder),
            "repair": warm("repair", "model.onnx", "--from", "scan.json", "--data", "val.npz",
                           "-o", "fixed.onnx", "--report", "r.html", "--report", "r.json",
                           cwd=folder),
        }  # fmt: skip

    return once(common, "repaired", make)


def test_a_cold_scan_of_a_backdoored_model_exits_1_and_says_one_word(tmp_path: Path) -> None:
    result = lancet(
        "scan", DEMO / "model.onnx", "--trigger", DEMO / "trigger.png",
        "--data", DEMO / "images.npz", cwd=tmp_path,
    )  # fmt: skip
    assert (result.code, result.stdout) == (1, "backdoored\n"), result
    assert "attack success" in result.stderr
    assert "\x1b" not in result.stderr, "no colours or bars where nobody watches"
    assert max(map(len, result.stderr.splitlines()[:14])) <= 80, "tables fit 80 columns"
    assert content(tmp_path) == {}


def test_json_alone_is_on_stdout(small: Path, warm: Warm) -> None:
    result = warm(*SCAN, "-f", "json", cwd=small)
    assert result.code == 1
    assert result.json["verdict"] == "backdoored"
    assert result.json["findings"][0]["target"] == 7
    assert result.stderr == ""


def test_text_is_on_stdout_when_asked_for(small: Path, warm: Warm) -> None:
    result = warm(*SCAN, "-f", "text", cwd=small)
    assert result.code == 1
    assert "attack success" in result.stdout
    assert "backdoored" in result.stdout
    assert result.stderr == ""


def test_the_last_format_goes_to_the_file(small: Path, warm: Warm) -> None:
    result = warm(*SCAN, "-f", "json", "-f", "html", "-o", "x.html", cwd=small)
    assert result.json["verdict"] == "backdoored"
    assert (small / "x.html").read_text().startswith("<!doctype html>")


def test_the_name_of_a_report_says_its_format(small: Path, warm: Warm) -> None:
    result = warm(*SCAN, "-q", "-o", "r.json", "-o", "r.txt", cwd=small)
    assert (result.code, result.stdout, result.stderr) == (1, "backdoored\n", "")
    assert json.loads((small / "r.json").read_text())["verdict"] == "backdoored"
    assert "attack success" in (small / "r.txt").read_text()


def test_a_report_may_go_to_a_device(small: Path, warm: Warm) -> None:
    assert warm("inspect", "model.onnx", "-f", "json", "-o", "/dev/null", cwd=small).code == 0
    assert Path("/dev/null").is_char_device(), "written to, not replaced"


def test_verbose_adds_the_stages(small: Path, warm: Warm) -> None:
    assert "image-forwards" in warm(*SCAN, "-v", cwd=small).stderr


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "xterm-256color"}])
def test_no_escape_codes_without_a_terminal(small: Path, warm: Warm, env: dict[str, str]) -> None:
    result = warm(*SCAN, cwd=small, env=env)
    assert "\x1b" not in result.stdout + result.stderr


def test_a_clean_model_is_clean(tmp_path: Path, warm: Warm) -> None:
    result = warm(
        "scan", ROOT / "fixtures" / "mnist_cnn_clean.onnx", "--trigger", DEMO / "trigger.png",
        "--data", DEMO / "images.npz", cwd=tmp_path,
    )  # fmt: skip
    assert (result.code, result.stdout) == (0, "clean\n"), result


def test_without_data_only_a_clear_response_is_a_finding(tmp_path: Path, warm: Warm) -> None:
    result = warm(
        "scan", DEMO / "model.onnx", "--trigger", DEMO / "trigger.png", "-f", "json", cwd=tmp_path
    )
    verdict = result.json["verdict"]
    assert (result.code, verdict) in ((1, "backdoored"), (3, "inconclusive")), result
    assert result.json["metrics"]["clean_accuracy"] is None
    assert "accuracy is not known without data" in result.json["reasons"]


@pytest.mark.parametrize("labelled", [True, False])
def test_ten_images_are_too_few(small: Path, warm: Warm, labelled: bool) -> None:
    with np.load(small / "val.npz") as arrays:
        few = {"x": arrays["x"][:10], **({"y": arrays["y"][:10]} if labelled else {})}
    np.savez(small / "few.npz", **few)
    call = ("model.onnx", "--trigger", "t.png", "--data", "few.npz")
    for command in (("scan", *call), ("repair", *call, "-o", "fixed.onnx")):
        with untouched(small):
            one_error(warm(*command, cwd=small), 3, "few.npz: only 10 images", "give at least 80")


def test_a_branch_on_the_input_is_reported_by_a_scan(small: Path, warm: Warm) -> None:
    result = warm("scan", REFUSED / "where_on_input.onnx", *LINE, "-f", "json", cwd=small)
    assert "'choose'" in result.json["graph_logic"][0]["text"]


def test_repair_from_a_scan_writes_model_patch_and_reports(
    repaired: tuple[Path, dict[str, Result]],
) -> None:
    folder, results = repaired
    assert results["scan"].code == 1, results["scan"]
    result = results["repair"]
    assert (result.code, result.stdout) == (0, "repaired\n"), result
    assert "repaired model: fixed.onnx\npatch: fixed.lancet.safetensors\n" in result.stderr
    written = {"fixed.onnx", "fixed.lancet.safetensors", "r.html", "r.json"}
    inputs = {"model.onnx", "t.png", "val.npz", "scan.json", "scan.html"}
    assert set(content(folder)) >= written | inputs
    report = json.loads((folder / "r.json").read_text())
    assert report["output"]["sha256"] == content(folder)["fixed.onnx"]
    assert report["patch"]["sha256"] == content(folder)["fixed.lancet.safetensors"]
    assert b"lancet-onnx" in (folder / "fixed.onnx").read_bytes()[-400:]


def test_verify_agrees_with_the_repair(
    repaired: tuple[Path, dict[str, Result]], warm: Warm
) -> None:
    folder, _ = repaired
    with untouched(folder):
        result = warm("verify", "model.onnx", "fixed.onnx", *LINE, "-f", "json", cwd=folder)
        assert (result.code, result.json["verdict"]) == (0, "repaired"), result
        assert result.json["data"]["used"] == "the half that the repair did not see"
        figures = json.loads((folder / "r.json").read_text())
        assert result.json["after"] == figures["after"]
        same = warm("verify", "model.onnx", "model.onnx", *LINE, cwd=folder)
        assert (same.code, same.stdout) == (1, "not_repaired\n"), same
        plain = warm("verify", "model.onnx", "fixed.onnx", "--data", "val.npz", cwd=folder)
        assert (plain.code, plain.stdout) == (0, "pass\n"), plain


def test_existing_outputs_are_kept_unless_forced(
    repaired: tuple[Path, dict[str, Result]], warm: Warm, small: Path
) -> None:
    for name in ("fixed.lancet.safetensors", "fixed.onnx"):
        (small / name).write_bytes(b"mine")
        with untouched(small):
            one_error(warm(*REPAIR, cwd=small), 3, name, "exists already", "--force")
    result = warm(*REPAIR, "--force", "--method", "mute", "-q", cwd=small)
    assert (result.code, result.stdout, result.stderr) == (0, "repaired\n", ""), result
    assert (small / "fixed.onnx").read_bytes() != b"mine"
    assert (small / "fixed.lancet.safetensors").read_bytes() != b"mine"


def test_as_published_without_metadata_on_unlabelled_images(small: Path, warm: Warm) -> None:
    with np.load(small / "val.npz") as arrays:
        np.savez(small / "val.npz", x=arrays["x"])
    result = warm(*REPAIR, "--as-published", "--no-metadata", "-f", "json", cwd=small)
    assert result.code == 0, result
    assert result.json["method"] == "as-published"
    assert result.json["data"]["labelled"] is False
    assert "clean_accuracy" not in result.json["after"]
    assert len((small / "fixed.onnx").read_bytes()) == len((small / "model.onnx").read_bytes())


def test_a_repair_over_budget_writes_nothing_but_its_report(small: Path, warm: Warm) -> None:
    seven(small / "seven.png")
    before = content(small)
    result = warm(
        "repair", "model.onnx", "--trigger", "seven.png", "--data", "val.npz", "-o", "fixed.onnx",
        "--max-accuracy-loss", "0", "--report", "r.json", cwd=small,
    )  # fmt: skip
    assert (result.code, result.stdout) == (1, "not_repaired\n"), result
    assert "nothing was written" in result.stderr
    assert json.loads((small / "r.json").read_text())["output"] is None
    (small / "r.json").unlink()
    assert content(small) == before


def test_a_scan_of_another_model_is_no_base_for_a_repair(small: Path, warm: Warm) -> None:
    warm("scan", DEMO / "model.onnx", *LINE, "-q", "-o", "other.json", cwd=small)
    with untouched(small):
        one_error(
            warm("repair", "model.onnx", "--from", "other.json", "--data", "val.npz",
                 "-o", "fixed.onnx", cwd=small),
            3, "other.json", "another model", "--trigger",
        )  # fmt: skip


def test_a_scan_keeps_how_the_trigger_was_stamped(small: Path, warm: Warm) -> None:
    with Image.open(small / "t.png") as picture:
        corner = picture.crop((24, 24, 28, 28))
    corner.save(small / "t.png")
    how = ("--position", "24,24", "--trigger-mode", "blend")
    assert warm(*SCAN, "-q", *how, "-o", "s.json", cwd=small).code == 1
    trigger = json.loads((small / "s.json").read_text())["findings"][0]["trigger"]
    assert (trigger["position"], trigger["mode"]) == ([24, 24], "blend")
    result = warm("repair", "model.onnx", "--from", "s.json", "--data", "val.npz", "-o", "f.onnx",
                  "-f", "json", cwd=small)  # fmt: skip
    assert result.json["trigger"]["mode"] == "blend", result


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        (DEMO / "model.onnx", 0, ["opset: 20", "fc1.weight", "preprocessing: unit", "next: "]),
        (ROOT / "fixtures" / "mnist_resnet_scattered.onnx", 0, ["opset: 13", "/stem/Conv"]),
        (ROOT / "fixtures" / "mnist_cnn_clean.onnx", 0, ["batch size: 1"]),
        (REFUSED / "unknown_operator.onnx", 3, ["problem: node 'frobnicate'"]),
    ],
)
def test_inspect(model: Path, code: int, words: list[str], tmp_path: Path, warm: Warm) -> None:
    result = warm("inspect", model, cwd=tmp_path)
    assert (result.code, result.stderr) == (code, ""), result
    for word in words:
        assert word in result.stdout
    table = [line for line in result.stdout.splitlines() if not line.startswith(("next", "  "))]
    assert max(map(len, table)) <= 80, result.stdout


def test_doctor(tmp_path: Path, warm: Warm) -> None:
    result = warm("doctor", cwd=tmp_path)
    assert (result.code, result.stderr) == (0, ""), result
    assert "a model would run on: cpu" in result.stdout or "cuda" in result.stdout
    assert warm("doctor", "-f", "json", cwd=tmp_path).json["command"] == "doctor"


def test_demo_tells_the_whole_story_and_again(common: Path) -> None:
    def make(folder: Path) -> dict[str, Result]:
        # As a second run finds it: the files of the first one are there.
        (folder / "lancet-demo").mkdir()
        for name in ("fixed.onnx", "fixed.lancet.safetensors", "report.html"):
            (folder / "lancet-demo" / name).write_text("of an earlier run")
        return {"demo": lancet("demo", cwd=folder)}

    folder, results = once(common, "demo", make)
    result = results["demo"]
    assert result.code == 0, result
    assert result.stdout.startswith("repaired; open lancet-demo/report.html"), result
    for word in ("1. scan", "backdoored", "2. repair", "fc1.weight", "3. verify", "done"):
        assert word in result.stderr
    reasons = [line for line in result.stderr.splitlines() if line.startswith("  ")]
    assert max(len(x) for x in result.stderr.splitlines() if x not in reasons) <= 80, result
    made = folder / "lancet-demo"
    for name in ("fixed.onnx", "fixed.lancet.safetensors", "report.html"):
        assert (made / name).read_bytes()[:10] != b"of an earl", name
    assert {p.name for p in made.iterdir()} == {
        *("fixed.onnx", "fixed.lancet.safetensors", "report.html"),
        *("scan.json", "repair.json", "verify.json"),
        *("model.onnx", "trigger.png", "images.npz"),
    }
    assert json.loads((made / "verify.json").read_text())["after"]["attack_success"] < 0.02


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["scna"], ["scna"]),
        (["scan", "m.onnx", "--triger", "t.png"], ["--triger", "--trigger"]),
        (["scan", "m.onnx", "--device", "tpu"], ["--device", "tpu", "cuda"]),
        (["scan", "m.onnx", "--seed", "x"], ["--seed", "x"]),
        (["scan", "m.onnx", "--trigger", "t.png", "--position", "3"], ["--position 3", "LEFT,TOP"]),
        (["scan", "m.onnx", "--trigger", "t.png", "--mean", "a"], ["--mean a", "numbers"]),
        (["scan"], ["MODEL"]),
        (["scan", "m.onnx", "-f", "json", "-f", "html"], ["only one format"]),
        (["scan", "m.onnx", "-f", "json", "-o", "a.json", "-o", "b"], ["b: ", ".json"]),
        (["scan", "m.onnx", "-f", "pdf"], ["pdf", "json"]),
        (["scan", "m.onnx", "-o", "r.pdf"], ["r.pdf", ".json"]),
        (["repair", "m.onnx", "--trigger", "t.png", "--data", "d"], ["--out"]),
        (["repair", "m.onnx", "--trigger", "t.png", "-o", "f.onnx"], ["--data"]),
        (["repair", "m.onnx", "-o", "f.onnx", "--max-accuracy-loss", "2"], ["--max-accuracy-loss"]),
        (["verify", "m.onnx"], ["FIXED"]),
        (["verify", "m.onnx", "f.onnx"], ["--data"]),
    ],
)
def test_usage_errors(args: list[str], words: list[str], tmp_path: Path, warm: Warm) -> None:
    result = warm(*args, cwd=tmp_path)
    one_error(result, 2, *words, "Try 'lancet-onnx")
    assert content(tmp_path) == {}


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["repair", "--help"], ["scan", "-x"]])
def test_help_does_not_load_torch(args: list[str], tmp_path: Path) -> None:
    result = lancet(*args, cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.code == (2 if "-x" in args else 0)
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "numpy", "lancet_onnx"}


def test_debug_shows_the_traceback(tmp_path: Path, warm: Warm) -> None:
    result = warm("inspect", "--debug", "gone.onnx", cwd=tmp_path)
    assert result.code == 3
    assert "Traceback" in result.stderr
    assert "ModelError" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: gone.onnx")


def test_a_bug_is_called_one(small: Path, warm: Warm, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import lancet_onnx.api as api\n"
        "def inspect(path, output):\n    raise RuntimeError('odd \\x1b[31m name')\n"
        "api.inspect = inspect\n"
    )
    result = lancet("inspect", "model.onnx", cwd=small, env={"PYTHONPATH": str(site)})
    assert (result.code, result.stdout) == (70, ""), result
    assert result.stderr.startswith("bug in lancet-onnx: RuntimeError: odd")
    assert "--debug" in result.stderr
    assert "\x1b" not in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupted_repair_leaves_nothing(tmp_path: Path) -> None:
    before = content(tmp_path)
    screen, stderr = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "repair", DEMO / "model.onnx", "--trigger", DEMO / "trigger.png",
         "--data", DEMO / "images.npz", "-o", "fixed.onnx"],
        cwd=tmp_path, env=environment(TERM="xterm"), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=stderr,
    )  # fmt: skip
    os.close(stderr)
    shown = b""
    limit = time.monotonic() + 120
    while b"tuning" not in shown:
        assert time.monotonic() < limit
        shown += os.read(screen, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while part := os.read(screen, 4096):
            shown += part
    except OSError:  # how a pseudo-terminal says that the other end has gone
        pass
    os.close(screen)
    stdout, _ = process.communicate(timeout=60)
    text = shown.decode()
    assert process.returncode == 130, text
    assert stdout == b""
    assert text.rstrip().endswith("interrupted; nothing was left half written"), repr(text[-200:])
    assert "Traceback" not in text
    assert content(tmp_path) == before


def test_a_reader_that_leaves_is_no_error(small: Path) -> None:
    shell = f"set -o pipefail; {' '.join(COMMAND)} inspect model.onnx -f json | head -c0"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=small, env=environment(), capture_output=True, check=False
    )
    assert done.stderr == b""
    assert done.returncode in (0, 1)
