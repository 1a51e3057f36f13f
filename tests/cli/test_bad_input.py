# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear message, the right exit code, and no file touched or left behind."""

import json
import os
import resource
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import DEMO, REFUSED, Warm, content, lancet, one_error, untouched

Make = Callable[[Path], object]


def scan(model: str | Path = "model.onnx", trigger: str = "t.png", data: str = "val.npz",
         *more: str) -> list[str]:  # fmt: skip
    return ["scan", str(model), "--trigger", trigger, "--data", data, *more]


def repair(*more: str, output: str = "f.onnx") -> list[str]:
    return ["repair", "model.onnx", "--trigger", "t.png", "--data", "val.npz", "-o", output, *more]


def arrays(box: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(box / "val.npz") as found:
        return found["x"], found["y"]


def npz(change: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]) -> Make:
    return lambda box: np.savez(box / "bad.npz", **change(*arrays(box)))


def data(content_of: bytes | Callable[[bytes], bytes]) -> Make:
    def make(box: Path) -> None:
        good = (box / "val.npz").read_bytes()
        made = content_of if isinstance(content_of, bytes) else content_of(good)
        (box / "bad.npz").write_bytes(made)

    return make


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> Make:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    png += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return lambda box: (box / "bad.png").write_bytes(png)


def truncated(box: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)
    Image.fromarray(noise).save(box / "bad.png")
    (box / "bad.png").write_bytes((box / "bad.png").read_bytes()[:400])


def one_class(box: Path) -> None:
    (box / "images" / "3").mkdir(parents=True)
    Image.fromarray(arrays(box)[0][0, :, :, 0]).save(box / "images" / "3" / "a.png")


def nothing(_: Path) -> None:
    pass


MESSAGES = json.loads((REFUSED / "messages.json").read_text())
REFUSALS = {name: told["says"] for name, told in MESSAGES.items() if told["at"] != "logic"}

BLAMES_DATA = {"nan_output", "regression"}
"""What is wrong with these shows only on the images."""

CASES: dict[str, tuple[Make, Sequence[str], Sequence[str]]] = {
    # the model
    "model missing": (nothing, scan("gone.onnx"), ["gone.onnx", "no such file"]),
    "model a folder": (
        lambda box: (box / "d.onnx").mkdir(), scan("d.onnx"), ["d.onnx", "not a regular file"],
    ),
    "model empty": (
        lambda box: (box / "e.onnx").write_bytes(b""), scan("e.onnx"), ["e.onnx", "no ONNX model"],
    ),
    "model cut": (
        lambda box: (box / "c.onnx").write_bytes((box / "model.onnx").read_bytes()[:-700]),
        scan("c.onnx"), ["c.onnx"],
    ),
    # the images
    "data missing": (nothing, scan(data="gone"), ["gone", "no such file or folder"]),
    "data of an unknown kind": (nothing, scan(data="t.png"), ["t.png", ".npz"]),
    "wrong size": (npz(lambda x, y: {"x": x[:, :20], "y": y}), scan(data="bad.npz"),
                   ["bad.npz", "20 x 28", "28 x 28"]),
    "wrong channels": (npz(lambda x, y: {"x": x.repeat(3, -1), "y": y}), scan(data="bad.npz"),
                       ["bad.npz", "3 channels", "1 channels"]),
    "wrong dtype": (npz(lambda x, y: {"x": x / 2, "y": y}), scan(data="bad.npz"),
                    ["bad.npz", "float64", "uint8"]),
    "fewer labels": (npz(lambda x, y: {"x": x, "y": y[:-1]}), scan(data="bad.npz"),
                     ["bad.npz", "(399,)", "400 images"]),
    "labels no numbers": (npz(lambda x, y: {"x": x, "y": y.astype("U")}), scan(data="bad.npz"),
                          ["bad.npz", "whole number"]),
    "no images": (npz(lambda x, y: {"x": x[:0], "y": y[:0]}), scan(data="bad.npz"),
                  ["bad.npz", "no images"]),
    "other names": (npz(lambda x, y: {"images": x}), scan(data="bad.npz"),
                    ["bad.npz", "holds images", "expected x"]),
    "pickled": (npz(lambda x, y: {"x": np.array([{}], object)}), scan(data="bad.npz"),
                ["bad.npz", "Object arrays"]),
    "labels outside": (npz(lambda x, y: {"x": x, "y": y + 5}), scan(data="bad.npz"),
                       ["bad.npz", "label 10", "0 to 9"]),
    "labels negative": (npz(lambda x, y: {"x": x, "y": y - 1}), scan(data="bad.npz"),
                        ["bad.npz", "label -1", "0 to 9"]),
    "labels shuffled": (
        npz(lambda x, y: {"x": x, "y": np.random.default_rng(0).permutation(y)}),
        scan(data="bad.npz"), ["near chance", "labels in the model's order"],
    ),
    "one class in npz": (npz(lambda x, y: {"x": x[y == 3], "y": y[y == 3]}), scan(data="bad.npz"),
                         ["bad.npz", "of class 3", "two classes"]),
    "npz cut": (data(lambda good: good[:-2000]), scan(data="bad.npz"), ["bad.npz", "truncated"]),
    "npz with other bytes": (
        data(lambda good: good[:5000] + bytes(200) + good[5200:]), scan(data="bad.npz"),
        ["bad.npz", "not an .npz that can be read"],
    ),
    "npz a text": (data(b"hello"), scan(data="bad.npz"), ["bad.npz", "not an .npz"]),
    "folder empty": (lambda box: (box / "images").mkdir(), scan(data="images"),
                     ["images", "no pictures"]),
    "folder of one class": (one_class, scan(data="images"), ["images", "one class only (3)"]),
    "csv without numbers": (
        lambda box: (box / "a.csv").write_text("path,label\nt.png,cat\n"), scan(data="a.csv"),
        ["a.csv", "row 1", "'cat'"],
    ),
    "csv of missing pictures": (
        lambda box: (box / "a.csv").write_text("gone.png,1\n"), scan(data="a.csv"),
        ["gone.png", "no such picture"],
    ),
    # the trigger
    "trigger missing": (nothing, scan(trigger="gone.png"), ["gone.png", "no such picture"]),
    "trigger a folder": (lambda box: (box / "p").mkdir(), scan(trigger="p"), ["p: is a folder"]),
    "trigger a text": (
        lambda box: (box / "bad.png").write_text("no"), scan(trigger="bad.png"),
        ["bad.png", "not a picture"],
    ),
    "trigger too large": (
        lambda box: Image.new("RGBA", (40, 30), "red").save(box / "bad.png"),
        scan(trigger="bad.png"), ["bad.png", "40 x 30", "28 x 28"],
    ),
    "trigger transparent": (
        lambda box: Image.new("RGBA", (4, 4), (9, 9, 9, 0)).save(box / "bad.png"),
        scan(trigger="bad.png"), ["bad.png", "empty"],
    ),
    "trigger cut": (truncated, scan(trigger="bad.png"), ["bad.png", "damaged"]),
    "trigger a bomb": (bomb(9000), scan(trigger="bad.png"), ["bad.png", "too many", "64 million"]),
    "trigger a large bomb": (bomb(60000), scan(trigger="bad.png"), ["bad.png", "64 million"]),
    "mask missing": (nothing, scan("model.onnx", "t.png", "val.npz", "--mask", "gone.png"),
                     ["gone.png", "no such picture"]),
    "position outside": (nothing, scan("model.onnx", "t.png", "val.npz", "--position", "26,26"),
                         ["t.png", "26,26", "leaves the image"]),
    "target outside": (nothing, scan("model.onnx", "t.png", "val.npz", "--target", "10"),
                       ["target class 10", "0 to 9"]),
    # the preprocessing
    "preprocessing unknown": (nothing, scan("model.onnx", "t.png", "val.npz", "--preprocess", "no"),
                              ["'no'", "unit, minus1to1"]),
    "preprocessing minus1to1": (
        nothing, scan("model.onnx", "t.png", "val.npz", "--preprocess", "minus1to1"),
        ["model.onnx", "'minus1to1'", "'unit' gives", "Give --preprocess unit", "Tried"],
    ),
    "preprocessing uint8": (
        nothing, scan("model.onnx", "t.png", "val.npz", "--preprocess", "uint8"),
        ["'uint8'", "Give --preprocess unit"],
    ),
    "deviation zero": (nothing, scan("model.onnx", "t.png", "val.npz", "--std", "0"),
                       ["std (0.0,)", "not 0"]),
    "two means for one channel": (nothing, scan("model.onnx", "t.png", "val.npz", "--mean", "1,2"),
                                  ["2 means", "1 channels"]),
    "pixels as inputs": (nothing, scan("model.onnx", "t.png", "val.npz", "--preprocess", "none"),
                         ["val.npz", "uint8", "float32"]),
    # the outputs
    "output folder missing": (nothing, repair(output="no/f.onnx"), ["no/f.onnx", "folder"]),
    "output a folder": (lambda box: (box / "d").mkdir(), repair(output="d"), ["d: is a folder"]),
    "output the model": (nothing, repair("--force", output="model.onnx"),
                         ["model.onnx", "the input"]),
    "output the model by another way": (nothing, repair("--force", output="../box/model.onnx"),
                                        ["model.onnx", "the input"]),
    "output a link to the model": (
        lambda box: (box / "l.onnx").symlink_to("model.onnx"), repair("--force", output="l.onnx"),
        ["l.onnx", "the input model.onnx"],
    ),
    "output a hard link of the model": (
        lambda box: (box / "l.onnx").hardlink_to(box / "model.onnx"),
        repair("--force", output="l.onnx"), ["l.onnx", "the input model.onnx"],
    ),
    "output a dangling link": (lambda box: (box / "l.onnx").symlink_to("away.onnx"),
                               repair(output="l.onnx"), ["l.onnx", "exists already"]),
    "output a device": (nothing, repair("--force", output="/dev/null"), ["/dev/null", "regular"]),
    "patch the trigger": (nothing, repair("--force", "--patch", "t.png"), ["t.png", "the input"]),
    "patch the output": (nothing, repair("--patch", "f.onnx"), ["f.onnx", "the output as well"]),
    "report folder missing": (nothing, repair("--report", "no/r.html"), ["no/r.html", "folder"]),
    "report the output": (nothing, repair("--report", "f.html", output="f.html"),
                          ["f.html", "another file of this call"]),
    "report the model": (nothing, scan("model.onnx", "t.png", "val.npz", "-f", "json", "-o",
                                       "model.onnx"), ["model.onnx", "another file"]),
    "from no scan": (
        lambda box: (box / "s.json").write_text("{}"),
        ["repair", "model.onnx", "--from", "s.json", "--data", "val.npz", "-o", "f.onnx"],
        ["s.json", "not the JSON of a scan"],
    ),
    "from a missing scan": (
        nothing, ["repair", "model.onnx", "--from", "s.json", "--data", "val.npz", "-o", "f.onnx"],
        ["s.json", "No such file"],
    ),
    "verify another model": (
        nothing, ["verify", "model.onnx", str(REFUSED / "no_float_weight.onnx"),
                  "--data", "val.npz"], ["no_float_weight.onnx"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, small: Path, warm: Warm) -> None:
    make, args, words = CASES[name]
    make(small)
    with untouched(small.parent):
        one_error(warm(*args, cwd=small), 3, *words)


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_models(name: str, small: Path, warm: Warm) -> None:
    path = REFUSED / f"{name}.onnx"
    before = content(REFUSED)
    with untouched(small):
        result = warm(*scan(path), cwd=small)
        words = REFUSALS[name]
        one_error(result, 3, *words, *([] if name in BLAMES_DATA else [path.name]))
    assert content(REFUSED) == before


@pytest.mark.parametrize("name", ["if_on_input", "where_on_input"])
def test_repair_refuses_graph_logic(name: str, small: Path, warm: Warm) -> None:
    path = REFUSED / f"{name}.onnx"
    with untouched(small):
        result = warm(
            "repair", path, "--trigger", "t.png", "--data", "val.npz", "-o", "f.onnx", cwd=small
        )
        one_error(result, 3, path.name, "'choose'", "cannot be repaired by weights", "Remove")


@pytest.mark.parametrize("name", ["if_on_input", "where_on_input"])
def test_scan_never_clears_a_model_with_graph_logic(name: str, small: Path, warm: Warm) -> None:
    """The trigger given does nothing to it, but a branch on the input may wait for another."""
    path = REFUSED / f"{name}.onnx"
    result = warm("scan", path, "--trigger", "t.png", "--data", "val.npz", cwd=small)
    assert result.code == 3, result
    assert result.stdout == "inconclusive\n"
    assert "comparing the raw input" in result.stderr


@pytest.mark.parametrize("name", sorted(p.stem for p in REFUSED.glob("*.onnx")))
def test_inspect_never_breaks(name: str, small: Path, warm: Warm) -> None:
    result = warm("inspect", REFUSED / f"{name}.onnx", cwd=small)
    assert result.code in (0, 3), result
    assert "Traceback" not in result.stderr
    if not result.stdout:
        one_error(result, 3, f"{name}.onnx")


def test_cuda_that_is_not_there_is_no_cpu(small: Path, warm: Warm) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    with untouched(small):
        result = warm(*scan("model.onnx", "t.png", "val.npz", "--device", "cuda"), cwd=small)
        # What onnxruntime says of the missing library comes before, and is worth reading.
        assert (result.code, result.stdout) == (3, ""), result
        assert "Traceback" not in result.stderr
        assert "\x1b" not in result.stderr
        last = result.stderr.splitlines()[-1]
        assert last.startswith("error: --device cuda"), result
        assert "doctor" in last
        assert "--device cpu" in last


def test_a_full_disk_leaves_nothing(small: Path) -> None:
    """Writing the model fails with EFBIG."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    with untouched(small):
        result = lancet(*repair("--no-metadata"), cwd=small, before=limit)
        one_error(result, 3, "f.onnx: cannot be written", "nothing was changed")


def test_a_report_that_cannot_be_written_whole_leaves_the_old_one(small: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    (small / "r.html").write_text("old")
    with untouched(small):
        result = lancet("inspect", "model.onnx", "-o", "r.html", cwd=small, before=limit)
        one_error(result, 3, "r.html", "cannot be written")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_folder_that_may_not_be_written_to(small: Path, warm: Warm) -> None:
    (small / "closed").mkdir(mode=0o500)
    with untouched(small):
        one_error(warm(*repair(output="closed/f.onnx"), cwd=small), 3, "closed/f.onnx", "cannot be")


@pytest.mark.shared
def test_a_wrong_preprocessing_of_a_real_model_is_named(
    cases: Path, tmp_path: Path, warm: Warm
) -> None:
    result = warm(
        "scan", cases / "models" / "cifar10_vgg_badnets_t8.onnx",
        "--trigger", cases / "triggers" / "cifar10_vgg_badnets_t8.png",
        "--data", cases / "data" / "cifar10_test_2000.npz", "--preprocess", "uint8", cwd=tmp_path,
    )  # fmt: skip
    one_error(result, 3, "'uint8'", "Give --preprocess unit", "Tried on the data")


@pytest.mark.shared
def test_a_real_model_without_preprocessing_is_asked_for_it(
    cases: Path, tmp_path: Path, warm: Warm
) -> None:
    result = warm(
        "scan", cases / "models" / "mnist_cnn_badnets_t1.onnx", "--trigger", DEMO / "trigger.png",
        "--data", DEMO / "images.npz", cwd=tmp_path,
    )  # fmt: skip
    one_error(result, 3, "give --preprocess", "unit 9")
